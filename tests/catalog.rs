//! The catalog: what its files must hold, what its snapshots promise, and its searches against naive loops.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bidslate::catalog::{
    Aggregate, Catalog, Columns, ItemKind, NO_ADVERTISER, NewAdvertiser, NewCreative, NewItem, Rejection,
    Snapshot, Update,
};
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
fn aggregates_span_whole_branches() {
    // More ads than fit below one child of the root, so that ranges cover whole parts of every level.
    let catalog = catalog(800_000, 3);
    let snapshot = catalog.snapshot();
    let ads = snapshot.ads().len();
    assert!(ads > 128 * 16 * 16 * 16);
    let bids = bids_of(&snapshot);
    let ends = [0..ads, 1..ads - 1, 524_288..ads, ads - 1..ads, 700..700];
    let inner = [32_768..65_536, 32_767..65_537, 300..65_536, 2048..4096];
    for range in ends.into_iter().chain(inner) {
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

#[test]
fn every_rejection_has_its_reason() {
    let mut columns = columns(0, 0);
    let mut add = |kind, bid, reserve, embedding: f32, creatives: u64, advertiser| {
        columns.ids.push(columns.ids.len() as u64);
        columns.kinds.push(kind);
        columns.codes.extend([0, 1, 2]);
        columns.bid_micros.push(bid);
        columns.reserve_micros.push(reserve);
        columns.embeddings.extend([embedding; 3]);
        columns.creative_ids.extend(0..creatives);
        columns.creative_codes.extend((0..creatives * 3).map(|_| 0));
        columns.creative_offsets.push(columns.creative_ids.len() as u64);
        columns.active.get_or_insert_default().push(bid != 99);
        columns.advertisers.get_or_insert_default().push(advertiser);
    };
    use ItemKind::{Ad, Organic};
    add(Ad, 4, 4, 0.0, 1, 14); // pacing 0: effective bid 0
    add(Ad, 4, 4, 0.0, 1, NO_ADVERTISER);
    add(Ad, 9, 4, 0.0, 1, 12); // pacing 0.5: floor(4.5) = 4, at the reserve
    add(Ad, 99, 4, 0.0, 1, NO_ADVERTISER);
    add(Ad, 9, 4, 0.0, 0, NO_ADVERTISER);
    add(Ad, 9, 4, 0.0, 1, 11);
    add(Ad, 9, 4, f32::INFINITY, 1, 13);
    add(Ad, 9, 4, f32::NAN, 1, NO_ADVERTISER);
    add(Organic, 9, 40, 0.0, 1, 11); // bids, reserves and budgets concern ads only
    add(Organic, 9, 0, f32::NEG_INFINITY, 1, 4711);
    add(Organic, 9, 0, 0.0, 0, NO_ADVERTISER);
    add(Organic, 99, 0, 0.0, 1, NO_ADVERTISER);
    let catalog = Catalog::from_columns(columns, &config()).unwrap();
    let snapshot = catalog.snapshot();
    let found: Vec<_> = (0..12).map(|item| snapshot.rejection(item)).collect();
    use Rejection::*;
    let expected = [
        Some(BelowReserve),
        None,
        None,
        Some(Inactive),
        Some(NoCreative),
        Some(BudgetSpent),
        Some(BelowReserve),
        Some(NonFiniteEmbedding),
        None,
        Some(NonFiniteEmbedding),
        Some(NoCreative),
        Some(Inactive),
    ];
    assert_eq!(found, expected);
    let bids: Vec<_> = (0..12).map(|item| snapshot.bid(item).0).collect();
    // 0.3 is an f32 just above three tenths: floor(9 * 0.3) = 2.
    assert_eq!(bids, [0, 4, 4, 99, 9, 9, 2, 9, 0, 0, 0, 0]);
    assert_eq!(snapshot.aggregate(0..8), Aggregate { count: 2, sum: 8, max: Some(Micros(4)) });
    assert_eq!(serde_json::to_string(&NonFiniteEmbedding).unwrap(), "\"non_finite_embedding\"");
    assert_eq!(NonFiniteEmbedding.to_string(), "non-finite embedding");
}

#[test]
fn a_budget_gates_and_a_pacing_scales() {
    let catalog = catalog(900, 5);
    let total = |catalog: &Catalog| {
        let snapshot = catalog.snapshot();
        check_range(&snapshot, 0..snapshot.ads().len(), &bids_of(&snapshot));
        snapshot.aggregate(0..snapshot.ads().len())
    };
    let of_advertiser = |snapshot: &Snapshot, advertiser| {
        let rows = 0..snapshot.len() as u32;
        let eligible =
            rows.filter(|&item| snapshot.kind(item) == ItemKind::Ad && snapshot.rejection(item).is_none());
        eligible.filter(|&item| snapshot.advertiser(item) == Some(advertiser)).count() as u64
    };
    let before = total(&catalog);
    let eligible = of_advertiser(&catalog.snapshot(), 13);
    assert!(eligible > 20);
    let budget = |micros| Update::Budget { advertiser: 13, remaining: Micros(micros) };
    catalog.apply(&[budget(0)]).unwrap();
    assert_eq!(of_advertiser(&catalog.snapshot(), 13), 0);
    assert_eq!(total(&catalog).count, before.count - eligible);
    catalog.apply(&[budget(1)]).unwrap();
    assert_eq!(total(&catalog), before);
    catalog.apply(&[Update::Pacing { advertiser: 13, pacing: 1.0 }]).unwrap();
    assert!(total(&catalog).sum > before.sum);
    catalog.apply(&[Update::Pacing { advertiser: 13, pacing: 0.3 }]).unwrap();
    assert_eq!(total(&catalog), before);
}

fn bids_of(snapshot: &Snapshot) -> Vec<Option<Micros>> {
    (0..snapshot.ads().len()).map(|p| naive_bid(snapshot, p)).collect()
}

fn new_item(id: u64, kind: ItemKind, creatives: &[u64]) -> NewItem {
    let creative = |&id: &u64| NewCreative { id, codes: vec![4, 3, id as u16 % 5] };
    NewItem {
        id,
        kind,
        codes: vec![id as u16 % 5, 2, 1],
        bid: Micros(17),
        reserve: Micros(1),
        active: true,
        advertiser: Some(12),
        embedding: vec![0.5, 0.25, id as f32],
        creatives: creatives.iter().map(creative).collect(),
    }
}

/// What [`new_item`] is, as columns.
fn push_item(columns: &mut Columns, item: &NewItem) {
    columns.ids.push(item.id);
    columns.kinds.push(item.kind);
    columns.codes.extend_from_slice(&item.codes);
    columns.bid_micros.push(item.bid.0);
    columns.reserve_micros.push(item.reserve.0);
    columns.embeddings.extend_from_slice(&item.embedding);
    columns.creative_ids.extend(item.creatives.iter().map(|creative| creative.id));
    columns.creative_codes.extend(item.creatives.iter().flat_map(|creative| &creative.codes));
    columns.creative_offsets.push(columns.creative_ids.len() as u64);
    columns.active.as_mut().unwrap().push(item.active);
    columns.advertisers.as_mut().unwrap().push(item.advertiser.unwrap_or(NO_ADVERTISER));
}

#[test]
fn an_inserted_item_is_as_one_that_was_there() {
    for n in [0, 1, 300] {
        let live = catalog(n, 21);
        let mut all = columns(n, 21);
        let mut last = new_item(1_000_003, ItemKind::Ad, &[7, 8]);
        last.advertiser = Some(99);
        let inserted = [
            new_item(1_000_000, ItemKind::Ad, &[1, 2]),
            new_item(1_000_002, ItemKind::Organic, &[]),
            last.clone(),
        ];
        // The creative's item comes after it in the batch, and so does the item's advertiser.
        let mut updates = vec![
            Update::Bid { item: 1_000_003, bid: Micros(19) },
            Update::InsertAdvertiser(NewAdvertiser { id: 99, budget: Some(Micros(3)), pacing: 0.75 }),
        ];
        updates.extend(inserted.iter().cloned().map(Update::Insert));
        let extra = NewCreative { id: 3, codes: vec![1, 1, 1] };
        updates.push(Update::InsertCreative { item: 1_000_000, creative: extra.clone() });
        assert_eq!(live.apply(&updates), Ok(2));

        let mut expected = inserted.clone();
        expected[0].creatives.push(extra);
        expected[2].bid = Micros(19);
        expected.iter().for_each(|item| push_item(&mut all, item));
        all.advertiser_ids.as_mut().unwrap().push(99);
        all.advertiser_budget_micros.as_mut().unwrap().push(3);
        all.advertiser_pacing.as_mut().unwrap().push(0.75);
        let whole = Catalog::from_columns(all, &config()).unwrap().snapshot();
        let snapshot = live.snapshot();
        assert_eq!(describe(&snapshot), describe(&whole));
        check_index(&snapshot);
        check_range(&snapshot, 0..snapshot.ads().len(), &bids_of(&whole));
        assert_eq!(snapshot.find(1_000_003), Some(n as u32 + 2));
    }
}

#[test]
fn an_inserted_creative_moves_no_other() {
    let live = catalog(200, 4);
    let before = describe(&live.snapshot());
    let creative = |id| NewCreative { id, codes: vec![0, 0, 0] };
    let insert = |row: u64, id| Update::InsertCreative { item: row * 7 + 1, creative: creative(id) };
    live.apply(&[insert(150, 50), insert(0, 60), insert(150, 51), insert(199, 70)]).unwrap();
    let snapshot = live.snapshot();
    let after = describe(&snapshot);
    for row in (0..200).filter(|row| ![0, 150, 199].contains(row)) {
        assert_eq!(before[row], after[row]);
    }
    let ids = |item| snapshot.creatives(item).map(|c| snapshot.creative_id(c)).collect::<Vec<_>>();
    assert!(ids(150).ends_with(&[50, 51]) && ids(0).ends_with(&[60]) && ids(199).ends_with(&[70]));
}

#[test]
fn a_first_creative_makes_an_ad_eligible() {
    let live = catalog(200, 4);
    let without = (0..200).find(|&item| {
        let snapshot = live.snapshot();
        snapshot.kind(item) == ItemKind::Ad && snapshot.rejection(item) == Some(Rejection::NoCreative)
    });
    let item = without.expect("one ad in four has no creative");
    let position = live.snapshot().ads().position(item).unwrap();
    assert_eq!(live.snapshot().bid_at(position), None);
    let creative = NewCreative { id: 1, codes: vec![0, 0, 0] };
    let id = live.snapshot().id(item);
    let amount = Micros(1000);
    live.apply(&[Update::InsertCreative { item: id, creative }, Update::Bid { item: id, bid: amount }])
        .unwrap();
    let snapshot = live.snapshot();
    assert_ne!(snapshot.rejection(item), Some(Rejection::NoCreative));
    check_range(&snapshot, 0..snapshot.ads().len(), &bids_of(&snapshot));
}

#[test]
fn an_advertiser_may_come_before_its_ads() {
    let live = catalog(50, 4);
    let advertiser = NewAdvertiser { id: 77, budget: None, pacing: 1.0 };
    live.apply(&[Update::InsertAdvertiser(advertiser), Update::Pacing { advertiser: 77, pacing: 0.5 }])
        .unwrap();
    live.apply(&[Update::Budget { advertiser: 77, remaining: Micros(0) }]).unwrap();
    let mut item = new_item(9_000, ItemKind::Ad, &[1]);
    item.advertiser = Some(77);
    live.apply(&[Update::Insert(item)]).unwrap();
    let snapshot = live.snapshot();
    assert_eq!((snapshot.bid(50), snapshot.rejection(50)), (Micros(8), Some(Rejection::BudgetSpent)));
    live.apply(&[Update::Budget { advertiser: 77, remaining: Micros(1) }]).unwrap();
    let position = live.snapshot().ads().position(50).unwrap();
    assert_eq!(live.snapshot().bid_at(position), Some(Micros(8)));
}

#[test]
fn a_batch_with_one_bad_update_changes_nothing() {
    let catalog = catalog(300, 8);
    let before = describe(&catalog.snapshot());
    let good = Update::Bid { item: 8, bid: Micros(1) };
    let item = |change: fn(&mut NewItem)| {
        let mut item = new_item(5_000_000, ItemKind::Ad, &[1, 2]);
        change(&mut item);
        Update::Insert(item)
    };
    let creative = |item, id, codes| Update::InsertCreative { item, creative: NewCreative { id, codes } };
    let advertiser = |id, pacing| Update::InsertAdvertiser(NewAdvertiser { id, budget: None, pacing });
    let with_creatives =
        (0..300).find(|&row| !catalog.snapshot().creatives(row).is_empty()).unwrap() as u64 * 7 + 1;
    let bad = [
        (Update::Bid { item: 2, bid: Micros(1) }, "item", "2 is not in the catalog"),
        (Update::Bid { item: 1, bid: Micros((1 << 43) + 1) }, "bid", "8796093022209"),
        (Update::Reserve { item: 1, reserve: Micros(u64::MAX) }, "reserve", "2^43"),
        (Update::Active { item: u64::MAX, active: true }, "item", "18446744073709551615"),
        (Update::Budget { advertiser: 15, remaining: Micros(1) }, "advertiser", "15 is not"),
        (Update::Pacing { advertiser: 11, pacing: 1.5 }, "pacing", "is 1.5, expected 0 to 1"),
        (Update::Pacing { advertiser: 11, pacing: f32::NAN }, "pacing", "is NaN"),
        (item(|item| item.id = 1), "id", "1 is in the catalog already"),
        (item(|item| item.codes = vec![0, 5, 0]), "codes", "holds 5, expected codes below 5"),
        (item(|item| item.codes = vec![0; 4]), "codes", "has 4 codes, expected 3"),
        (item(|item| item.bid = Micros(1 << 44)), "bid", "17592186044416"),
        (item(|item| item.embedding = vec![0.0]), "embedding", "has 1 values, expected 3"),
        (item(|item| item.embedding[1] = f32::NAN), "embedding", "NaN"),
        (item(|item| item.advertiser = Some(15)), "advertiser", "15 is not"),
        (item(|item| item.creatives[1].id = 1), "creative.id", "1 is a creative of item 5000000"),
        (creative(2, 90, vec![0; 3]), "item", "2 is not"),
        (creative(1, 90, vec![0; 2]), "codes", "has 2 codes, expected 3"),
        (creative(with_creatives, 0, vec![0; 3]), "creative.id", "0 is a creative"),
        (advertiser(11, 1.0), "id", "advertiser 11 is in the catalog already"),
        (advertiser(16, -0.5), "pacing", "is -0.5"),
    ];
    for (update, field, message) in bad {
        let error = catalog.apply(&[good.clone(), update.clone(), good.clone()]).unwrap_err();
        assert_eq!((error.index, error.field), (1, field), "{update:?}");
        assert!(error.message.contains(message), "{error}");
        assert_eq!(catalog.snapshot().version(), 1);
        assert_eq!(describe(&catalog.snapshot()), before);
    }
    assert_eq!(catalog.apply(&[good]), Ok(2));
    assert_ne!(describe(&catalog.snapshot()), before);
}

#[test]
fn a_snapshot_never_changes_while_writers_run() {
    let catalog = catalog(600, 77);
    let pairs = [71, 78, 141, 148].map(|item| Update::Bid { item, bid: Micros(1) });
    catalog.apply(&pairs).unwrap();
    let rounds = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let write = |first: u64| {
        let mut writes = 0;
        while writes < 300 || rounds.load(Ordering::Relaxed) < 60 {
            // Two items always change together, so that a torn snapshot would show.
            let bid = Micros(first + writes);
            let pair = [1, 8].map(|item| Update::Bid { item: item + first * 70, bid });
            catalog.apply(&pair).unwrap();
            writes += 1;
        }
        writes
    };
    let read = || {
        let mut newest = 0;
        while !done.load(Ordering::Relaxed) {
            let snapshot = catalog.snapshot();
            assert!(snapshot.version() >= newest, "versions never go back");
            newest = snapshot.version();
            let ads = 0..snapshot.ads().len();
            let before = (snapshot.aggregate(ads.clone()), describe(&snapshot));
            for first in [1, 2] {
                let [a, b] = [1, 8].map(|id| snapshot.find(id + first * 70).unwrap());
                assert_eq!(snapshot.declared_bid(a), snapshot.declared_bid(b), "both of a pair or none");
            }
            std::thread::yield_now();
            assert_eq!(before, (snapshot.aggregate(ads), describe(&snapshot)));
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    };
    let writes: u64 = std::thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read)];
        let writers = [scope.spawn(|| write(1)), scope.spawn(|| write(2))];
        let writes = writers.map(|writer| writer.join());
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        writes.into_iter().map(|writes| writes.unwrap()).sum()
    });
    assert_eq!(catalog.snapshot().version(), 2 + writes);
    let snapshot = catalog.snapshot();
    check_range(&snapshot, 0..snapshot.ads().len(), &bids_of(&snapshot));
}
