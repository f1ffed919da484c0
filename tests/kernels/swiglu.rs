//! The first half of the feed-forward layer.

use std::sync::Arc;

use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::cuda::swiglu::{NormedRows, Tiling, interleave, swiglu_in};
use bidslate::ops;
use half::bf16;

use crate::norm::{self, EPS};
use crate::norm_linear::TILINGS;
use crate::numbers::*;
use crate::setup::*;
use crate::streams::streams;

/// (m, ffn, d): nothing, one, odd, on both sides of a tile.
const SIZES: [(usize, usize, usize); 6] =
    [(0, 32, 64), (1, 16, 32), (3, 48, 40), (64, 96, 64), (65, 160, 96), (18, 192, 1024)];

pub struct Case {
    pub m: usize,
    pub ffn: usize,
    pub d: usize,
    pub x: Vec<f32>,
    weight: Vec<f32>,
    pub gate: Vec<bf16>,
    pub up: Vec<bf16>,
}

impl Case {
    pub fn new(inputs: &mut Inputs, (m, ffn, d): (usize, usize, usize)) -> Self {
        let weight: Vec<f32> = inputs.numbers(d).iter().map(|w| 4.0 * w).collect();
        let (gate, up) = (narrow(&inputs.numbers(ffn * d)), narrow(&inputs.numbers(ffn * d)));
        Self { m, ffn, d, x: inputs.numbers(m * d), weight, gate, up }
    }

    fn run(&self, stream: &Arc<dyn Stream>, tiling: Tiling, rows: std::ops::Range<usize>) -> Vec<bf16> {
        let Self { ffn, d, .. } = *self;
        let m = rows.len();
        let x = Buffer::from_slice(stream, &self.x[rows.start * d..rows.end * d]).unwrap();
        let weight = Buffer::from_slice(stream, &self.weight).unwrap();
        let w = Buffer::from_slice(stream, &interleave(&self.gate, &self.up, d)).unwrap();
        let mut hidden = Buffer::new(stream, m * ffn).unwrap();
        let rows = NormedRows { x: x.ptr(), weight: weight.ptr(), m, d, eps: EPS };
        swiglu_in(&**stream, tiling, rows, w.ptr(), ffn, hidden.ptr_mut()).unwrap();
        hidden.to_vec().unwrap()
    }

    /// The hidden rows of normed rows, and the largest error.
    pub fn reference(&self, normed: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let x = wide(&rounded(normed));
        let product = |x: &[f64], w: &[f64]| ops::linear::reference(x, self.m, w, self.d);
        let (gate, up) = (wide_bf16(&self.gate), wide_bf16(&self.up));
        let sums = product(&x, &gate).into_iter().zip(product(&x, &up));
        let scales =
            product(&absolute(&x), &absolute(&gate)).into_iter().zip(product(&absolute(&x), &absolute(&up)));
        sums.zip(scales)
            .map(|((gate, up), (gate_scale, up_scale))| {
                let silu = ops::math::silu(gate);
                // The slope of silu is at most 1.1.
                let sums = PRODUCT_TOLERANCE * (1.1 * gate_scale * up.abs() + silu.abs() * up_scale);
                (silu * up, 1.01 * sums + BF16_ROUNDING * (silu * up).abs())
            })
            .unzip()
    }
}

#[test]
fn hidden_rows_are_near_the_reference_in_every_tiling() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        let case = Case::new(&mut inputs, size);
        let mut bits: Option<Vec<f32>> = None;
        for stream in streams() {
            let (normed, _) = norm::run(&stream, &case.x, &case.weight, EPS);
            let (want, bound) = case.reference(&normed);
            for tiling in TILINGS {
                let what = format!("{size:?} {tiling:?} {}", stream.describe());
                let hidden = plain(&case.run(&stream, tiling, 0..case.m));
                assert_near(&hidden, &want, |i| bound[i], 1.0, &what);
                assert_same(&hidden, bits.get_or_insert_with(|| hidden.clone()), &what);
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (66, 64, 96));
    for stream in streams() {
        let all = plain(&case.run(&stream, TILINGS[0], 0..66));
        for row in [0, 33, 65] {
            let alone = plain(&case.run(&stream, TILINGS[2], row..row + 1));
            assert_same(&alone, &all[row * 64..(row + 1) * 64], &format!("row {row}"));
        }
    }
}
