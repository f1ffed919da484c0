//! Self-attention of ragged requests.

use std::ops::Range;
use std::sync::Arc;

use bidslate::cuda::attention::attention;
use bidslate::cuda::launch::{Buffer, Ptr, PtrMut, Stream};
use bidslate::error::DeviceError;
use bidslate::ops;
use half::bf16;

use crate::numbers::*;
use crate::setup::*;
use crate::streams::streams;

/// What computes attention.
pub type Code = fn(&dyn Stream, &Batch) -> Result<(), DeviceError>;

/// A batch on a device, its queries, keys and values `qkv` [rows, 3 d] and its results [rows, d].
pub struct Batch {
    pub qkv: Ptr<bf16>,
    pub rows: usize,
    pub offsets: Ptr<u32>,
    pub requests: usize,
    pub longest: usize,
    pub heads: usize,
    pub head_size: usize,
    pub out: PtrMut<bf16>,
}

const PORTABLE: Code = |stream, &Batch { qkv, offsets, requests, longest, heads, head_size, out, .. }| {
    attention(stream, qkv, offsets, requests, longest, heads, head_size, out)
};

/// Largest error: the weights and the result are rounded to bf16, the scores and sums are f32; values are up to 1.
const TOLERANCE: f64 = 8e-3;

/// Rows of each request of a batch, heads, head size: none, one, on both sides of a tile.
const BATCHES: [(&[usize], usize, usize); 6] = [
    (&[], 2, 32),
    (&[1], 1, 64),
    (&[0, 3, 64, 1], 2, 32),
    (&[65, 2], 1, 128),
    (&[63, 0, 130], 1, 64),
    (&[17, 128, 5], 3, 32),
];

pub struct Case {
    offsets: Vec<u32>,
    heads: usize,
    head_size: usize,
    pub qkv: Vec<bf16>,
}

impl Case {
    /// `spread` widens the scores: 1 for weights that are nearly even, 4 for rows where few keys count.
    pub fn new(inputs: &mut Inputs, (rows, heads, head_size): (&[usize], usize, usize), spread: f32) -> Self {
        let d = heads * head_size;
        let mut offsets = vec![0];
        offsets.extend(rows.iter().scan(0, |end, &rows| {
            *end += rows as u32;
            Some(*end)
        }));
        let mut qkv = inputs.numbers(rows.iter().sum::<usize>() * 3 * d);
        for row in qkv.chunks_mut(3 * d) {
            row[..d].iter_mut().for_each(|q| *q *= spread);
        }
        Self { offsets, heads, head_size, qkv: narrow(&qkv) }
    }

    pub fn d(&self) -> usize {
        self.heads * self.head_size
    }

    pub fn requests(&self) -> impl Iterator<Item = Range<usize>> {
        self.offsets.windows(2).map(|w| w[0] as usize..w[1] as usize)
    }

    pub fn run(&self, stream: &Arc<dyn Stream>, code: Code) -> Vec<bf16> {
        self.run_on(stream, code, &self.qkv, &self.offsets)
    }

    /// The results of a request that runs by itself.
    fn alone(&self, stream: &Arc<dyn Stream>, code: Code, request: &Range<usize>) -> Vec<bf16> {
        let width = 3 * self.d();
        let qkv = &self.qkv[request.start * width..request.end * width];
        self.run_on(stream, code, qkv, &[0, request.len() as u32])
    }

    fn run_on(&self, stream: &Arc<dyn Stream>, code: Code, qkv: &[bf16], offsets: &[u32]) -> Vec<bf16> {
        let Self { heads, head_size, .. } = *self;
        let (rows, requests) = (qkv.len() / (3 * self.d()), offsets.len() - 1);
        let longest = offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as usize;
        let mut out = Buffer::from_slice(stream, &vec![bf16::NAN; qkv.len() / 3]).unwrap();
        let qkv = Buffer::from_slice(stream, qkv).unwrap();
        let offsets = Buffer::from_slice(stream, offsets).unwrap();
        let (qkv, offsets) = (qkv.ptr(), offsets.ptr());
        let batch = Batch { qkv, rows, offsets, requests, longest, heads, head_size, out: out.ptr_mut() };
        code(&**stream, &batch).unwrap();
        out.to_vec().unwrap()
    }

    /// Holds the results to the reference.
    pub fn check(&self, stream: &Arc<dyn Stream>, code: Code) {
        let what = format!("{:?} {}", self.offsets, stream.describe());
        assert_near(&plain(&self.run(stream, code)), &self.reference(), |_| 1.0, TOLERANCE, &what);
    }

    /// Each request has the bits that it has alone.
    pub fn check_alone(&self, stream: &Arc<dyn Stream>, code: Code) {
        let (d, all) = (self.d(), plain(&self.run(stream, code)));
        for request in self.requests() {
            let alone = plain(&self.alone(stream, code, &request));
            assert_same(&alone, &all[request.start * d..request.end * d], &format!("{request:?}"));
        }
    }

    fn reference(&self) -> Vec<f64> {
        let (d, head_size) = (self.d(), self.head_size);
        let qkv = wide_bf16(&self.qkv);
        let mut out = Vec::new();
        for request in self.requests() {
            let rows = &qkv[request.start * 3 * d..request.end * 3 * d];
            for row in rows.chunks(3 * d) {
                for head in 0..self.heads {
                    let columns = |part: usize| {
                        let start = part * d + head * head_size;
                        start..start + head_size
                    };
                    let all = |part| rows.chunks(3 * d).map(|row| &row[columns(part)]).collect::<Vec<_>>();
                    out.extend(ops::attention::reference(&row[columns(0)], &all(1), &all(2)));
                }
            }
        }
        out
    }
}

#[test]
fn attention_is_near_the_reference() {
    let mut inputs = Inputs::new();
    for batch in BATCHES {
        for spread in [1.0, 4.0] {
            let case = Case::new(&mut inputs, batch, spread);
            streams().iter().for_each(|stream| case.check(stream, PORTABLE));
        }
    }
}

#[test]
fn a_request_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (&[70, 3, 66], 2, 64), 2.0);
    streams().iter().for_each(|stream| case.check_alone(stream, PORTABLE));
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (&[67], 1, 64), 1e4);
    for stream in streams() {
        assert!(
            case.run(&stream, PORTABLE).iter().all(|x| x.to_f32().abs() <= 1.01),
            "{}",
            stream.describe()
        );
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row_or_request() {
    let mut inputs = Inputs::new();
    let mut case = Case::new(&mut inputs, (&[5, 6, 7], 1, 32), 1.0);
    let d = case.d();
    case.qkv[2 * 3 * d + 3] = bf16::NAN; // a query of the first request
    case.qkv[8 * 3 * d + d] = bf16::NAN; // a key of the second
    for stream in streams() {
        for (row, out) in case.run(&stream, PORTABLE).chunks(d).enumerate() {
            let bad = row == 2 || (5..11).contains(&row);
            assert!(out.iter().all(|x| x.to_f32().is_finite() != bad), "row {row}");
        }
    }
}
