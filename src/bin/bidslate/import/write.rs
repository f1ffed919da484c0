//! The files of an import.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::checkins::CheckIns;
use super::requests::{self, Ask, Maker};
use super::world::{Creative, EMBEDDING, Item, World};
use crate::progress::Progress;

/// What the user chose that the files depend on.
pub struct Settings {
    /// Seed of everything made up.
    pub seed: u64,
    /// Behaviours of a history.
    pub history: usize,
}

/// Writes `items.jsonl`, `labels.jsonl`, `visits.jsonl`, `requests.jsonl`, `heldout.jsonl` and `summary.json` into
/// `dir`.
///
/// # Errors
/// Names the file that could not be written.
pub fn all(
    dir: &Path,
    data: &CheckIns,
    world: &World,
    plan: &[Ask],
    settings: &Settings,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    let mut progress = Progress::steps("importing");
    let total = (2 * world.items.len() + data.users.len() + plan.len()) as u64;
    let mut steps = 0..;
    let mut step = || progress.at(steps.next().unwrap_or(total) + 1, total);
    let mut by_id: Vec<(&Item, usize)> = world.items.iter().zip(0..).collect();
    by_id.sort_by_key(|(item, _)| item.id);

    let mut items = Lines::create(dir, "items.jsonl")?;
    for (item, _) in &by_id {
        items.push(&ItemLine::of(item))?;
        step();
    }
    items.finish()?;

    let mut labels = Lines::create(dir, "labels.jsonl")?;
    for &(item, place) in &by_id {
        let place = &data.places[place];
        labels.push(&LabelLine {
            item: item.id,
            category: &place.category,
            root: &place.root,
            price_tier: place.price_tier,
        })?;
        step();
    }
    labels.finish()?;

    let visits = requests::popularity(data, plan);
    let maker = Maker::new(data, world, &visits, settings.history, settings.seed);
    let mut past = Lines::create(dir, "visits.jsonl")?;
    for user in 0..data.users.len() {
        for visit in maker.visits(user) {
            past.push(&visit)?;
        }
        step();
    }
    past.finish()?;

    let mut asked = Lines::create(dir, "requests.jsonl")?;
    let mut held_out = Lines::create(dir, "heldout.jsonl")?;
    for &ask in plan {
        let (request, target) = maker.make(ask);
        asked.push(&request)?;
        held_out.push(&target)?;
        step();
    }
    asked.finish()?;
    held_out.finish()?;
    summary(dir, data, world, plan, settings)
}

fn summary(
    dir: &Path,
    data: &CheckIns,
    world: &World,
    plan: &[Ask],
    settings: &Settings,
) -> anyhow::Result<()> {
    let ads = || world.items.iter().filter_map(|item| item.ad.as_ref());
    let sizes = |features: [(&'static str, usize); 3]| {
        std::collections::BTreeMap::<&'static str, usize>::from(features)
    };
    let summary = serde_json::json!({
        "seed": settings.seed,
        "users": data.users.len(),
        "visits": data.users.iter().map(Vec::len).sum::<usize>(),
        "items": world.items.len(),
        "ads": ads().count(),
        "ads_below_reserve": ads().filter(|ad| ad.bid_micros < ad.reserve_micros).count(),
        "advertisers": ads().map(|ad| ad.advertiser).max().unwrap_or(0),
        "creatives": world.items.iter().map(|item| item.creatives.len()).sum::<usize>(),
        "requests": plan.len(),
        "history_len": settings.history,
        "item_embedding_size": EMBEDDING,
        "recency_seconds": requests::RECENCY,
        "context_features": sizes(requests::CONTEXT_FEATURES),
        "behavior_features": sizes(requests::BEHAVIOR_FEATURES),
    });
    let path = dir.join("summary.json");
    let text = format!("{summary:#}\n");
    std::fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
    crate::lines::print(summary)
}

#[derive(Serialize)]
struct ItemLine {
    id: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bid_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserve_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advertiser: Option<u64>,
    embedding: Vec<f32>,
    creatives: Vec<CreativeLine>,
}

#[derive(Serialize)]
struct CreativeLine {
    id: u64,
    embedding: Vec<f32>,
}

#[derive(Serialize)]
struct LabelLine<'a> {
    item: u64,
    category: &'a str,
    root: &'a str,
    price_tier: Option<u8>,
}

impl ItemLine {
    fn of(item: &Item) -> Self {
        let ad = item.ad.as_ref();
        let creative = |c: &Creative| CreativeLine { id: c.id, embedding: rounded(&c.embedding) };
        Self {
            id: item.id,
            kind: if ad.is_some() { "ad" } else { "organic" },
            bid_micros: ad.map(|ad| ad.bid_micros),
            reserve_micros: ad.map(|ad| ad.reserve_micros),
            advertiser: ad.map(|ad| ad.advertiser),
            embedding: rounded(&item.embedding),
            creatives: item.creatives.iter().map(creative).collect(),
        }
    }
}

/// Four decimals: finer than BF16 keeps, and half the text.
fn rounded(embedding: &[f64; EMBEDDING]) -> Vec<f32> {
    embedding.iter().map(|x| ((x * 1e4).round() / 1e4) as f32).collect()
}

/// A file of one JSON value a line.
struct Lines {
    path: std::path::PathBuf,
    file: BufWriter<File>,
}

impl Lines {
    fn create(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let path = dir.join(name);
        let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    fn push(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(value).with_context(|| format!("{}", self.path.display()))?;
        writeln!(self.file, "{line}").with_context(|| format!("{}", self.path.display()))
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| format!("{}", self.path.display()))
    }
}
