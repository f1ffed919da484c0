//! Items, their creatives and categories.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use anyhow::{anyhow, ensure};
use serde::Deserialize;

use crate::files;

/// The catalog. Items, creatives and categories go by their index.
#[derive(Debug)]
pub struct Catalog {
    /// In the order of the file.
    pub items: Vec<Item>,
    /// External id of each creative; those of one item are next to one another.
    pub creative_ids: Vec<u64>,
    /// Embedding of each creative.
    pub creative_embeddings: Vec<Vec<f32>>,
    /// Names of categories, sorted.
    pub categories: Vec<String>,
    /// Names of the roots of categories, sorted.
    pub roots: Vec<String>,
    by_id: HashMap<u64, usize>,
}

/// An item of the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// External id.
    pub id: u64,
    /// Set if it is an ad.
    pub ad: Option<Ad>,
    /// Index of its category.
    pub category: usize,
    /// Index of its category's root.
    pub root: usize,
    /// Indices of its creatives; never empty.
    pub creatives: Range<usize>,
}

/// What an ad bids, which is also what a click is worth to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ad {
    /// Per click.
    pub bid_micros: u64,
    /// Least that a click costs.
    pub reserve_micros: u64,
}

impl Ad {
    /// Whether it may be shown: a bid below the reserve takes no part.
    pub fn takes_part(&self) -> bool {
        self.bid_micros >= self.reserve_micros
    }
}

#[derive(Deserialize)]
struct ItemLine {
    id: u64,
    kind: Kind,
    bid_micros: Option<u64>,
    #[serde(default)]
    reserve_micros: u64,
    creatives: Vec<CreativeLine>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Ad,
    Organic,
}

#[derive(Deserialize)]
struct CreativeLine {
    id: u64,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct LabelLine {
    item: u64,
    category: String,
    root: String,
}

impl Catalog {
    /// Reads `items.jsonl` and `labels.jsonl`.
    ///
    /// # Errors
    /// Names file, line, field, value and what was expected.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let (items_path, labels_path) = (dir.join("items.jsonl"), dir.join("labels.jsonl"));
        let labels: Vec<(usize, LabelLine)> = files::read_lines(&labels_path)?;
        let label_of: BTreeMap<u64, &LabelLine> =
            labels.iter().map(|(_, label)| (label.item, label)).collect();
        let mut catalog = Self {
            items: Vec::new(),
            creative_ids: Vec::new(),
            creative_embeddings: Vec::new(),
            categories: names(label_of.values().map(|label| &label.category)),
            roots: names(label_of.values().map(|label| &label.root)),
            by_id: HashMap::new(),
        };
        for (line, item) in files::read_lines::<ItemLine>(&items_path)? {
            let id = item.id;
            let label = label_of
                .get(&id)
                .ok_or_else(|| anyhow!("{}: no line has `item` {id}, expected one", labels_path.display()))?;
            catalog.push(item, label).map_err(|e| anyhow!("{}:{line}: {e}", items_path.display()))?;
        }
        ensure!(!catalog.items.is_empty(), "{}: holds no items, expected one a line", items_path.display());
        Ok(catalog)
    }

    fn push(&mut self, line: ItemLine, label: &LabelLine) -> anyhow::Result<()> {
        let ItemLine { id, kind, bid_micros, reserve_micros, creatives } = line;
        ensure!(!creatives.is_empty(), "`creatives`: is empty, expected at least one");
        let ad = match (kind, bid_micros) {
            (Kind::Ad, Some(bid_micros)) => Some(Ad { bid_micros, reserve_micros }),
            (Kind::Ad, None) => anyhow::bail!("`bid_micros`: is missing, expected one of an ad"),
            (Kind::Organic, _) => None,
        };
        let category = self.categories.partition_point(|name| *name < label.category);
        let root = self.roots.partition_point(|name| *name < label.root);
        let first = self.creative_ids.len();
        for (number, creative) in creatives.into_iter().enumerate() {
            let width = self.creative_embeddings.first().map_or(creative.embedding.len(), Vec::len);
            ensure!(
                creative.embedding.len() == width && creative.embedding.iter().all(|x| x.is_finite()),
                "`creatives[{number}].embedding`: expected {width} finite numbers, as of the first creative"
            );
            ensure!(
                !self.creative_ids[first..].contains(&creative.id),
                "`creatives[{number}].id`: is {} again, expected each once",
                creative.id
            );
            self.creative_ids.push(creative.id);
            self.creative_embeddings.push(creative.embedding);
        }
        let before = self.by_id.insert(id, self.items.len());
        ensure!(before.is_none(), "`id`: is {id} again, expected each once");
        self.items.push(Item { id, ad, category, root, creatives: first..self.creative_ids.len() });
        Ok(())
    }

    /// Index of an item.
    ///
    /// # Errors
    /// If there is no item with that id.
    pub fn item(&self, id: u64) -> anyhow::Result<usize> {
        self.by_id.get(&id).copied().ok_or_else(|| anyhow!("is {id}, expected an item of items.jsonl"))
    }

    /// Index of one of an item's creatives.
    ///
    /// # Errors
    /// If the item has no creative with that id.
    pub fn creative(&self, item: usize, id: u64) -> anyhow::Result<usize> {
        let own = &self.items[item].creatives;
        own.clone().find(|&creative| self.creative_ids[creative] == id).ok_or_else(|| {
            anyhow!(
                "is {id}, expected one of {:?} of item {}",
                &self.creative_ids[own.clone()],
                self.items[item].id
            )
        })
    }

    /// The bid of an item in currency units; 0 if it is organic.
    pub fn bid(&self, item: usize) -> f64 {
        self.items[item].ad.map_or(0.0, |ad| ad.bid_micros as f64 / 1e6)
    }
}

/// Each name once, sorted.
fn names<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    all.cloned().collect::<BTreeSet<String>>().into_iter().collect()
}
