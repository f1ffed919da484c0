//! The catalog on a device, kept up to date while bids change and ads come.

use std::sync::Arc;

use bidslate::catalog::{Catalog, Columns, ItemKind, NewCreative, NewItem, Snapshot, Update};
use bidslate::money::Micros;
use bidslate::request::{AdPolicy, BidAggregate};
use rand::RngExt;

use super::batch::{Ask, Device, Logits, Rng, Sizes, ask, columns, pick, rng};
use crate::streams::streams;

/// The second version of a catalog.
pub fn advanced(columns: &Columns, sizes: &Sizes) -> Arc<Snapshot> {
    let catalog = Catalog::from_columns(columns.clone(), &sizes.config()).unwrap();
    catalog.apply(&[]).unwrap();
    catalog.snapshot()
}

fn update(rng: &mut Rng, ids: &[u64]) -> Update {
    let item = pick(rng, ids);
    match rng.random_range(0..4) {
        0 => Update::Active { item, active: rng.random_bool(0.5) },
        1 => Update::Reserve { item, reserve: Micros(pick(rng, &[0, 1, 1_000_000])) },
        _ => Update::Bid { item, bid: Micros(pick(rng, &[0, 1, 999_999, 1_000_000, 1 << 43])) },
    }
}

fn new_item(rng: &mut Rng, id: u64, sizes: &Sizes) -> Update {
    let codes = (0..sizes.layers).map(|_| rng.random_range(0..sizes.codes as u16)).collect();
    Update::Insert(NewItem {
        id,
        kind: ItemKind::Ad,
        codes,
        bid: Micros(rng.random_range(0..3_000_000)),
        reserve: Micros::ZERO,
        active: true,
        advertiser: None,
        embedding: vec![0.5],
        creatives: vec![NewCreative { id: 1, codes: vec![0] }],
    })
}

/// With room for all lists and the mean as the aggregate, every count and sum and maximum of the forest shows in some
/// score.
fn exhaustive(rng: &mut Rng, sizes: &Sizes, columns: &Columns, snapshot: &Snapshot) -> Ask {
    let mut ask = ask(rng, sizes, columns, snapshot);
    ask.named = None;
    ask.logits = Logits::Random;
    ask.rules.beam_width = sizes.width;
    ask.rules.list_len = 1;
    ask.rules.policy = AdPolicy::default();
    ask.rules.alpha = 1.0;
    ask.rules.beta = 0.5;
    ask.rules.aggregate = pick(rng, &[BidAggregate::Mean, BidAggregate::Max]);
    ask
}

#[test]
fn updates_reach_the_device() {
    let mut rng = rng("updates_reach_the_device");
    for (stream, catalogs) in streams().into_iter().zip([12, 3]) {
        for _ in 0..catalogs {
            let sizes = Sizes {
                layers: rng.random_range(1..=3),
                codes: rng.random_range(2..=7),
                items: rng.random_range(1..=60),
                slots: 2,
                requests: 1,
                width: 130,
                candidates: 60,
            };
            let columns = columns(&mut rng, &sizes);
            let mut ids = columns.ids.clone();
            let catalog = Catalog::from_columns(columns.clone(), &sizes.config()).unwrap();
            let mut device = Device::new(&stream, &sizes);
            for _ in 0..8 {
                let snapshot = catalog.snapshot();
                let ask = exhaustive(&mut rng, &sizes, &columns, &snapshot);
                let (found, expected) = device.run(std::slice::from_ref(&ask), &snapshot, sizes.width);
                assert_eq!(found, expected, "version {}, {ask:?}", snapshot.version());
                let mut updates: Vec<Update> =
                    (0..rng.random_range(0..20)).map(|_| update(&mut rng, &ids)).collect();
                if rng.random_bool(0.2) {
                    ids.push(rng.random());
                    updates.push(new_item(&mut rng, ids[ids.len() - 1], &sizes));
                }
                catalog.apply(&updates).unwrap();
            }
        }
    }
}

/// Snapshots may also come in another order than that of their versions.
#[test]
fn an_older_snapshot_is_held_as_well() {
    let mut rng = rng("an_older_snapshot_is_held_as_well");
    let stream = streams().remove(0);
    let sizes = Sizes { layers: 2, codes: 4, items: 40, slots: 1, requests: 1, width: 40, candidates: 40 };
    let columns = columns(&mut rng, &sizes);
    let catalog = Catalog::from_columns(columns.clone(), &sizes.config()).unwrap();
    let mut snapshots = Vec::new();
    for _ in 0..5 {
        snapshots.push(catalog.snapshot());
        let updates: Vec<Update> = (0..10).map(|_| update(&mut rng, &columns.ids)).collect();
        catalog.apply(&updates).unwrap();
    }
    let mut device = Device::new(&stream, &sizes);
    for _ in 0..10 {
        let snapshot = &snapshots[rng.random_range(0..snapshots.len())];
        let ask = exhaustive(&mut rng, &sizes, &columns, snapshot);
        let (found, expected) = device.run(std::slice::from_ref(&ask), snapshot, sizes.width);
        assert_eq!(found, expected);
    }
}
