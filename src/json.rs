//! JSON read more strictly than `serde` does by itself: it keeps the last of two equal keys without a word, and takes
//! a list for an object, field by field in their order.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};

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

/// For `#[serde(deserialize_with)]` on an enum of words; reading one from anything but a text fails. The JSON reader
/// alone says no more of a number than that it expected a value, and takes `{"word": null}` for the word.
pub(crate) fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(WordVisitor(PhantomData))
}

struct WordVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for WordVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The words are in what is said of one that is none of them.
        let none: Result<T, serde::de::value::Error> = T::deserialize("".into_deserializer());
        let says = none.err().map(|error| error.to_string()).unwrap_or_default();
        f.write_str(says.split_once("expected ").map_or("a text", |(_, words)| words))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::deserialize(text.into_deserializer())
    }
}

/// Parses one line of input from a JSON object.
///
/// # Errors
/// [`RequestErrorKind::Parse`] naming the field: no JSON, an unknown key, a missing or a repeated one, a wrong type, a
/// negative number where none may stand.
pub(crate) fn parse_line<T: DeserializeOwned>(text: &[u8]) -> Result<T, RequestError> {
    let refuse = |path: String, error: &serde_json::Error| {
        let message = describe(error);
        RequestError::new(RequestErrorKind::Parse, field(&path, &message), message)
    };
    let mut json = serde_json::Deserializer::from_slice(text);
    let Object(value) =
        serde_path_to_error::deserialize(&mut json).map_err(|e| refuse(e.path().to_string(), e.inner()))?;
    json.end().map_err(|e| refuse(".".into(), &e))?;
    Ok(value)
}

/// The field that a fault at `path` is about.
fn field(path: &str, message: &str) -> String {
    // "?" is a part that ended before it had a name; "." is the whole; "" a key of no letters.
    let at = match path {
        "." | "?" | "" => "",
        path => path.strip_suffix(".?").unwrap_or(path),
    };
    match (at, named_field(message)) {
        ("", None) => "request".into(),
        ("", Some(name)) => name.into(),
        (at, Some(name)) if at != name && !at.ends_with(&format!(".{name}")) => format!("{at}.{name}"),
        (at, _) => at.into(),
    }
}

/// The key that is missing or repeated: `serde` reports these two at the object, not at the key.
pub(crate) fn named_field(message: &str) -> Option<&str> {
    ["missing field `", "duplicate field `"]
        .into_iter()
        .find_map(|prefix| message.strip_prefix(prefix)?.split('`').next())
}

/// An error of the JSON reader about a single line: without the line's number, which counts within the line, and with
/// types as a user of JSON calls them.
pub(crate) fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => format!("{} (column {})", in_words(message), error.column()),
        None => text,
    }
}

/// A message with the type that it ends with, if it is one of Rust's, in words.
fn in_words(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else { return message.into() };
    let expected = match expected {
        "usize" | "u64" => "a whole number, 0 or more",
        "u32" => "a whole number from 0 to 4294967295",
        "u16" => "a whole number from 0 to 65535",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        other => other,
    };
    format!("{found}expected {expected}")
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
