//! The regret audit through the engine: what each tier says, against engines whose catalog really has the other bid,
//! against all bids one by one, and against itself under other threads, batches and groups.

mod world;

use bidslate::auction::regret::GammaGrid;
use bidslate::catalog::{Catalog, Columns, ItemKind, Update};
use bidslate::cpu::Precision;
use bidslate::engine::{AuditOptions, Engine};
use bidslate::model::config::ModelConfig;
use bidslate::money::Micros;
use bidslate::request::{Audit, Objective, PaymentRule, Request};
use bidslate::response::audit::{AuditedAd, RegretAudit, SharedRows, SweepPoint};
use bidslate::response::{Response, Slot};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use world::World;

const TIERS: [Audit; 3] = [Audit::Fixed, Audit::Reselect, Audit::Redecode];
const RULES: [PaymentRule; 4] =
    [PaymentRule::Network, PaymentRule::Gsp, PaymentRule::Vcg, PaymentRule::FirstPrice];

/// A world whose ads have bids and reserves that are multiples of nothing, share codes, and belong to advertisers
/// that are paced.
fn market(rng: &mut Xoshiro256PlusPlus) -> (World, Columns) {
    let codebook_size = if rng.random_bool(0.5) { 3 } else { 9 };
    let config = ModelConfig { codebook_size, bid_unit_micros: 400_000, ..world::config() };
    let world = World::new(config, 120, rng.random());
    let mut columns = world.catalog.clone();
    for row in 0..columns.ids.len() {
        if columns.kinds[row] == ItemKind::Ad {
            columns.bid_micros[row] = rng.random_range(1..4_000_000);
            columns.reserve_micros[row] = rng.random_range(0..=columns.bid_micros[row] / 3);
        }
    }
    columns.advertisers = Some((0..columns.ids.len() as u64).map(|row| 500 + row % 7).collect());
    columns.advertiser_ids = Some((500..507).collect());
    columns.advertiser_budget_micros = Some(vec![1; 7]);
    columns.advertiser_pacing = Some((0..7).map(|_| [1.0, 0.7, 0.31][rng.random_range(0..3)]).collect());
    (world, columns)
}

fn engine(world: &World, columns: &Columns, threads: usize, audit: AuditOptions) -> Engine {
    let catalog = Catalog::from_columns(columns.clone(), &world.config).unwrap();
    // About half of the worlds compute in bf16.
    let precision = if world.config.codebook_size == 3 { Precision::Bf16 } else { Precision::F32 };
    world.builder(threads).catalog(catalog).precision(precision).audit(audit).build().unwrap()
}

fn grid(gammas: &[f64]) -> AuditOptions {
    AuditOptions { gammas: GammaGrid::new(gammas.to_vec()).unwrap(), ..AuditOptions::default() }
}

fn answer(engine: &Engine, request: &Request) -> Response {
    engine.allocate(std::slice::from_ref(request)).remove(0).unwrap()
}

fn audit(engine: &Engine, request: &Request, audit: Audit) -> (Response, RegretAudit) {
    let response = answer(engine, &Request { audit, ..request.clone() });
    let found = response.audit.clone().expect("an audit");
    (response, found)
}

/// Row of an item, and a declared bid that pacing brings to `bid`.
fn declared(columns: &Columns, item: u64, bid: Micros) -> (usize, Micros) {
    let row = columns.ids.iter().position(|&id| id == item).unwrap();
    let advertiser = columns.advertisers.as_ref().unwrap()[row];
    let account = columns.advertiser_ids.as_ref().unwrap().iter().position(|&id| id == advertiser).unwrap();
    let pacing = f64::from(columns.advertiser_pacing.as_ref().unwrap()[account]);
    let paced = |declared: u64| (declared as f64 * pacing).floor() as u64;
    let mut declared = (bid.0 as f64 / pacing) as u64;
    while paced(declared) < bid.0 {
        declared += 1;
    }
    assert_eq!(paced(declared), bid.0);
    (row, Micros(declared))
}

fn slot_of(response: &Response, item: u64) -> Option<(usize, &Slot)> {
    response.slots.iter().enumerate().find(|(_, slot)| slot.item == item)
}

/// Compares a point of a sweep with the answer of an engine whose catalog has its bid; false where the ad is not shown.
fn compare(ad: &AuditedAd, point: &SweepPoint, fresh: &Response) -> bool {
    let Some((slot, there)) = slot_of(fresh, ad.item) else {
        assert_eq!((point.slot, point.clicks, point.utility_micros), (None, 0.0, 0.0));
        return false;
    };
    assert_eq!(there.bid_micros, point.bid_micros);
    assert_eq!((point.slot, point.payment_micros), (Some(slot), there.payment_micros));
    // What a slot's figures are depends on the whole list.
    assert_eq!((point.clicks, point.z), (there.pctr_poi, Some(there.z)));
    true
}

#[test]
fn redecode_is_the_answer_of_a_catalog_with_the_bid() {
    let mut rng = world::rng("redecode_is_the_answer_of_a_catalog_with_the_bid");
    let (mut shown, mut dropped) = (0, 0);
    for _ in 0..6 {
        let (world, columns) = market(&mut rng);
        let truth = engine(&world, &columns, 1, grid(&[0.1, 0.45, 0.8, 1.3, 20.0]));
        let other = engine(&world, &columns, 1, AuditOptions::default());
        for request in world.requests(8, &mut rng) {
            let (_, found) = audit(&truth, &request, Audit::Redecode);
            for ad in &found.ads {
                let set = |bid: Micros| other.catalog().apply(&[Update::Bid { item: ad.item, bid }]).unwrap();
                let (row, own) = declared(&columns, ad.item, ad.value_micros);
                for point in &ad.sweep {
                    set(declared(&columns, ad.item, point.bid_micros).1);
                    let there = compare(ad, point, &answer(&other, &request));
                    *(if there { &mut shown } else { &mut dropped }) += 1;
                }
                set(own);
                // One of them by an engine that never had another bid.
                let point = &ad.sweep[rng.random_range(0..ad.sweep.len())];
                let mut changed = columns.clone();
                changed.bid_micros[row] = declared(&columns, ad.item, point.bid_micros).1.0;
                compare(ad, point, &answer(&engine(&world, &changed, 1, AuditOptions::default()), &request));
            }
        }
    }
    println!("{shown} shown, {dropped} dropped out");
    assert!(shown > 50 && dropped > 0);
}

#[test]
fn the_truth_is_the_response_and_has_no_regret() {
    let mut rng = world::rng("the_truth_is_the_response_and_has_no_regret");
    let mut ads = 0;
    for _ in 0..4 {
        let (world, columns) = market(&mut rng);
        let engine = engine(&world, &columns, 1, grid(&[1.0]));
        for request in world.requests(10, &mut rng) {
            for tier in TIERS {
                let (response, found) = audit(&engine, &request, tier);
                let plain = answer(&engine, &request);
                assert_eq!(Response { audit: None, ..response.clone() }, plain, "an audit changes nothing");
                assert_eq!(found.tier, tier);
                let shown: Vec<u64> =
                    response.slots.iter().filter(|s| s.kind == ItemKind::Ad).map(|s| s.item).collect();
                assert_eq!(found.ads.iter().map(|ad| ad.item).collect::<Vec<_>>(), shown);
                for ad in &found.ads {
                    let slot = &response.slots[ad.slot];
                    let [point] = &ad.sweep[..] else { panic!("one gamma") };
                    assert_eq!((point.slot, point.bid_micros), (Some(ad.slot), slot.bid_micros));
                    assert_eq!((point.payment_micros, point.clicks), (slot.payment_micros, slot.pctr_poi));
                    assert!(point.z.is_none_or(|z| z == slot.z), "{point:?} {slot:?}");
                    let needed = tier == Audit::Redecode || request.payment == PaymentRule::Network;
                    assert_eq!(point.z.is_some(), needed);
                    assert_eq!((point.utility_micros, ad.regret_micros), (ad.utility_micros, 0.0));
                    ads += 1;
                }
            }
        }
    }
    assert!(ads > 50, "only {ads} ads");
}

/// What must hold of every ad of an audit.
fn check(found: &RegretAudit, ad: &AuditedAd, columns: &Columns) {
    let row = columns.ids.iter().position(|&id| id == ad.item).unwrap();
    let reserve = Micros(columns.reserve_micros[row]);
    let mut best = 0.0f64;
    for point in &ad.sweep {
        let bid = (point.gamma * ad.value_micros.0 as f64) as u64;
        assert_eq!(point.bid_micros, Micros(bid));
        assert!(point.payment_micros <= point.bid_micros, "{point:?}");
        assert!(
            point.slot.is_none() || point.bid_micros >= reserve,
            "{point:?} is below its reserve {reserve}"
        );
        assert!(point.slot.is_none() || point.payment_micros >= reserve, "{point:?}");
        assert!(
            point.slot.is_some() || (point.clicks, point.payment_micros) == (0.0, Micros(0)),
            "{point:?}"
        );
        if found.tier == Audit::Fixed && point.bid_micros >= reserve {
            assert_eq!(point.slot, Some(ad.slot), "the list stays");
        }
        let payment = point.payment_micros.0 as f64;
        assert_eq!(point.cost_micros, payment * point.clicks);
        assert_eq!(point.utility_micros, (ad.value_micros.0 as f64 - payment) * point.clicks);
        best = best.max(point.utility_micros);
    }
    assert!(ad.utility_micros >= 0.0);
    assert_eq!(ad.regret_micros, (best - ad.utility_micros).max(0.0));
    if let Some(exact) = ad.exact_regret_micros {
        assert!(exact >= ad.regret_micros);
    }
    if let (Some(least), true) = (ad.least_ratio, ad.utility_micros > 0.0) {
        let ratio = ad.regret_micros / ad.utility_micros;
        assert!(ratio >= least * (1.0 - 1e-9), "{ratio} is below {least}");
    }
}

#[test]
fn sweeps_hold_together() {
    let mut rng = world::rng("sweeps_hold_together");
    let (mut exact, mut bounded, mut regretted) = (0, 0, 0);
    for _ in 0..6 {
        let (world, columns) = market(&mut rng);
        let engine = engine(&world, &columns, 2, AuditOptions::default());
        for request in world.requests(8, &mut rng) {
            for tier in TIERS {
                let (_, found) = audit(&engine, &request, tier);
                for ad in &found.ads {
                    check(&found, ad, &columns);
                    let rule_is_exact = tier == Audit::Reselect && request.payment != PaymentRule::Network;
                    assert_eq!(ad.exact_regret_micros.is_some(), rule_is_exact);
                    exact += usize::from(rule_is_exact);
                    bounded += usize::from(ad.least_ratio.is_some_and(|least| least > 0.0));
                    regretted += usize::from(ad.regret_micros > 0.0);
                }
            }
        }
    }
    println!("{exact} exact regrets, {bounded} bounds, {regretted} regrets");
    assert!(exact > 10 && bounded > 10 && regretted > 10);
}

/// The first ad of each list of `reselect`, under every bid in micros up to 40 times its value and some beyond.
#[test]
fn the_exact_regret_is_that_of_all_bids() {
    let mut rng = world::rng("the_exact_regret_is_that_of_all_bids");
    let (mut ads, mut between) = (0, 0);
    for round in 0..24 {
        let config = ModelConfig { bid_unit_micros: 40, ..world::config() };
        let world = World::new(config, 120, rng.random());
        let mut columns = world.catalog.clone();
        for (bid, reserve) in columns.bid_micros.iter_mut().zip(&mut columns.reserve_micros) {
            *bid = (*bid).min(1) * rng.random_range(20..90);
            *reserve = (*bid).min(rng.random_range(0..12));
        }
        let request = Request {
            payment: RULES[1 + round % 3],
            beam_width: Some(20),
            objective: Objective { ctr_poi: rng.random_range(0.0..4.0), ..Objective::default() },
            ..world.requests(1, &mut rng).remove(0)
        };
        let plain = answer(&engine(&world, &columns, 1, AuditOptions::default()), &request);
        let Some(ad) = plain.slots.iter().find(|slot| slot.kind == ItemKind::Ad) else { continue };
        let value = ad.bid_micros.0 as f64;
        let every = (0..40 * ad.bid_micros.0).map(|bid| (bid as f64 + 0.5) / value);
        let beyond = (0..200).map(|step| 40.0 * 1.1f64.powi(step));
        let all: Vec<f64> = every.chain(beyond).collect();
        let (_, found) = audit(&engine(&world, &columns, 1, grid(&all)), &request, Audit::Reselect);
        let (_, coarse) = audit(&engine(&world, &columns, 1, grid(&[])), &request, Audit::Reselect);
        let [found, coarse] = [found, coarse].map(|audit| audit.ads[0].clone());
        assert_eq!(found.item, ad.item);
        // Without a grid only the breakpoints are looked at.
        let exact = coarse.exact_regret_micros.unwrap();
        let slack = 1e-9 * (1.0 + found.regret_micros);
        assert!((exact - found.regret_micros).abs() <= slack, "{exact} of breakpoints, {found:?}");
        let best =
            found.sweep.iter().find(|p| p.utility_micros == found.regret_micros + found.utility_micros);
        let at_an_end = best
            .is_none_or(|point| point.bid_micros.0 == columns.reserve_micros.iter().copied().min().unwrap());
        between += usize::from(exact > 0.0 && !at_an_end);
        ads += 1;
    }
    println!("{ads} ads, {between} with their best bid at a change of lists");
    assert!(ads > 12);
}

/// The prices of the kept list, worked out from the response: only the bid that caps them changes.
#[test]
fn fixed_keeps_prices_that_do_not_depend_on_the_own_bid() {
    let mut rng = world::rng("fixed_keeps_prices_that_do_not_depend_on_the_own_bid");
    let mut compared = 0;
    for _ in 0..4 {
        let (world, columns) = market(&mut rng);
        let engine = engine(&world, &columns, 1, AuditOptions::default());
        for request in world.requests(10, &mut rng) {
            if request.payment == PaymentRule::Network {
                continue;
            }
            let (_, found) = audit(&engine, &request, Audit::Fixed);
            for ad in &found.ads {
                // At the highest bid the price itself is paid, unless it is higher still.
                let high = ad.sweep.last().unwrap();
                for point in ad.sweep.iter().filter(|point| point.slot.is_some()) {
                    let expected = match request.payment {
                        PaymentRule::FirstPrice => point.bid_micros,
                        _ if high.payment_micros < high.bid_micros => {
                            high.payment_micros.min(point.bid_micros)
                        }
                        _ => point.bid_micros,
                    };
                    assert!(
                        point.payment_micros.0.abs_diff(expected.0) <= 1,
                        "{point:?}, expected {expected}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn threads_batches_and_groups_do_not_show() {
    let mut rng = world::rng("threads_batches_and_groups_do_not_show");
    // Bids far apart, so that searches differ by more rows than there is room for at the least.
    let options = |searches, rows| AuditOptions { searches, rows, ..grid(&[0.3, 1.0, 5.0, 30.0, 200.0]) };
    let without_work = |audit: Option<RegretAudit>| {
        audit.map(|audit| RegretAudit {
            decoder: audit.decoder.map(|work| SharedRows { rows: 0, ..work }),
            ..audit
        })
    };
    let (mut again, mut shared) = (0, 0);
    for _ in 0..3 {
        let (world, columns) = market(&mut rng);
        let mut requests = world.requests(9, &mut rng);
        requests.iter_mut().zip(TIERS.iter().rev().cycle()).for_each(|(request, &tier)| request.audit = tier);
        let expected = engine(&world, &columns, 1, options(16, 512)).allocate(&requests);
        for (threads, searches, rows) in [(1, 1, 512), (1, 5, 0), (3, 3, 100), (2, 100, 0)] {
            let engine = engine(&world, &columns, threads, options(searches, rows));
            for batch in [1, 4, 9] {
                let answers = requests.chunks(batch).flat_map(|requests| engine.allocate(requests));
                for (expected, found) in expected.iter().zip(answers) {
                    let (expected, found) = (expected.clone().unwrap(), found.unwrap());
                    let rows = |response: &Response| {
                        response.audit.as_ref().and_then(|audit| audit.decoder).map_or(0, |work| work.rows)
                    };
                    again += usize::from(rows(&found) > rows(&expected));
                    let work = expected.audit.as_ref().and_then(|audit| audit.decoder);
                    shared += work.map_or(0, |work| work.rows_alone.saturating_sub(work.rows));
                    assert_eq!(without_work(expected.audit), without_work(found.audit));
                    assert_eq!(expected.slots, found.slots);
                }
            }
        }
    }
    println!("{again} audits ran rows again, {shared} rows were shared");
    assert!(again > 0 && shared > 0);
}

#[test]
fn options_out_of_range_are_refused_when_the_engine_is_built() {
    let world = World::new(world::config(), 8, 1);
    for (options, says) in [
        (AuditOptions { searches: 0, ..AuditOptions::default() }, "0 searches"),
        (AuditOptions { rows: usize::MAX, ..AuditOptions::default() }, "at most 65536"),
    ] {
        let error = world.builder(1).audit(options).build().err().expect(says).to_string();
        assert!(error.contains("`audit`") && error.contains(says), "{error}");
    }
}
