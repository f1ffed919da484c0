//! The first half of the feed-forward layer of normed rows, by bulk copies and wgmma.

use std::ops::Range;
use std::sync::Arc;

use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::cuda::linear::Product;
use bidslate::cuda::linear_swiglu_hopper::{Tiling, linear_swiglu_hopper_in};
use bidslate::cuda::product_hopper::arrange;
use bidslate::cuda::swiglu::interleave;
use half::bf16;

use crate::linear_rotary_hopper::TILINGS;
use crate::numbers::*;
use crate::setup::*;
use crate::streams::hopper_streams;
use crate::swiglu::Case;

/// (m, ffn, d): nothing, one, odd, on both sides of a tile.
const SIZES: [(usize, usize, usize); 6] =
    [(0, 32, 64), (1, 16, 8), (3, 48, 40), (64, 64, 64), (129, 80, 96), (18, 192, 1024)];

fn run(stream: &Arc<dyn Stream>, case: &Case, tiling: Tiling, rows: Range<usize>) -> Vec<f32> {
    let Case { ffn, d, .. } = *case;
    let m = rows.len();
    let x = Buffer::from_slice(stream, &narrow(&case.x[rows.start * d..rows.end * d])).unwrap();
    let w = arrange(&interleave(&case.gate, &case.up, d), d);
    let w = Buffer::from_slice(stream, &w).unwrap();
    let mut hidden = Buffer::from_slice(stream, &vec![bf16::NAN; m * ffn]).unwrap();
    let product = Product { x: x.ptr(), w: w.ptr(), m, n: 2 * ffn, k: d };
    linear_swiglu_hopper_in(&**stream, tiling, product, hidden.ptr_mut()).unwrap();
    plain(&hidden.to_vec().unwrap())
}

#[test]
fn hidden_rows_are_near_the_reference_in_every_tiling() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        let case = Case::new(&mut inputs, size);
        let (want, bound) = case.reference(&case.x);
        let mut bits: Option<Vec<f32>> = None;
        for stream in hopper_streams() {
            for tiling in TILINGS {
                let what = format!("{size:?} {tiling:?} {}", stream.describe());
                let hidden = run(&stream, &case, tiling, 0..case.m);
                assert_near(&hidden, &want, |i| bound[i], 1.0, &what);
                assert_same(&hidden, bits.get_or_insert_with(|| hidden.clone()), &what);
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (130, 128, 200));
    for stream in hopper_streams() {
        let all = run(&stream, &case, TILINGS[3], 0..130);
        for row in [0, 63, 64, 129] {
            let alone = run(&stream, &case, TILINGS[0], row..row + 1);
            assert_same(&alone, &all[row * 128..(row + 1) * 128], &format!("row {row}"));
        }
    }
}
