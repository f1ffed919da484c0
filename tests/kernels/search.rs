//! The search on a device against the search on the CPU: the same lists, paths and scores, to the bit.

#[path = "search/batch.rs"]
mod batch;
#[path = "search/live.rs"]
mod live;
#[path = "search/step_hopper.rs"]
mod step_hopper;

use std::collections::BTreeSet;
use std::sync::Arc;

use batch::{Ask, Device, Logits, Outcome, Sizes, ads, ask, columns, pick, snapshot};
pub use batch::{Rng, rng};
use bidslate::catalog::{ItemKind, Snapshot};
use bidslate::cuda::search::{Search, SearchLimits, SearchRequest};
use bidslate::request::{AdPolicy, BidAggregate, BidScope};
use rand::RngExt;

use crate::streams::streams;

/// A random batch.
struct Batch {
    asks: Vec<Ask>,
    snapshot: Arc<Snapshot>,
    rows: usize,
}

impl Batch {
    fn draw(rng: &mut Rng, sizes: &Sizes) -> Self {
        let columns = columns(rng, sizes);
        let snapshot = snapshot(&columns, sizes);
        let asks: Vec<Ask> = (0..sizes.requests).map(|_| ask(rng, sizes, &columns, &snapshot)).collect();
        let rows = rng.random_range(Self::widest(&asks)..=sizes.width);
        Self { asks, snapshot, rows }
    }

    fn widest(asks: &[Ask]) -> usize {
        asks.iter().map(|ask| ask.rules.beam_width).max().unwrap()
    }

    fn run(&self, device: &mut Device) -> (Vec<Outcome>, Vec<Outcome>) {
        device.run(&self.asks, &self.snapshot, self.rows)
    }

    /// Runs it, and returns the lists that device and CPU agree on.
    fn agree(&self, device: &mut Device) -> Vec<Outcome> {
        let (found, expected) = self.run(device);
        for ((found, expected), ask) in found.iter().zip(&expected).zip(&self.asks) {
            assert_eq!(found, expected, "{ask:?}, {} rows", self.rows);
        }
        found
    }
}

#[test]
fn lists_are_those_of_the_cpu() {
    let mut rng = rng("lists_are_those_of_the_cpu");
    for (stream, batches) in streams().into_iter().zip([120, 30]) {
        let (mut lists, mut items, mut short) = (0, 0, 0);
        for _ in 0..batches / 3 {
            let sizes = Sizes::small(&mut rng);
            let mut device = Device::new(&stream, &sizes);
            for _ in 0..3 {
                let batch = Batch::draw(&mut rng, &sizes);
                for (outcome, ask) in batch.agree(&mut device).iter().zip(&batch.asks) {
                    let outcome = outcome.as_ref().unwrap();
                    lists += outcome.len();
                    items += outcome.iter().map(|list| list.items.len()).sum::<usize>();
                    short += outcome.iter().filter(|l| l.items.len() < ask.rules.list_len).count();
                }
            }
        }
        println!("{}: {lists} lists, {items} items, {short} short lists", stream.describe());
        assert!(lists > batches && items > batches && short > batches / 4);
    }
}

/// More ways on than a group has, more groups than a block has warps, more beams than one warp.
#[test]
fn wide_searches_are_those_of_the_cpu() {
    let mut rng = rng("wide_searches_are_those_of_the_cpu");
    for (stream, batches) in streams().into_iter().zip([10, 2]) {
        for i in 0..batches {
            let sizes = Sizes {
                layers: rng.random_range(1..=2),
                codes: [31, 32, 33, 70, 300, 700][i % 6],
                items: 800,
                slots: 2,
                requests: 2,
                width: pick(&mut rng, &[33, 64, 130]),
                candidates: 800,
            };
            let mut device = Device::new(&stream, &sizes);
            Batch::draw(&mut rng, &sizes).agree(&mut device);
        }
    }
}

/// The ends of what the API admits, each by itself: codes, beams, slots, ads.
#[test]
fn the_largest_searches_are_those_of_the_cpu() {
    let mut rng = rng("the_largest_searches_are_those_of_the_cpu");
    let usual =
        Sizes { layers: 2, codes: 16, items: 1500, slots: 2, requests: 1, width: 4, candidates: 1500 };
    let ends = [
        Sizes { layers: 1, codes: 65_536, items: 3000, slots: 1, ..usual.clone() },
        Sizes { width: 1000, ..usual.clone() },
        Sizes { slots: 32, layers: 1, ..usual.clone() },
        Sizes { layers: 3, codes: 300, items: 500_000, candidates: 1, ..usual },
    ];
    let stream = streams().remove(0);
    for sizes in ends {
        let mut device = Device::new(&stream, &sizes);
        let mut batch = Batch::draw(&mut rng, &sizes);
        for ask in &mut batch.asks {
            ask.rules.beam_width = sizes.width;
            ask.rules.list_len = sizes.slots;
            // Where next to none can be named, all are asked for.
            ask.named = ask.named.take().filter(|_| sizes.candidates > 1);
        }
        batch.rows = sizes.width;
        batch.agree(&mut device);
    }
}

#[test]
fn lists_do_not_depend_on_their_neighbours() {
    let mut rng = rng("lists_do_not_depend_on_their_neighbours");
    for (stream, batches) in streams().into_iter().zip([20, 5]) {
        for _ in 0..batches {
            let sizes = Sizes { requests: 3, ..Sizes::small(&mut rng) };
            let mut device = Device::new(&stream, &sizes);
            let batch = Batch::draw(&mut rng, &sizes);
            let together = batch.agree(&mut device);
            for (ask, expected) in batch.asks.iter().zip(&together) {
                let alone = Batch {
                    asks: vec![ask.clone()],
                    snapshot: batch.snapshot.clone(),
                    rows: rng.random_range(ask.rules.beam_width..=sizes.width),
                };
                assert_eq!(alone.run(&mut device).0, std::slice::from_ref(expected));
            }
        }
    }
}

/// Everything is equal: beams come in the order of their codes, whatever the width.
#[test]
fn ties_go_to_the_lower_beam_then_to_the_lower_code() {
    let mut rng = rng("ties_go_to_the_lower_beam_then_to_the_lower_code");
    for stream in streams() {
        let sizes =
            Sizes { layers: 2, codes: 40, items: 900, slots: 2, requests: 1, width: 100, candidates: 900 };
        let mut device = Device::new(&stream, &sizes);
        let mut columns = columns(&mut rng, &sizes);
        columns.bid_micros.fill(1_000_000);
        columns.reserve_micros.fill(0);
        let snapshot = snapshot(&columns, &sizes);
        for width in [1, 31, 100] {
            let mut ask = ask(&mut rng, &sizes, &columns, &snapshot);
            ask.logits = Logits::Equal;
            ask.named = None;
            ask.rules.beam_width = width;
            ask.rules.aggregate = BidAggregate::Max;
            ask.rules.policy = AdPolicy::default();
            let batch = Batch { asks: vec![ask], snapshot: snapshot.clone(), rows: width };
            let outcome = batch.agree(&mut device).remove(0).unwrap();
            assert!(outcome.windows(2).all(|pair| pair[0].score >= pair[1].score));
        }
    }
}

#[test]
fn a_logit_that_is_not_finite_fails_its_request_alone() {
    let mut rng = rng("a_logit_that_is_not_finite_fails_its_request_alone");
    for (stream, batches) in streams().into_iter().zip([60, 20]) {
        let mut failed = 0;
        for _ in 0..batches {
            let sizes = Sizes { requests: 3, items: 24, ..Sizes::small(&mut rng) };
            let mut device = Device::new(&stream, &sizes);
            let mut batch = Batch::draw(&mut rng, &sizes);
            let positions = sizes.slots * sizes.layers;
            for ask in &mut batch.asks {
                let fault = (
                    rng.random_range(0..positions),
                    rng.random_range(0..2),
                    rng.random_range(0..sizes.codes),
                    pick(&mut rng, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
                );
                ask.fault = rng.random_bool(0.6).then_some(fault);
            }
            failed += batch.agree(&mut device).iter().filter(|outcome| outcome.is_err()).count();
        }
        assert!(failed > batches / 20, "{failed}");
    }
}

/// Many ads behind one code, the best of which are used one after the other.
#[test]
fn used_ads_leave_the_best_of_the_rest() {
    let mut rng = rng("used_ads_leave_the_best_of_the_rest");
    for (stream, batches) in streams().into_iter().zip([30, 6]) {
        for _ in 0..batches {
            let sizes =
                Sizes { layers: 3, codes: 2, items: 150, slots: 12, requests: 1, width: 3, candidates: 150 };
            let mut device = Device::new(&stream, &sizes);
            let mut batch = Batch::draw(&mut rng, &sizes);
            let rules = &mut batch.asks[0].rules;
            rules.policy = AdPolicy::default();
            (rules.list_len, rules.scope) = (12, BidScope::Prefix);
            batch.agree(&mut device);
        }
    }
}

/// With a gap between ads and few organic items some lists end while others go on: what is finished keeps its place
/// among the beams, and its path.
#[test]
fn finished_beams_stay_as_they_are() {
    let mut rng = rng("finished_beams_stay_as_they_are");
    let (mut searches, mut mixed) = (0, 0);
    for (stream, batches) in streams().into_iter().zip([40, 8]) {
        for _ in 0..batches {
            let sizes = Sizes { slots: 5, items: 24, width: 30, ..Sizes::small(&mut rng) };
            let mut device = Device::new(&stream, &sizes);
            let mut batch = Batch { rows: sizes.width, ..Batch::draw(&mut rng, &sizes) };
            for ask in &mut batch.asks {
                ask.named = None;
                let organic = (0..batch.snapshot.len() as u32).filter(|&row| {
                    batch.snapshot.kind(row) == ItemKind::Organic && batch.snapshot.rejection(row).is_none()
                });
                ask.organic = organic.take(2).collect();
                ask.rules.beam_width = sizes.width;
                ask.rules.policy = AdPolicy { max_ads: None, min_gap: 1, first_ad_slot: 0 };
                (ask.rules.list_len, ask.rules.beta, ask.logits) = (5, 2.0, Logits::Random);
            }
            for outcome in batch.agree(&mut device) {
                let of: BTreeSet<usize> = outcome.unwrap().iter().map(|list| list.path.len()).collect();
                mixed += usize::from(of.len() > 1);
                searches += 1;
            }
        }
    }
    assert!(mixed * 20 > searches, "{mixed} of {searches} searches with lists of several lengths");
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut rng = rng("what_does_not_fit_is_refused");
    let stream = streams().remove(0);
    let sizes = Sizes { layers: 2, codes: 3, items: 20, slots: 2, requests: 1, width: 4, candidates: 5 };
    let limits = sizes.limits();
    for (limits, layers, codes) in [
        (SearchLimits { requests: 0, ..limits }, 2, 3),
        (SearchLimits { beams: 0, ..limits }, 2, 3),
        (SearchLimits { beams: 1025, ..limits }, 2, 3),
        (SearchLimits { slots: 0, ..limits }, 2, 3),
        (SearchLimits { slots: 33, ..limits }, 2, 3),
        (limits, 0, 3),
        (limits, 2, 0),
        (limits, 2, 65_537),
    ] {
        assert!(Search::new(&stream, limits, layers, codes).is_err(), "{limits:?} {layers} {codes}");
    }
    let columns = columns(&mut rng, &sizes);
    let (one, other) = (snapshot(&columns, &sizes), live::advanced(&columns, &sizes));
    let mut search = Search::new(&stream, limits, 2, 3).unwrap();
    let ask = Ask { named: None, excluded: None, organic: vec![], ..ask(&mut rng, &sizes, &columns, &one) };
    let mut begin = |change: &dyn Fn(&mut Ask), rows: usize, copies: usize, snapshot: &Snapshot| {
        let mut ask = ask.clone();
        ask.rules.beam_width = 4;
        change(&mut ask);
        let ads = ads(&ask, snapshot);
        let request =
            SearchRequest { rules: &ask.rules, snapshot, ads: &ads, organic: &ask.organic, excluded: None };
        search.begin(&vec![request; copies], rows).is_ok()
    };
    assert!(begin(&|_| (), 4, 1, &one));
    assert!(!begin(&|_| (), 3, 1, &one), "a beam wider than the rows");
    assert!(!begin(&|_| (), 5, 1, &one), "more rows than the limit");
    assert!(!begin(&|_| (), 4, 2, &one), "more requests than the limit");
    assert!(!begin(&|_| (), 4, 0, &one), "no request");
    assert!(!begin(&|ask| ask.rules.list_len = 3, 4, 1, &one));
    assert!(!begin(&|ask| ask.rules.list_len = 0, 4, 1, &one));
    assert!(!begin(&|ask| ask.rules.codebook_size = 4, 4, 1, &one));
    assert!(!begin(&|ask| ask.organic = vec![0; 6], 4, 1, &one));
    assert!(!begin(&|ask| ask.named = Some((0..20).collect()), 4, 1, &one) || one.ads().len() <= 5);
    // All ads of one snapshot after another, but not of two at once.
    assert!(begin(&|_| (), 4, 1, &other));
    let all = [ads(&ask, &one), ads(&ask, &other)];
    let mut two = Search::new(&stream, SearchLimits { requests: 2, ..limits }, 2, 3).unwrap();
    let request =
        |snapshot, ads| SearchRequest { rules: &ask.rules, snapshot, ads, organic: &[], excluded: None };
    assert!(two.begin(&[request(&one, &all[0]), request(&other, &all[1])], 4).is_err());
}
