//! JSON-lines files: one object per line, every fault with its line and field.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::CatalogError;
use crate::json::{Object, describe, named_field, objects, word};

use super::ItemKind;

/// A refused field of a line: a path into its JSON, and its value with what was expected.
pub(super) type Fault = (String, String);

/// A fault of `field`.
pub(super) fn fault<T>(field: impl Into<String>, message: impl Into<String>) -> Result<T, Fault> {
    Err((field.into(), message.into()))
}

/// An item, as `bidslate catalog build` reads it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ItemLine {
    pub(super) id: u64,
    #[serde(deserialize_with = "word")]
    pub(super) kind: ItemKind,
    pub(super) codes: Option<Vec<u16>>,
    pub(super) bid_micros: Option<u64>,
    #[serde(default)]
    pub(super) reserve_micros: u64,
    pub(super) embedding: Option<Vec<f32>>,
    #[serde(default = "yes")]
    pub(super) active: bool,
    pub(super) advertiser: Option<u64>,
    #[serde(default, deserialize_with = "objects")]
    pub(super) creatives: Vec<CreativeLine>,
}

/// A creative of an item.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreativeLine {
    pub(super) id: u64,
    pub(super) codes: Option<Vec<u16>>,
    pub(super) embedding: Option<Vec<f32>>,
}

/// An advertiser.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdvertiserLine {
    pub(super) id: u64,
    pub(super) budget_micros: Option<u64>,
    pub(super) pacing: Option<f32>,
}

/// What makes an item of an index file an ad.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BidLine {
    pub(super) id: u64,
    pub(super) bid_micros: u64,
    #[serde(default)]
    pub(super) reserve_micros: u64,
    pub(super) advertiser: Option<u64>,
}

fn yes() -> bool {
    true
}

/// Calls `each` with every line that is not blank and its number, from 1; `progress` with the bytes read so
/// far and the file's size, now and then.
pub(super) fn read_lines<T: DeserializeOwned>(
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
    mut each: impl FnMut(usize, T) -> Result<(), Fault>,
) -> Result<(), CatalogError> {
    let io = |source| CatalogError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let (mut text, mut line, mut read) = (Vec::new(), 0, 0);
    loop {
        text.clear();
        let bytes = reader.read_until(b'\n', &mut text).map_err(io)?;
        if bytes == 0 {
            progress(size, size);
            return Ok(());
        }
        line += 1;
        read += bytes as u64;
        if line % 1024 == 0 {
            progress(read, size);
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        parse(text.trim_ascii())
            .and_then(|value| each(line, value))
            .map_err(|(field, message)| CatalogError::Line { path: path.into(), line, field, message })?;
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Fault> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let message = describe(e.inner());
        match (e.path().to_string().as_str(), named_field(&message)) {
            (".", Some(name)) => (name.to_owned(), message),
            (path, _) => (path.to_owned(), message),
        }
    })?;
    json.end().map_err(|e| (".".into(), describe(&e)))?;
    Ok(value)
}
