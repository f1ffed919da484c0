//! JSON read more strictly than `serde` does by itself: it keeps the last of two equal keys without a word, and takes
//! a list for an object, field by field in their order.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, Visitor};

use crate::error::{RequestError, RequestErrorKind};

/// A JSON object; reading one with a repeated key fails.
#[derive(Debug)]
pub(crate) struct UniqueMap<V>(pub BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData)).map(Self)
    }
}

/// For `#[serde(deserialize_with)]` on a map.
pub(crate) fn unique_map<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    UniqueMap::deserialize(deserializer).map(|map| map.0)
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = BTreeMap<String, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = access.next_entry::<String, V>()? {
            if map.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format_args!("key {key:?} occurs twice")));
            }
        }
        Ok(map)
    }
}

/// A struct read from a JSON object alone; reading one from a list fails.
pub(crate) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

/// For `#[serde(deserialize_with)]` on a struct.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|object| object.0)
}

/// For `#[serde(deserialize_with)]` on a list of structs.
pub(crate) fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|object| object.0).collect())
}

/// Parses one line of input from a JSON object.
///
/// # Errors
/// [`RequestErrorKind::Parse`] naming the field: no JSON, an unknown key, a missing or a repeated one, a wrong type, a
/// negative number where none may stand.
pub(crate) fn parse_line<T: DeserializeOwned>(text: &[u8]) -> Result<T, RequestError> {
    let refuse = |path: String, message: String| {
        // "?" is a part that ended before it had a name; "." is the whole; "" a key of no letters.
        let field = match path.as_str() {
            "." | "?" | "" => "request",
            path => path.strip_suffix(".?").unwrap_or(path),
        };
        RequestError::new(RequestErrorKind::Parse, field, message)
    };
    let mut json = serde_json::Deserializer::from_slice(text);
    let Object(value) = serde_path_to_error::deserialize(&mut json)
        .map_err(|e| refuse(e.path().to_string(), e.inner().to_string()))?;
    json.end().map_err(|e| refuse(".".into(), e.to_string()))?;
    Ok(value)
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}
