//! Index files as public trainers of semantic ids write them: item -> `["<a_114>", "<b_32>", ...]`.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::error::CatalogError;

use super::ItemKind;
use super::build::{CatalogBuilder, check_codes};
use super::lines::{BidLine, Fault, fault, read_lines};

/// What an index file does not say.
#[derive(Debug, Clone, Copy, Default)]
pub struct IndexOptions<'a> {
    /// JSON lines `{"id", "bid_micros", "reserve_micros", "advertiser"}` of the items that are ads; the
    /// others are organic.
    pub bids: Option<&'a Path>,
    /// Embeddings [rows, d_item], that of item i in row i; without them they are zeros.
    pub embeddings: Option<&'a [f32]>,
    /// Codes `[C_c]` of the one creative that every item gets, whose id is the item's; without them zeros.
    pub creative_codes: Option<&'a [u16]>,
}

impl CatalogBuilder {
    /// Reads an index file: a JSON object whose keys are item ids and whose values are one token per code
    /// layer, `<a_114>` for code 114 in layer 0, `<b_32>` for code 32 in layer 1, and so on.
    ///
    /// # Errors
    /// [`CatalogError::Io`], [`CatalogError::Format`] where the file is not such an object,
    /// [`CatalogError::Entry`] naming the entry that does not fit, [`CatalogError::Line`] naming the line of
    /// `bids`.
    pub fn read_index(&mut self, path: &Path, options: &IndexOptions) -> Result<(), CatalogError> {
        let text = std::fs::read(path).map_err(|source| CatalogError::Io { path: path.into(), source })?;
        let Entries(entries) = serde_json::from_slice(&text)
            .map_err(|e| CatalogError::Format { path: path.into(), message: e.to_string() })?;
        let error = |entry: &str, (field, message): Fault| CatalogError::Entry {
            path: path.into(),
            entry: entry.into(),
            message: format!("{field} {message}"),
        };
        let mut items = Vec::with_capacity(entries.len());
        for (key, tokens) in &entries {
            let (id, codes) = self.entry(key, tokens).map_err(|fault| error(key, fault))?;
            items.push((id, codes, key.as_str()));
        }
        items.sort_by_key(|&(id, ..)| id);
        let mut bids = read_bids(options.bids, &items)?;
        for (id, codes, key) in items {
            self.index_item(id, codes, bids.remove(&id), options).map_err(|fault| error(key, fault))?;
        }
        Ok(())
    }

    fn entry(&self, key: &str, tokens: &[String]) -> Result<(u64, Vec<u16>), Fault> {
        let Ok(id) = key.parse() else { return fault("key", "is not a number of 64 bits") };
        let mut codes = Vec::with_capacity(tokens.len());
        for (layer, token) in tokens.iter().enumerate() {
            match code(layer, token) {
                Some(code) => codes.push(code),
                None => {
                    let letter = letter(layer).map_or("?".into(), |letter| letter.to_string());
                    let expected = format!("is {token:?}, expected \"<{letter}_N>\" with N below 65536");
                    return fault(format!("token {layer}"), expected);
                }
            }
        }
        check_codes("codes", &codes, self.shape.poi_layers, self.shape.codebook)?;
        Ok((id, codes))
    }

    fn index_item(
        &mut self,
        id: u64,
        codes: Vec<u16>,
        bid: Option<BidLine>,
        options: &IndexOptions,
    ) -> Result<(), Fault> {
        let shape = self.shape;
        match bid {
            Some(bid) => {
                let amounts = [bid.bid_micros, bid.reserve_micros];
                self.add_head(id, ItemKind::Ad, amounts, true, bid.advertiser)?;
            }
            None => self.add_head(id, ItemKind::Organic, [0, 0], true, None)?,
        }
        let zeros = vec![0; shape.creative_layers];
        let creative = options.creative_codes.unwrap_or(&zeros);
        check_codes("creative codes", creative, shape.creative_layers, shape.codebook)?;
        match options.embeddings {
            None => self.columns.embeddings.resize(self.columns.embeddings.len() + shape.embedding, 0.0),
            Some(embeddings) => {
                let row = usize::try_from(id).ok().and_then(|row| row.checked_mul(shape.embedding));
                let row = row.and_then(|at| embeddings.get(at..at.checked_add(shape.embedding)?));
                let rows = embeddings.len() / shape.embedding;
                let Some(row) = row else { return fault("key", format!("is no row of {rows} embeddings")) };
                self.columns.embeddings.extend_from_slice(row);
            }
        }
        self.columns.codes.extend(codes);
        self.columns.creative_ids.push(id);
        self.columns.creative_codes.extend_from_slice(creative);
        self.columns.creative_offsets.push(self.columns.creative_ids.len() as u64);
        Ok(())
    }
}

/// Bids by item; each must name an item of the index, once.
fn read_bids(
    path: Option<&Path>,
    items: &[(u64, Vec<u16>, &str)],
) -> Result<HashMap<u64, BidLine>, CatalogError> {
    let mut bids = HashMap::new();
    let Some(path) = path else { return Ok(bids) };
    read_lines(path, &mut |_, _| (), |_, line: BidLine| {
        let id = line.id;
        if items.binary_search_by_key(&id, |&(id, ..)| id).is_err() {
            return fault("id", format!("{id} is not in the index"));
        }
        match bids.insert(id, line) {
            Some(_) => fault("id", format!("{id} again, expected each item once")),
            None => Ok(()),
        }
    })?;
    Ok(bids)
}

/// The letter of a layer: `a` for layer 0.
fn letter(layer: usize) -> Option<char> {
    ('a'..='z').nth(layer)
}

/// The code that `token` stands for in `layer`.
fn code(layer: usize, token: &str) -> Option<u16> {
    let digits =
        token.strip_prefix('<')?.strip_prefix(letter(layer)?)?.strip_prefix('_')?.strip_suffix('>')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// The entries of the object in the file's order, so that a key found twice is not lost.
struct Entries(Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Entries;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of item ids with their tokens")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
