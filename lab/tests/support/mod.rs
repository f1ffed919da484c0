//! A small import, made up: users who like a category each, and requests before their later visits.
#![allow(dead_code, reason = "each test crate uses part of it")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use bidslate_lab::data::{self, Ask, Data};
use bidslate_lab::draw::{self, Stream};
use bidslate_lab::world::{self, Parameters, World};
use serde_json::{Value, json};

pub const USERS: u64 = 12;
pub const VISITS: usize = 45;
pub const ITEMS: u64 = 60;
pub const CATEGORIES: u64 = 6;
/// Slots of a list.
pub const LIST_LEN: usize = 8;

/// An import in a directory of its own.
pub struct Import {
    pub dir: tempfile::TempDir,
}

impl Import {
    pub fn new() -> Self {
        let import = Self { dir: tempfile::tempdir().unwrap() };
        import.write("items.jsonl", &(1..=ITEMS).map(item).collect::<Vec<_>>());
        let label = |id: u64| {
            let category = id % CATEGORIES;
            json!({ "item": id, "category": format!("category {category}"), "root": format!("root {}", category / 2) })
        };
        import.write("labels.jsonl", &(1..=ITEMS).map(label).collect::<Vec<_>>());
        import.write("visits.jsonl", &(1..=USERS).flat_map(visits).collect::<Vec<_>>());
        let asks = || (1..=USERS).flat_map(|user| (1..=30).map(move |back| (user, back)));
        import.write("requests.jsonl", &asks().map(|(user, back)| request(user, back)).collect::<Vec<_>>());
        let held_out = |(user, back)| json!({ "id": id(user, back), "user": user, "visit": VISITS - back });
        import.write("heldout.jsonl", &asks().map(held_out).collect::<Vec<_>>());
        import
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, lines: &[Value]) {
        let text = lines.iter().fold(String::new(), |mut text, line| {
            writeln!(text, "{line}").unwrap();
            text
        });
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn lines(&self, name: &str) -> Vec<Value> {
        lines(&self.path(name))
    }

    pub fn data(&self) -> Data {
        Data::read(self.dir.path()).unwrap()
    }

    pub fn asks(&self, data: &Data) -> Vec<Ask> {
        let held_out = data::held_out(self.dir.path(), &data.visits).unwrap();
        data::asks(&self.path("requests.jsonl"), data, &held_out, LIST_LEN).unwrap()
    }
}

pub fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn world<'a>(data: &'a Data, asks: &[Ask], seed: u64) -> World<'a> {
    world::make(data, asks, Parameters { seed, factors: 8, ..Parameters::default() }).unwrap()
}

fn id(user: u64, back: usize) -> String {
    format!("user-{user}-{back}")
}

fn item(id: u64) -> Value {
    let mut draws = draw::stream(7, "item", &id.to_string());
    let creatives: Vec<Value> = (0..=draws.below(3))
        .map(|number| json!({ "id": 10 * id + number as u64, "embedding": vector(&mut draws) }))
        .collect();
    let mut line =
        json!({ "id": id, "kind": "organic", "embedding": vector(&mut draws), "creatives": creatives });
    if id.is_multiple_of(3) {
        line["kind"] = json!("ad");
        line["bid_micros"] = json!(10_000 * (20 + draws.below(300)));
        line["reserve_micros"] = json!(300_000);
        line["advertiser"] = json!(id);
    }
    line
}

fn vector(draws: &mut Stream) -> Vec<f64> {
    (0..6).map(|_| (draws.normal() * 1e3).round() / 1e3).collect()
}

fn visits(user: u64) -> Vec<Value> {
    let mut draws = draw::stream(7, "visits", &user.to_string());
    let visit = |visit: usize| {
        let liked = draws.uniform() < 0.6;
        let any = 1 + draws.below(ITEMS as usize) as u64;
        let item = if liked { any - any % CATEGORIES + user % CATEGORIES } else { any };
        let item = if (1..=ITEMS).contains(&item) { item } else { any };
        json!({
            "user": user, "visit": visit, "second": 3600 * visit, "item": item, "creative": 10 * item,
            "features": { "action": 0, "is_ad": 0 },
            "context": { "hour": (7 * visit + user as usize) % 24, "weekday": 0, "weather": 0 },
        })
    };
    (0..VISITS).map(visit).collect()
}

/// Organic items of a request.
pub fn request_organic(user: u64, back: usize) -> Vec<u64> {
    serde_json::from_value(request(user, back)["organic"].clone()).unwrap()
}

fn request(user: u64, back: usize) -> Value {
    let mut draws = draw::stream(7, "request", &id(user, back));
    let mut some = |ads: bool, count: usize| {
        let mut ids: Vec<u64> = (1..=ITEMS).filter(|id| id.is_multiple_of(3) == ads).collect();
        draws.shuffle(&mut ids);
        ids.truncate(count);
        ids
    };
    json!({
        "id": id(user, back), "context": { "hour": back % 24, "weekday": 0, "weather": 0 }, "history": [],
        "candidates": some(true, 8), "organic": some(false, 10),
        "policy": { "max_ads": 3, "min_gap": 1, "first_ad_slot": 1 }, "tie_seed": 1,
    })
}
