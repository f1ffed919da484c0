//! Products by bulk copies and wgmma.

use bidslate::cuda::launch::Buffer;
use bidslate::cuda::linear::{Output, Product};
use bidslate::cuda::linear_hopper::{Height, Tiling, linear_hopper, linear_hopper_in};
use half::bf16;

use crate::linear::{Case, Code};
use crate::setup::*;
use crate::streams::hopper_streams;

/// (m, n, k): nothing, one, on both sides of a tile, of a stage's depth, and of the ring.
const SIZES: [(usize, usize, usize); 7] =
    [(0, 5, 8), (1, 1, 8), (3, 5, 64), (129, 127, 72), (64, 130, 200), (200, 257, 328), (65, 8, 1024)];

const fn tiling(height: Height, cluster: usize) -> Tiling {
    Tiling { height, cluster }
}

const LOW: Code = |stream, product, y| linear_hopper_in(stream, tiling(Height::Low, 1), product, y);
const HIGH: Code = |stream, product, y| linear_hopper_in(stream, tiling(Height::High, 1), product, y);
/// Blocks that share rows of x.
const SHARED: Code = |stream, product, y| linear_hopper_in(stream, tiling(Height::High, 2), product, y);
const LOW_SHARED: Code = |stream, product, y| linear_hopper_in(stream, tiling(Height::Low, 4), product, y);

#[test]
fn a_product_is_near_the_reference_in_tiles_of_every_height() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        let case = Case::new(&mut inputs, size);
        let mut bits: Option<Vec<f32>> = None;
        for stream in hopper_streams() {
            for code in [LOW, HIGH, SHARED, LOW_SHARED] {
                let sums = case.check(&stream, code);
                assert_same(&sums, bits.get_or_insert_with(|| sums.clone()), &stream.describe());
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (150, 70, 136));
    for stream in hopper_streams() {
        let all = case.f32(&stream, HIGH, 0..case.m);
        for row in [0, 64, 127, 128, 149] {
            let alone = case.f32(&stream, LOW, row..row + 1);
            assert_same(&alone, &all[row * case.n..(row + 1) * case.n], &format!("row {row}"));
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    let mut inputs = Inputs::new();
    let mut case = Case::new(&mut inputs, (130, 40, 72));
    case.x[129 * case.k + 70] = bf16::NAN;
    for stream in hopper_streams() {
        for (row, y) in case.f32(&stream, linear_hopper, 0..130).chunks(case.n).enumerate() {
            assert!(y.iter().all(|y| y.is_finite() == (row != 129)), "row {row}");
        }
    }
}

#[test]
fn a_recorded_product_is_computed_at_each_launch() {
    for stream in hopper_streams() {
        let mut x = Buffer::from_slice(&stream, &[bf16::ONE; 8]).unwrap();
        let w = Buffer::from_slice(&stream, &[bf16::ONE; 16]).unwrap();
        let mut y = Buffer::from_slice(&stream, &[0.0f32; 2]).unwrap();
        let product = Product { x: x.ptr(), w: w.ptr(), m: 1, n: 2, k: 8 };
        let to = Output::F32(y.ptr_mut());
        let graph = stream.capture(&mut || linear_hopper(&*stream, product, to)).unwrap();
        assert_eq!(y.to_vec().unwrap(), [0.0; 2]);
        for value in [1.0, 2.0] {
            x.upload(0, &[bf16::from_f32(value); 8]).unwrap();
            graph.launch().unwrap();
            assert_eq!(y.to_vec().unwrap(), [8.0 * value; 2]);
        }
    }
}
