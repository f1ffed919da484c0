//! A step of the search as one launch of clusters: the lists of the CPU, and the logits and hidden states of the launches
//! that it stands for.

use bidslate::cuda::beam_attention_hopper::Cluster;
use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::cuda::norm_linear::{NormedRows, Projected, norm_linear};
use bidslate::cuda::search::{Head, Search, SearchRequest};
use bidslate::error::DeviceError;
use bidslate::request::{AdPolicy, BidScope};
use half::bf16;
use rand::RngExt;

use super::Batch;
use super::batch::{Ask, Device, Logits, Sizes, ads, ask, columns, pick, rng, snapshot};
use crate::streams::hopper_streams;

/// Those that a device has room for: the checking emulator runs no more than 1,024 threads at once.
fn clusters(stream: &dyn Stream) -> &'static [Cluster] {
    const CLUSTERS: [Cluster; 4] = [Cluster::One, Cluster::Two, Cluster::Four, Cluster::Eight];
    if stream.describe().contains("Check") { &CLUSTERS[..3] } else { &CLUSTERS }
}

#[test]
fn lists_are_those_of_the_cpu() {
    let mut rng = rng("step_hopper::lists_are_those_of_the_cpu");
    for (stream, batches) in hopper_streams().into_iter().zip([40, 8]) {
        for _ in 0..batches {
            let cluster = pick(&mut rng, clusters(&*stream));
            let sizes = Sizes::small(&mut rng);
            let mut device = Device::fused(&stream, &sizes, cluster);
            Batch::draw(&mut rng, &sizes).agree(&mut device);
        }
    }
}

/// Beams and codes on both sides of a warp, of a tile of the head and of what a block's threads can take at once.
#[test]
fn sizes_on_both_sides_of_every_limit() {
    let mut rng = rng("step_hopper::sizes_on_both_sides_of_every_limit");
    let sizes =
        [(1, 1, 1, 1), (7, 31, 2, 1), (64, 33, 2, 2), (65, 256, 1, 1), (100, 300, 2, 1), (3, 65, 3, 5)];
    for (stream, few) in hopper_streams().into_iter().zip([false, true]) {
        for (width, codes, layers, requests) in sizes.into_iter().take(if few { 3 } else { 6 }) {
            let sizes = Sizes { layers, codes, items: 600, slots: 2, requests, width, candidates: 600 };
            let many = width * codes > 10_000;
            let cluster = if many { Cluster::Four } else { pick(&mut rng, clusters(&*stream)) };
            let mut device = Device::fused(&stream, &sizes, cluster);
            let mut batch = Batch::draw(&mut rng, &sizes);
            batch.rows = width;
            batch.agree(&mut device);
        }
    }
}

#[test]
fn ties_go_to_the_lower_beam_then_to_the_lower_code() {
    let mut rng = rng("step_hopper::ties");
    for stream in hopper_streams() {
        let sizes =
            Sizes { layers: 2, codes: 40, items: 900, slots: 2, requests: 1, width: 50, candidates: 900 };
        let mut columns = columns(&mut rng, &sizes);
        columns.bid_micros.fill(1_000_000);
        columns.reserve_micros.fill(0);
        let snapshot = snapshot(&columns, &sizes);
        let mut ask = ask(&mut rng, &sizes, &columns, &snapshot);
        (ask.logits, ask.named) = (Logits::Equal, None);
        (ask.rules.beam_width, ask.rules.policy) = (50, AdPolicy::default());
        let batch = Batch { asks: vec![ask], snapshot, rows: 50 };
        for &cluster in clusters(&*stream) {
            batch.agree(&mut Device::fused(&stream, &sizes, cluster));
        }
    }
}

/// A row that is not finite anywhere is not finite in all codes: the head's other weights are zeros.
#[test]
fn a_row_that_is_not_finite_fails_its_request_alone() {
    let mut rng = rng("step_hopper::a_row_that_is_not_finite_fails_its_request_alone");
    for (stream, batches) in hopper_streams().into_iter().zip([30, 6]) {
        let mut failed = 0;
        for _ in 0..batches {
            let cluster = pick(&mut rng, clusters(&*stream));
            let sizes = Sizes { requests: 3, items: 24, ..Sizes::small(&mut rng) };
            let mut batch = Batch::draw(&mut rng, &sizes);
            for ask in &mut batch.asks {
                let fault =
                    (rng.random_range(0..sizes.slots * sizes.layers), rng.random_range(0..2), 0, f32::NAN);
                ask.fault = rng.random_bool(0.6).then_some(fault);
            }
            let mut device = Device::fused(&stream, &sizes, cluster);
            failed += batch.agree(&mut device).iter().filter(|outcome| outcome.is_err()).count();
        }
        assert!(failed > 0);
    }
}

#[test]
fn used_ads_leave_the_best_of_the_rest() {
    let mut rng = rng("step_hopper::used_ads_leave_the_best_of_the_rest");
    for (stream, batches) in hopper_streams().into_iter().zip([8, 2]) {
        for _ in 0..batches {
            let cluster = pick(&mut rng, clusters(&*stream));
            let sizes =
                Sizes { layers: 3, codes: 2, items: 150, slots: 12, requests: 1, width: 3, candidates: 150 };
            let mut batch = Batch::draw(&mut rng, &sizes);
            let rules = &mut batch.asks[0].rules;
            rules.policy = AdPolicy::default();
            (rules.list_len, rules.scope) = (12, BidScope::Prefix);
            batch.agree(&mut Device::fused(&stream, &sizes, cluster));
        }
    }
}

/// With a norm, and weights and rows like a model's: hidden states and scores of the three launches, bit for bit.
#[test]
fn a_step_is_the_three_launches_in_one() {
    let mut rng = rng("step_hopper::a_step_is_the_three_launches_in_one");
    for stream in hopper_streams() {
        let sizes =
            Sizes { layers: 2, codes: 70, items: 400, slots: 2, requests: 2, width: 66, candidates: 400 };
        let columns = columns(&mut rng, &sizes);
        let snapshot = snapshot(&columns, &sizes);
        let mut asks: Vec<Ask> = (0..2).map(|_| ask(&mut rng, &sizes, &columns, &snapshot)).collect();
        // One is over before the other.
        for (ask, slots) in asks.iter_mut().zip([1, sizes.slots]) {
            (ask.named, ask.rules.list_len, ask.rules.policy) = (None, slots, AdPolicy::default());
        }
        let ads: Vec<_> = asks.iter().map(|ask| ads(ask, &snapshot)).collect();
        let requests: Vec<SearchRequest<'_>> = asks
            .iter()
            .zip(&ads)
            .map(|(ask, ads)| SearchRequest {
                rules: &ask.rules,
                snapshot: &snapshot,
                ads,
                organic: &ask.organic,
                excluded: None,
            })
            .collect();
        let (m, d, codes) = (2 * sizes.width, 136, sizes.codes);
        let mut numbers =
            |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let norm = Buffer::from_slice(&stream, &numbers(d)).unwrap();
        let w: Vec<bf16> = numbers(codes * d).into_iter().map(bf16::from_f32).collect();
        let w = Buffer::from_slice(&stream, &w).unwrap();
        let mut searches: Vec<Search> =
            (0..2).map(|_| Search::new(&stream, sizes.limits(), sizes.layers, codes).unwrap()).collect();
        searches.iter_mut().for_each(|search| search.begin(&requests, sizes.width).unwrap());
        let mut logits = Buffer::<f32>::new(&stream, m * codes).unwrap();
        let mut hidden = [0.0f32; 2].map(|zero| Buffer::from_slice(&stream, &vec![zero; m * d]).unwrap());
        for step in 0..sizes.slots * sizes.layers {
            let x = Buffer::from_slice(&stream, &numbers(m * d)).unwrap();
            let rows = NormedRows { x: x.ptr(), weight: norm.ptr(), m, d, eps: 1e-6 };
            let [one, three] = &mut hidden;
            let y = Projected::F32(logits.ptr_mut());
            norm_linear(&*stream, rows, w.ptr(), codes, None, three.ptr_mut(), y).unwrap();
            searches[0].advance(logits.ptr()).unwrap();
            let head = Head { rows, w: w.ptr(), hidden: one.ptr_mut() };
            searches[1].step(Cluster::Four, head).unwrap();
            let [one, three] = [one, three].map(|hidden| hidden.to_vec().unwrap());
            assert!(one == three, "hidden states of step {step}");
            let [three, one] = [0, 1].map(|i| searches[i].inputs().unwrap());
            assert_eq!(one, three, "step {step}");
        }
    }
}

#[test]
fn what_a_cluster_has_no_room_for_is_refused() {
    let mut rng = rng("step_hopper::what_a_cluster_has_no_room_for_is_refused");
    for stream in hopper_streams() {
        let sizes =
            Sizes { layers: 1, codes: 9000, items: 20, slots: 1, requests: 1, width: 40, candidates: 20 };
        let columns = columns(&mut rng, &sizes);
        let snapshot = snapshot(&columns, &sizes);
        let ask = ask(&mut rng, &sizes, &columns, &snapshot);
        let ads = ads(&ask, &snapshot);
        let request =
            SearchRequest { rules: &ask.rules, snapshot: &snapshot, ads: &ads, organic: &[], excluded: None };
        let mut search = Search::new(&stream, sizes.limits(), 1, sizes.codes).unwrap();
        search.begin(&[request], sizes.width).unwrap();
        assert_eq!(search.cluster(1, sizes.width, 64), None);
        let x = Buffer::<f32>::new(&stream, 40 * 64).unwrap();
        let mut hidden = Buffer::<f32>::new(&stream, 40 * 64).unwrap();
        let w = Buffer::<bf16>::new(&stream, 9000 * 64).unwrap();
        let rows = NormedRows { x: x.ptr(), weight: x.ptr(), m: 40, d: 64, eps: 0.0 };
        let refused = search.step(Cluster::Four, Head { rows, w: w.ptr(), hidden: hidden.ptr_mut() });
        assert!(matches!(refused, Err(DeviceError::Failed { .. })), "{refused:?}");
    }
}
