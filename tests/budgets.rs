//! Budgets and pacing, through the engine: who has nothing left to spend never wins, and bids are what pacing leaves.

mod world;

use std::collections::HashMap;

use bidslate::catalog::{Catalog, ItemKind, Update};
use bidslate::money::Micros;
use bidslate::request::PaymentRule;
use rand::RngExt;
use world::World;

const ADVERTISERS: u64 = 9;
const RULES: [PaymentRule; 4] =
    [PaymentRule::Network, PaymentRule::Gsp, PaymentRule::Vcg, PaymentRule::FirstPrice];

#[test]
fn a_spent_budget_never_wins_and_pacing_scales_the_bids() {
    let mut rng = world::rng("a_spent_budget_never_wins_and_pacing_scales_the_bids");
    let world = World::new(world::config(), 200, rng.random());
    let mut columns = world.catalog.clone();
    let owner: HashMap<u64, u64> =
        columns.ids.iter().map(|&id| (id, rng.random_range(0..ADVERTISERS))).collect();
    columns.advertisers = Some(columns.ids.iter().map(|id| owner[id]).collect());
    columns.advertiser_ids = Some((0..ADVERTISERS).collect());
    let declared: HashMap<u64, u64> =
        columns.ids.iter().copied().zip(columns.bid_micros.iter().copied()).collect();
    let engine =
        world.builder(2).catalog(Catalog::from_columns(columns, &world.config).unwrap()).build().unwrap();
    let (mut shown, mut refused, mut returned) = (0, 0, 0);
    let mut spent = vec![false; ADVERTISERS as usize];
    for round in 0..25 {
        let pacing: Vec<f32> = (0..ADVERTISERS).map(|_| rng.random_range(0.2..=1.0)).collect();
        let before = spent.clone();
        spent.iter_mut().for_each(|spent| *spent = rng.random_bool(0.4));
        let updates = (0..ADVERTISERS).flat_map(|advertiser| {
            let remaining = Micros(if spent[advertiser as usize] { 0 } else { 1 });
            let pacing = pacing[advertiser as usize];
            [Update::Budget { advertiser, remaining }, Update::Pacing { advertiser, pacing }]
        });
        engine.catalog().apply(&updates.collect::<Vec<_>>()).unwrap();
        let mut requests = world.requests(6, &mut rng);
        requests.iter_mut().for_each(|request| request.payment = RULES[round % 4]);
        for answer in engine.allocate(&requests) {
            let answer = answer.unwrap();
            for slot in answer.slots.iter().filter(|slot| slot.kind == ItemKind::Ad) {
                let advertiser = owner[&slot.item] as usize;
                assert!(!spent[advertiser], "advertiser {advertiser} has nothing left: {slot:?}");
                let paced = (declared[&slot.item] as f64 * f64::from(pacing[advertiser])).floor() as u64;
                assert_eq!(slot.bid_micros, Micros(paced));
                assert!(slot.payment_micros <= slot.bid_micros);
                shown += 1;
                returned += usize::from(before[advertiser]);
            }
            for rejected in &answer.rejected {
                let reason = rejected.reason.to_string();
                assert_eq!(reason == "budget spent", spent[owner[&rejected.item] as usize], "{rejected:?}");
                refused += usize::from(reason == "budget spent");
            }
        }
    }
    assert!(
        shown > 50 && refused > 50 && returned > 10,
        "{shown} shown, {refused} refused, {returned} came back"
    );
}
