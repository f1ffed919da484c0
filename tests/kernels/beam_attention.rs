//! Attention of beams over their request's encoder rows.

use std::sync::Arc;

use bidslate::cuda::beam_attention::{BeamScratch, Beams, CrossKeys, beam_attention};
use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::ops;
use half::bf16;

use crate::numbers::*;
use crate::setup::*;
use crate::streams::streams;

/// As of self-attention.
pub const TOLERANCE: f64 = 8e-3;

/// Beams, keys of each request, heads, head size: one, on both sides of a tile and of a block's keys.
const BATCHES: [(usize, &[usize], usize, usize); 8] = [
    (0, &[3], 1, 64),
    (4, &[], 1, 64),
    (1, &[1], 1, 32),
    (3, &[64, 257, 5], 2, 32),
    (65, &[255, 1], 1, 64),
    (130, &[300], 1, 32),
    (64, &[256], 1, 128),
    (5, &[2, 600, 513], 1, 64),
];

pub struct Case {
    pub beams: usize,
    pub offsets: Vec<u32>,
    heads: usize,
    head_size: usize,
    pub q: Vec<bf16>,
    /// Rows of something else, d keys, d values and something else again.
    pub kv: Vec<bf16>,
}

impl Case {
    pub fn new(inputs: &mut Inputs, batch: (usize, &[usize], usize, usize), spread: f32) -> Self {
        let (beams, keys, heads, head_size) = batch;
        let d = heads * head_size;
        let mut offsets = vec![0];
        offsets.extend(keys.iter().scan(0, |end, &keys| {
            *end += keys as u32;
            Some(*end)
        }));
        let q: Vec<f32> = inputs.numbers(keys.len() * beams * d).iter().map(|q| q * spread).collect();
        let kv = narrow(&inputs.numbers(keys.iter().sum::<usize>() * 4 * d));
        Self { beams, offsets, heads, head_size, q: narrow(&q), kv }
    }

    pub fn d(&self) -> usize {
        self.heads * self.head_size
    }

    pub fn sizes(&self, requests: &std::ops::Range<usize>) -> Beams {
        let keys = self.offsets[requests.start..=requests.end].windows(2).map(|w| w[1] - w[0]);
        Beams {
            requests: requests.len(),
            beams: self.beams,
            heads: self.heads,
            head_size: self.head_size,
            most_keys: keys.max().unwrap_or(0) as usize,
        }
    }

    /// Some of the requests, in a batch of their own.
    fn run(
        &self,
        stream: &Arc<dyn Stream>,
        scratch: &mut BeamScratch,
        requests: std::ops::Range<usize>,
    ) -> Vec<bf16> {
        let (d, beams) = (self.d(), self.beams);
        let q = &self.q[requests.start * beams * d..requests.end * beams * d];
        let mut out = Buffer::from_slice(stream, &vec![bf16::NAN; q.len()]).unwrap();
        let q = Buffer::from_slice(stream, q).unwrap();
        let kv = Buffer::from_slice(stream, &self.kv).unwrap();
        let offsets = Buffer::from_slice(stream, &self.offsets[requests.start..=requests.end]).unwrap();
        // The keys start after d columns of something else.
        let keys = if self.kv.is_empty() { kv.ptr() } else { kv.at(d) };
        let cross = CrossKeys { keys, stride: 4 * d, rows: self.kv.len() / (4 * d), offsets: offsets.ptr() };
        let sizes = self.sizes(&requests);
        beam_attention(&**stream, sizes, q.ptr(), cross, scratch, out.ptr_mut()).unwrap();
        out.to_vec().unwrap()
    }

    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.offsets.len() - 1
    }

    pub fn reference(&self) -> Vec<f64> {
        let (d, head_size) = (self.d(), self.head_size);
        let (q, kv) = (wide_bf16(&self.q), wide_bf16(&self.kv));
        let mut out = Vec::new();
        for (r, q) in q.chunks(d).enumerate() {
            let request = r / self.beams;
            let rows = self.offsets[request] as usize..self.offsets[request + 1] as usize;
            let rows = &kv[rows.start * 4 * d..rows.end * 4 * d];
            for (head, q) in q.chunks(head_size).enumerate() {
                let columns = |part: usize| {
                    let start = part * d + head * head_size;
                    rows.chunks(4 * d).map(|row| &row[start..start + head_size]).collect::<Vec<_>>()
                };
                out.extend(ops::attention::reference(q, &columns(1), &columns(2)));
            }
        }
        out
    }
}

#[test]
fn attention_of_beams_is_near_the_reference() {
    let mut inputs = Inputs::new();
    for batch in BATCHES {
        for spread in [1.0, 4.0] {
            let case = Case::new(&mut inputs, batch, spread);
            let want = case.reference();
            for stream in streams() {
                let what = format!("{batch:?} spread {spread} {}", stream.describe());
                let mut scratch = BeamScratch::new(&stream, case.sizes(&case.all())).unwrap();
                let got = plain(&case.run(&stream, &mut scratch, case.all()));
                assert_near(&got, &want, |_| 1.0, TOLERANCE, &what);
                let again = plain(&case.run(&stream, &mut scratch, case.all()));
                assert_same(&again, &got, &format!("{what}, again"));
            }
        }
    }
}

/// As many keys as a history of 4,096 behaviours of seven tokens has.
#[test]
fn the_longest_history_is_near_the_reference() {
    let case = Case::new(&mut Inputs::new(), (2, &[4096 * 7 + 1], 1, 32), 1.0);
    let stream = streams().remove(0);
    let mut scratch = BeamScratch::new(&stream, case.sizes(&case.all())).unwrap();
    let got = plain(&case.run(&stream, &mut scratch, case.all()));
    assert_near(&got, &case.reference(), |_| 1.0, TOLERANCE, &stream.describe());
}

#[test]
fn a_request_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (3, &[300, 20, 257], 2, 32), 2.0);
    for stream in streams() {
        let mut scratch = BeamScratch::new(&stream, case.sizes(&case.all())).unwrap();
        let all = plain(&case.run(&stream, &mut scratch, case.all()));
        for (request, want) in all.chunks(3 * case.d()).enumerate() {
            let alone = plain(&case.run(&stream, &mut scratch, request..request + 1));
            assert_same(&alone, want, &format!("request {request} {}", stream.describe()));
        }
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (17, &[300], 1, 64), 1e4);
    for stream in streams() {
        let mut scratch = BeamScratch::new(&stream, case.sizes(&case.all())).unwrap();
        let out = case.run(&stream, &mut scratch, case.all());
        assert!(out.iter().all(|x| x.to_f32().abs() <= 1.01), "{}", stream.describe());
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_beam() {
    let mut inputs = Inputs::new();
    let mut case = Case::new(&mut inputs, (4, &[300, 9], 1, 32), 1.0);
    let d = case.d();
    case.q[2 * d] = bf16::NAN;
    for stream in streams() {
        let mut scratch = BeamScratch::new(&stream, case.sizes(&case.all())).unwrap();
        for (row, out) in case.run(&stream, &mut scratch, case.all()).chunks(d).enumerate() {
            assert!(out.iter().all(|x| x.to_f32().is_finite() == (row != 2)), "row {row}");
        }
    }
}

#[test]
#[should_panic(expected = "scratch for")]
fn scratch_that_is_too_small_is_refused() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (3, &[300, 20], 1, 32), 1.0);
    let stream = streams().remove(0);
    let mut scratch = BeamScratch::new(&stream, case.sizes(&(1..2))).unwrap();
    case.run(&stream, &mut scratch, case.all());
}
