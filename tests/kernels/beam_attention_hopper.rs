//! Attention of beams by clusters: against the reference, and against itself in clusters of other sizes and in other
//! batches, bit for bit.

use std::ops::Range;
use std::sync::Arc;

use bidslate::cuda::beam_attention::CrossKeys;
use bidslate::cuda::beam_attention_hopper::{Cluster, beam_attention_hopper};
use bidslate::cuda::launch::{Buffer, Stream};
use half::bf16;

use crate::beam_attention::{Case, TOLERANCE};
use crate::numbers::*;
use crate::setup::*;
use crate::streams::hopper_streams;

/// Beams, keys of each request, heads, head size: none, one, and both sides of a tile, of eight parts of one tile, and of
/// what the ring of a block by itself holds.
const BATCHES: [(usize, &[usize], usize, usize); 7] = [
    (0, &[3], 1, 64),
    (1, &[0], 1, 64),
    (64, &[63, 0, 64], 2, 64),
    (17, &[65, 129], 1, 64),
    (65, &[1, 320], 1, 64),
    (3, &[512, 577], 1, 64),
    (1, &[8 * 4 * 64 + 70], 1, 64),
];

const CLUSTERS: [Cluster; 4] = [Cluster::One, Cluster::Two, Cluster::Four, Cluster::Eight];

/// Some of the requests, in a batch of their own.
fn run(case: &Case, stream: &Arc<dyn Stream>, cluster: Cluster, requests: Range<usize>) -> Vec<f32> {
    let (d, beams) = (case.d(), case.beams);
    let q = &case.q[requests.start * beams * d..requests.end * beams * d];
    let mut out = Buffer::from_slice(stream, &vec![bf16::NAN; q.len()]).unwrap();
    let q = Buffer::from_slice(stream, q).unwrap();
    let kv = Buffer::from_slice(stream, &case.kv).unwrap();
    let offsets = Buffer::from_slice(stream, &case.offsets[requests.start..=requests.end]).unwrap();
    // The keys start after d columns of something else.
    let keys = if case.kv.is_empty() { kv.ptr() } else { kv.at(d) };
    let rows = case.kv.len() / (4 * d);
    let cross = CrossKeys { keys, stride: 4 * d, rows, offsets: offsets.ptr() };
    let sizes = case.sizes(&requests);
    beam_attention_hopper(&**stream, sizes, cluster, q.ptr(), cross, out.ptr_mut()).unwrap();
    plain(&out.to_vec().unwrap())
}

#[test]
fn attention_of_beams_is_near_the_reference_in_clusters_of_any_size() {
    let mut inputs = Inputs::new();
    for batch in BATCHES {
        for spread in [1.0, 4.0] {
            let case = Case::new(&mut inputs, batch, spread);
            let want = case.reference();
            for stream in hopper_streams() {
                let what = format!("{batch:?} spread {spread} {}", stream.describe());
                let got = run(&case, &stream, Cluster::Eight, case.all());
                assert_near(&got, &want, |_| 1.0, TOLERANCE, &what);
                for cluster in CLUSTERS {
                    let again = run(&case, &stream, cluster, case.all());
                    assert_same(&again, &got, &format!("{what}, clusters of {cluster:?}"));
                }
            }
        }
    }
}

/// Eight parts, each with one value that is not 0: 1 or 2^26, of either sign. A float has no room for both, so that what
/// they come to depends on their order.
#[test]
fn parts_are_joined_from_the_first_to_the_last() {
    let mut inputs = Inputs::new();
    let mut case = Case::new(&mut inputs, (64, &[8 * 64], 1, 64), 0.0);
    let value = |x: &f32| x.signum() * if x.abs() < 0.5 { 1.0 } else { f32::powi(2.0, 26) };
    let values: Vec<f32> = inputs.numbers(8 * 64).iter().map(value).collect();
    let values = narrow(&values);
    let d = case.d();
    for (key, row) in case.kv.chunks_mut(4 * d).enumerate() {
        row[2 * d..3 * d].fill(bf16::ZERO);
        if key % 64 == 5 {
            row[2 * d..3 * d].copy_from_slice(&values[key / 64 * d..][..d]);
        }
    }
    let sum = |column: usize| (0..8).fold(0.0, |sum, part| sum + values[part * d + column].to_f32());
    let want: Vec<bf16> = (0..64 * d).map(|i| bf16::from_f32(sum(i % d) / 512.0)).collect();
    for stream in hopper_streams() {
        for cluster in CLUSTERS {
            let what = format!("clusters of {cluster:?} {}", stream.describe());
            assert_same(&run(&case, &stream, cluster, case.all()), &plain(&want), &what);
        }
    }
}

#[test]
fn a_request_gives_the_same_bits_alone() {
    let case = Case::new(&mut Inputs::new(), (5, &[70, 1, 0, 130], 2, 64), 2.0);
    for stream in hopper_streams() {
        let all = run(&case, &stream, Cluster::Four, case.all());
        for (request, want) in all.chunks(5 * case.d()).enumerate() {
            let alone = run(&case, &stream, Cluster::Four, request..request + 1);
            assert_same(&alone, want, &format!("request {request} {}", stream.describe()));
        }
    }
}

/// The tile of a request's last keys holds the next one's first.
#[test]
fn what_is_not_a_number_stays_in_its_request_and_beam() {
    let mut case = Case::new(&mut Inputs::new(), (4, &[70, 9], 1, 64), 1.0);
    let d = case.d();
    case.kv[70 * 4 * d..].fill(bf16::NAN);
    case.q[2 * d] = bf16::NAN;
    for stream in hopper_streams() {
        for (row, out) in run(&case, &stream, Cluster::Two, case.all()).chunks(d).enumerate() {
            let finite = row < 4 && row != 2;
            assert!(out.iter().all(|x| x.is_finite() == finite), "row {row} {}", stream.describe());
        }
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let case = Case::new(&mut Inputs::new(), (17, &[300], 1, 64), 1e4);
    for stream in hopper_streams() {
        let out = run(&case, &stream, Cluster::Eight, case.all());
        assert!(out.iter().all(|x| x.abs() <= 1.01), "{}", stream.describe());
    }
}

#[test]
#[should_panic(expected = "heads of 32 columns")]
fn other_heads_are_refused() {
    let case = Case::new(&mut Inputs::new(), (1, &[3], 1, 32), 1.0);
    run(&case, &crate::streams::streams()[0], Cluster::One, case.all());
}
