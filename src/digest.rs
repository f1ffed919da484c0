//! Fingerprints of weights and catalogs: BLAKE3, written as 64 hexadecimal digits.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A BLAKE3 hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(blake3::Hash);

impl Digest {
    /// The digest of these parts, one after another.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Self::hasher();
        parts.into_iter().for_each(|part| hasher.update(part));
        hasher.finish()
    }

    /// Starts a digest of parts that come one by one.
    pub(crate) fn hasher() -> Hasher {
        Hasher(blake3::Hasher::new())
    }
}

/// A digest in the making.
pub(crate) struct Hasher(blake3::Hasher);

impl Hasher {
    /// Takes a further part.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// The digest of all parts.
    pub fn finish(&self) -> Digest {
        Digest(self.0.finalize())
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        blake3::Hash::from_hex(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_that_of_blake3_and_comes_back_from_json() {
        let digest = Digest::of([&b"ab"[..], b"", b"c"]);
        let text = "\"6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85\"";
        assert_eq!(serde_json::to_string(&digest).unwrap(), text);
        assert_eq!(serde_json::from_str::<Digest>(text).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"64\"").is_err());
    }
}
