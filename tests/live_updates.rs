//! Bids change while requests run: each request sees one version of the catalog from start to end.

mod world;

use std::sync::atomic::{AtomicBool, Ordering};

use bidslate::catalog::{ItemKind, Update};
use bidslate::money::Micros;
use bidslate::request::{Candidates, PaymentRule};
use world::World;

/// Every update sets all bids to the same amount, so a list with two amounts saw two versions.
#[test]
fn a_request_sees_one_version() {
    let mut rng = world::rng("a_request_sees_one_version");
    let world = World::new(world::config(), 200, 21);
    let engine = world.engine(2);
    let ads: Vec<u64> = world
        .catalog
        .ids
        .iter()
        .zip(&world.catalog.kinds)
        .filter(|(_, k)| **k == ItemKind::Ad)
        .map(|(id, _)| *id)
        .collect();
    let set_all = |amount: u64| {
        let updates: Vec<_> = ads.iter().map(|&item| Update::Bid { item, bid: Micros(amount) }).collect();
        engine.catalog().apply(&updates).unwrap()
    };
    let amount_of = |version: u64| 1_000_000 + version * 1_000;
    assert_eq!(set_all(amount_of(2)), 2);
    let mut requests = world.requests(6, &mut rng);
    for request in &mut requests {
        request.candidates = Candidates::All;
        request.payment = PaymentRule::FirstPrice;
        request.policy = Default::default();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut version = 2;
            while !done.load(Ordering::Relaxed) {
                version += 1;
                assert_eq!(set_all(amount_of(version)), version);
            }
        });
        let mut ads_seen = 0;
        let mut versions = std::collections::BTreeSet::new();
        for _ in 0..30 {
            for response in engine.allocate(&requests) {
                let response = response.unwrap();
                versions.insert(response.catalog_version);
                for slot in response.slots.iter().filter(|slot| slot.bid_micros.0 > 0) {
                    assert_eq!(slot.bid_micros.0, amount_of(response.catalog_version));
                    assert_eq!(slot.payment_micros, slot.bid_micros);
                    ads_seen += 1;
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(ads_seen > 0 && versions.len() > 1, "{ads_seen} ads in versions {versions:?}");
    });
}

#[test]
fn a_paused_item_is_rejected_by_name_and_comes_back() {
    let world = World::new(world::config(), 40, 22);
    let engine = world.engine(1);
    let id = world.catalog.ids[0];
    let request = bidslate::request::Request::new("r", Vec::new(), Candidates::Items(vec![id]));
    let shown = |expected: usize| {
        let response = engine.allocate(std::slice::from_ref(&request)).remove(0).unwrap();
        assert_eq!((response.slots.len(), response.rejected.len()), (expected, 1 - expected));
        response
    };
    shown(1);
    engine.catalog().apply(&[Update::Active { item: id, active: false }]).unwrap();
    assert_eq!(serde_json::to_value(shown(0).rejected).unwrap()[0]["reason"], "inactive");
    engine.catalog().apply(&[Update::Active { item: id, active: true }]).unwrap();
    shown(1);
}

#[test]
fn nothing_of_a_bad_batch_of_updates_is_applied() {
    let world = World::new(world::config(), 40, 23);
    let engine = world.engine(1);
    let item = world.catalog.ids[0];
    let before = engine.catalog().snapshot();
    let row = before.find(item).unwrap();
    let updates = [
        Update::Bid { item, bid: Micros(before.bid(row).0 + 1) },
        Update::Bid { item, bid: Micros(Micros::MAX.0 + 1) },
    ];
    let error = engine.catalog().apply(&updates).unwrap_err();
    assert_eq!(error.index, 1);
    let after = engine.catalog().snapshot();
    assert_eq!((after.version(), after.bid(row)), (before.version(), before.bid(row)));
}
