//! The catalog: what its files must hold, what its snapshots promise, and its searches against naive loops.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bidslate::catalog::{
    Aggregate, Catalog, Columns, ItemKind, NO_ADVERTISER, NewAdvertiser, NewCreative, NewItem, Rejection,
    Snapshot, Update,
};
use bidslate::error::CatalogError;
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::money::Micros;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A model of few codes, so that prefixes are shared and codes collide.
fn config() -> ModelConfig {
    ModelConfig { codebook_size: 5, item_embedding_size: 3, ..ModelConfig::of_size(ModelSize::Tiny) }
}

/// `n` items, about two in three of them ads, with 0 to 3 creatives, 4 advertisers and small bids that tie.
fn columns(n: usize, seed: u64) -> Columns {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut columns = Columns { creative_offsets: vec![0], ..Columns::default() };
    let mut active = Vec::new();
    let mut advertisers = Vec::new();
    for row in 0..n {
        columns.ids.push(row as u64 * 7 + 1);
        columns.kinds.push(if rng.random_range(0..3) == 0 { ItemKind::Organic } else { ItemKind::Ad });
        columns.codes.extend((0..3).map(|_| rng.random_range(0..5u16)));
        columns.bid_micros.push(rng.random_range(0..20));
        columns.reserve_micros.push(rng.random_range(0..4));
        columns.embeddings.extend((0..3).map(|_| rng.random_range(-1.0..1.0f32)));
        if rng.random_range(0..30) == 0 {
            columns.embeddings[row * 3 + 1] = f32::NAN;
        }
        for creative in 0..rng.random_range(0..4u64) {
            columns.creative_ids.push(creative);
            columns.creative_codes.extend((0..3).map(|_| rng.random_range(0..5u16)));
        }
        columns.creative_offsets.push(columns.creative_ids.len() as u64);
        active.push(rng.random_range(0..8) != 0);
        advertisers.push([11, 12, 13, 14, NO_ADVERTISER][rng.random_range(0..5)]);
    }
    columns.active = Some(active);
    columns.advertisers = Some(advertisers);
    columns.advertiser_ids = Some(vec![11, 12, 13, 14]);
    columns.advertiser_budget_micros = Some(vec![0, 5, 1 << 50, 7]);
    columns.advertiser_pacing = Some(vec![1.0, 0.5, 0.3, 0.0]);
    columns
}

fn catalog(n: usize, seed: u64) -> Catalog {
    Catalog::from_columns(columns(n, seed), &config()).unwrap()
}

/// The effective bid of the ad at a position, from first principles; `None` where it may not be shown.
fn naive_bid(snapshot: &Snapshot, position: usize) -> Option<Micros> {
    let item = snapshot.ads().item(position);
    snapshot.rejection(item).is_none().then(|| snapshot.bid(item))
}

fn naive_aggregate(bids: &[Option<Micros>]) -> Aggregate {
    let eligible: Vec<u64> = bids.iter().flatten().map(|bid| bid.0).collect();
    Aggregate {
        count: eligible.len() as u64,
        sum: eligible.iter().map(|&bid| u128::from(bid)).sum(),
        max: eligible.iter().max().map(|&bid| Micros(bid)),
    }
}

/// Every answer of the index over `range` against a loop.
fn check_range(snapshot: &Snapshot, range: std::ops::Range<usize>, bids: &[Option<Micros>]) {
    let expected = naive_aggregate(&bids[range.clone()]);
    assert_eq!(snapshot.aggregate(range.clone()), expected, "{range:?}");
    for bid in [expected.max.unwrap_or_default(), Micros(3)] {
        let mut found = Vec::new();
        snapshot.for_each_with_bid(range.clone(), bid, &mut |p| found.push(p));
        let naive: Vec<usize> = range.clone().filter(|&p| bids[p] == Some(bid)).collect();
        assert_eq!(found, naive, "{range:?} at {bid}");
    }
}

/// The ad index holds every ad once, sorted by codes and row, and its searches agree with loops.
fn check_index(snapshot: &Snapshot) {
    let ads = snapshot.ads();
    let key = |p: usize| (ads.codes(p).to_vec(), ads.item(p));
    assert!((1..ads.len()).all(|p| key(p - 1) < key(p)));
    for item in 0..snapshot.len() as u32 {
        match (snapshot.kind(item), ads.position(item)) {
            (ItemKind::Organic, position) => assert_eq!(position, None),
            (ItemKind::Ad, position) => {
                let p = position.expect("an ad has a position");
                assert_eq!((ads.item(p), ads.codes(p)), (item, snapshot.codes(item)));
            }
        }
    }
    for layer in 0..=2 {
        let mut start = 0;
        while start < ads.len() {
            let prefix = &ads.codes(start)[..layer];
            let range = ads.prefix_range(prefix);
            assert_eq!(range.start, start);
            let naive_end = (start..ads.len()).find(|&p| &ads.codes(p)[..layer] != prefix);
            assert_eq!(range.end, naive_end.unwrap_or(ads.len()));
            let mut child = start;
            while child < range.end {
                let code = ads.codes(child)[layer];
                let naive = (child..range.end).find(|&p| ads.codes(p)[layer] != code).unwrap_or(range.end);
                assert_eq!(ads.end_of_code(child..range.end, layer), naive);
                child = naive;
            }
            start = range.end;
        }
    }
}

fn any_update(n: u64) -> impl Strategy<Value = Update> {
    let item = (0..n).prop_map(|row| row * 7 + 1);
    let advertiser = 11..15u64;
    prop_oneof![
        (item.clone(), 0..20u64).prop_map(|(item, bid)| Update::Bid { item, bid: Micros(bid) }),
        (item.clone(), 0..6u64)
            .prop_map(|(item, reserve)| Update::Reserve { item, reserve: Micros(reserve) }),
        (item, any::<bool>()).prop_map(|(item, active)| Update::Active { item, active }),
        (advertiser.clone(), 0..3u64)
            .prop_map(|(advertiser, left)| Update::Budget { advertiser, remaining: Micros(left) }),
        (advertiser, 0..=4u32)
            .prop_map(|(advertiser, quarters)| Update::Pacing { advertiser, pacing: quarters as f32 / 4.0 }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn searches_agree_with_loops_after_updates(
        n in 1..1500usize,
        seed in any::<u64>(),
        batches in prop::collection::vec(prop::collection::vec(any_update(1), 0..30), 0..4),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..20),
    ) {
        let catalog = catalog(n, seed);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        for mut batch in batches {
            // The strategy does not know n: spread the items over the catalog here.
            for update in &mut batch {
                if let Update::Bid { item, .. } | Update::Reserve { item, .. } | Update::Active { item, .. } = update {
                    *item = rng.random_range(0..n as u64) * 7 + 1;
                }
            }
            catalog.apply(&batch).unwrap();
        }
        let snapshot = catalog.snapshot();
        check_index(&snapshot);
        let ads = snapshot.ads().len();
        let bids: Vec<_> = (0..ads).map(|p| naive_bid(&snapshot, p)).collect();
        prop_assert!((0..ads).all(|p| snapshot.bid_at(p) == bids[p]));
        check_range(&snapshot, 0..ads, &bids);
        for (a, b) in cuts {
            let (a, b) = (a.index(ads + 1), b.index(ads + 1));
            check_range(&snapshot, a.min(b)..a.max(b), &bids);
        }
    }
}

#[test]
fn aggregates_span_whole_nodes() {
    // More than two nodes of 65,536 ads, so that ranges cover leaves, nodes and both ragged ends.
    let catalog = catalog(220_000, 3);
    let snapshot = catalog.snapshot();
    let ads = snapshot.ads().len();
    assert!(ads > 2 * 65_536);
    let bids: Vec<_> = (0..ads).map(|p| naive_bid(&snapshot, p)).collect();
    for range in [0..ads, 1..ads - 1, 65_536..131_072, 65_535..131_073, 300..65_536, ads - 1..ads, 700..700] {
        check_range(&snapshot, range, &bids);
    }
}

/// Everything a snapshot says about its items, for comparisons.
fn describe(snapshot: &Snapshot) -> Vec<String> {
    let row = |item: u32| {
        let mut embedding = [0.0; 3];
        snapshot.embedding(item, &mut embedding);
        let creatives: Vec<_> =
            snapshot.creatives(item).map(|c| (snapshot.creative_id(c), snapshot.creative_codes(c))).collect();
        format!(
            "{} {:?} {:?} {} {} {:?} {:?} {:?} {creatives:?}",
            snapshot.id(item),
            snapshot.kind(item),
            snapshot.codes(item),
            snapshot.bid(item),
            snapshot.reserve(item),
            snapshot.advertiser(item),
            snapshot.rejection(item),
            embedding.map(f32::to_bits),
        )
    };
    (0..snapshot.len() as u32).map(row).collect()
}

#[test]
fn a_written_catalog_opens_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.safetensors");
    for n in [0, 1, 700] {
        columns(n, 9).write(&path, &config()).unwrap();
        let opened = Catalog::open(&path, &config()).unwrap();
        let memory = catalog(n, 9);
        assert_eq!(describe(&opened.snapshot()), describe(&memory.snapshot()));
        assert_eq!(opened.snapshot().version(), 1);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
        for item in 0..n as u32 {
            assert_eq!(opened.snapshot().find(item as u64 * 7 + 1), Some(item));
        }
        assert_eq!(opened.snapshot().find(2), None);
    }
}
