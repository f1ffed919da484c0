//! The catalog at size: opening it, changing a bid, finding an item, asking for the bids of a range.
//!
//! `BIDSLATE_BENCH_ITEMS` (default 200,000) items, all but one in eight of them ads, three code layers of
//! 1,024, one creative and an advertiser each; `BIDSLATE_BENCH_EMBEDDING` (default 16) values in an
//! embedding. The file is made anew in every run. Besides the timings, the time to open and the peak of
//! resident memory while opening are printed, the mapped embeddings apart.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use bidslate::catalog::{Catalog, Columns, ItemKind, NewCreative, NewItem, Update};
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::money::Micros;
use criterion::{BatchSize, Criterion};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

const ADVERTISERS: u64 = 10_000;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// External id of an item: no pattern that a hash could profit from.
fn id(row: u64) -> u64 {
    row.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn columns(n: usize, config: &ModelConfig) -> Columns {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut codes = |count: usize| (0..count).map(|_| rng.random_range(0..1024)).collect::<Vec<u16>>();
    let (item_codes, creative_codes) = (codes(n * 3), codes(n * 3));
    let rows = 0..n as u64;
    Columns {
        ids: rows.clone().map(id).collect(),
        kinds: rows.clone().map(|row| if row % 8 == 0 { ItemKind::Organic } else { ItemKind::Ad }).collect(),
        codes: item_codes,
        bid_micros: (0..n).map(|_| rng.random_range(100_000..10_000_000)).collect(),
        reserve_micros: (0..n).map(|_| rng.random_range(0..200_000)).collect(),
        embeddings: (0..n * config.item_embedding_size).map(|i| i as f32 * 1e-6).collect(),
        creative_offsets: (0..=n as u64).collect(),
        creative_ids: rows.clone().collect(),
        creative_codes,
        active: None,
        advertisers: Some(rows.map(|row| row % ADVERTISERS).collect()),
        advertiser_ids: Some((0..ADVERTISERS).collect()),
        advertiser_budget_micros: Some(vec![1 << 40; ADVERTISERS as usize]),
        advertiser_pacing: Some(vec![0.9; ADVERTISERS as usize]),
    }
}

/// A line of `/proc/self/status` in MiB; `None` where there is no such file.
fn memory(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

fn open(path: &Path, n: usize, config: &ModelConfig) -> Catalog {
    // The kernel's way to forget the peak that making the file has left.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = memory("VmRSS");
    let start = Instant::now();
    let catalog = Catalog::open(path, config).expect("the file that was just written opens");
    let seconds = start.elapsed().as_secs_f64();
    println!("open {n} items: {seconds:.2} s");
    let figures = [
        ("before", before),
        ("peak", memory("VmHWM")),
        ("anonymous now", memory("RssAnon")),
        ("mapped now", memory("RssFile")),
    ];
    for (name, mib) in figures {
        println!("resident memory {name}: {} MiB", mib.map_or("?".into(), |mib| mib.to_string()));
    }
    catalog
}

fn new_item(row: u64, config: &ModelConfig) -> NewItem {
    NewItem {
        id: id(row),
        kind: ItemKind::Ad,
        codes: vec![1, 2, 3],
        bid: Micros(1_000_000),
        reserve: Micros(1),
        active: true,
        advertiser: Some(3),
        embedding: vec![0.0; config.item_embedding_size],
        creatives: vec![NewCreative { id: 1, codes: vec![1, 2, 3] }],
    }
}

fn main() {
    let n = setting("BIDSLATE_BENCH_ITEMS", 200_000);
    let embedding = setting("BIDSLATE_BENCH_EMBEDDING", 16);
    let config = ModelConfig { item_embedding_size: embedding, ..ModelConfig::of_size(ModelSize::Tiny) };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("catalog.safetensors");
    columns(n, &config).write(&path, &config).expect("the catalog is written");
    let catalog = open(&path, n, &config);

    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
    let mut item = || id(rng.random_range(0..n as u64));
    criterion.bench_function("catalog/find", |b| {
        let snapshot = catalog.snapshot();
        b.iter_batched(&mut item, |id| snapshot.find(black_box(id)), BatchSize::SmallInput);
    });
    let mut bid = 100_000;
    criterion.bench_function("catalog/update one bid", |b| {
        b.iter_batched(
            || {
                bid += 1;
                [Update::Bid { item: item(), bid: Micros(bid) }]
            },
            |update| catalog.apply(&update).expect("the item is there"),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("catalog/update 1000 bids", |b| {
        b.iter_batched(
            || (0..1000).map(|_| Update::Bid { item: item(), bid: Micros(bid) }).collect::<Vec<_>>(),
            |updates| catalog.apply(&updates).expect("the items are there"),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("catalog/update one pacing", |b| {
        let mut pacing = 0.0;
        b.iter(|| {
            pacing = 1.0 - pacing;
            catalog.apply(&[Update::Pacing { advertiser: 5, pacing }]).expect("the advertiser is there")
        });
    });
    searches(&mut criterion, &catalog);
    let mut row = n as u64;
    criterion.bench_function("catalog/insert one item", |b| {
        b.iter_batched(
            || {
                row += 1;
                [Update::Insert(new_item(row, &config))]
            },
            |update| catalog.apply(&update).expect("the item is new"),
            BatchSize::PerIteration,
        );
    });
    criterion.final_summary();
}

/// What beam search asks of a snapshot.
fn searches(criterion: &mut Criterion, catalog: &Catalog) {
    let snapshot = catalog.snapshot();
    let ads = snapshot.ads();
    let mut group = criterion.benchmark_group("catalog/search");
    group.bench_function("all codes of the first layer with their aggregates", |b| {
        b.iter(|| {
            let mut start = 0;
            let mut sum = 0;
            while start < ads.len() {
                let end = ads.end_of_code(start..ads.len(), 0);
                sum += snapshot.aggregate(start..end).sum;
                start = end;
            }
            sum
        });
    });
    let prefix = ads.prefix_range(&ads.codes(ads.len() / 2)[..1]);
    group.bench_function("all codes below one first code, with their aggregates", |b| {
        b.iter(|| {
            let mut start = prefix.start;
            let mut sum = 0;
            while start < prefix.end {
                let end = ads.end_of_code(start..prefix.end, 1);
                sum += snapshot.aggregate(start..end).sum;
                start = end;
            }
            sum
        });
    });
    group.bench_function("aggregate of almost all ads", |b| {
        b.iter(|| snapshot.aggregate(black_box(1..ads.len() - 1)));
    });
    group.finish();
}
