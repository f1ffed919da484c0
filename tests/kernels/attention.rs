//! Self-attention of ragged requests.

use std::sync::Arc;

use bidslate::cuda::attention::attention;
use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::ops;
use half::bf16;

use crate::numbers::*;
use crate::setup::*;
use crate::streams::streams;

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

struct Case {
    offsets: Vec<u32>,
    heads: usize,
    head_size: usize,
    qkv: Vec<bf16>,
}

impl Case {
    /// `spread` widens the scores: 1 for weights that are nearly even, 4 for rows where few keys count.
    fn new(inputs: &mut Inputs, (rows, heads, head_size): (&[usize], usize, usize), spread: f32) -> Self {
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

    fn d(&self) -> usize {
        self.heads * self.head_size
    }

    fn requests(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.offsets.windows(2).map(|w| w[0] as usize..w[1] as usize)
    }

    fn run(&self, stream: &Arc<dyn Stream>) -> Vec<bf16> {
        self.run_on(stream, &self.qkv, &self.offsets)
    }

    fn run_on(&self, stream: &Arc<dyn Stream>, qkv: &[bf16], offsets: &[u32]) -> Vec<bf16> {
        let requests = offsets.len() - 1;
        let longest = offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as usize;
        let mut out = Buffer::from_slice(stream, &vec![bf16::NAN; qkv.len() / 3]).unwrap();
        let qkv = Buffer::from_slice(stream, qkv).unwrap();
        let offsets = Buffer::from_slice(stream, offsets).unwrap();
        attention(
            &**stream,
            qkv.ptr(),
            offsets.ptr(),
            requests,
            longest,
            self.heads,
            self.head_size,
            out.ptr_mut(),
        )
        .unwrap();
        out.to_vec().unwrap()
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
            let want = case.reference();
            for stream in streams() {
                let what = format!("{batch:?} spread {spread} {}", stream.describe());
                assert_near(&plain(&case.run(&stream)), &want, |_| 1.0, TOLERANCE, &what);
            }
        }
    }
}

#[test]
fn a_request_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (&[70, 3, 66], 2, 64), 2.0);
    let d = case.d();
    for stream in streams() {
        let all = plain(&case.run(&stream));
        for request in case.requests() {
            let qkv = &case.qkv[request.start * 3 * d..request.end * 3 * d];
            let alone = plain(&case.run_on(&stream, qkv, &[0, request.len() as u32]));
            assert_same(&alone, &all[request.start * d..request.end * d], &format!("{request:?}"));
        }
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (&[67], 1, 64), 1e4);
    for stream in streams() {
        assert!(case.run(&stream).iter().all(|x| x.to_f32().abs() <= 1.01), "{}", stream.describe());
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
        for (row, out) in case.run(&stream).chunks(d).enumerate() {
            let bad = row == 2 || (5..11).contains(&row);
            assert!(out.iter().all(|x| x.to_f32().is_finite() != bad), "row {row}");
        }
    }
}
