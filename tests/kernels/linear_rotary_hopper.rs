//! Product and rotary embedding in one, by bulk copies and wgmma.

use std::ops::Range;
use std::sync::Arc;

use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::cuda::linear::Product;
use bidslate::cuda::linear_rotary_hopper::{Height, Tiling, linear_rotary_hopper_in};
use bidslate::cuda::norm_linear::{Positions, Rotation};
use bidslate::cuda::product_hopper::arrange;
use half::bf16;

use crate::norm_linear::Case;
use crate::numbers::*;
use crate::setup::*;
use crate::streams::hopper_streams;

/// (m, n, d, head size, heads that turn): nothing, one, odd, on both sides of a tile, every head size, heads that end
/// within a tile and with it, no head that turns, and more of k than the ring holds.
const SIZES: [(usize, usize, usize, usize, usize); 8] = [
    (0, 64, 64, 64, 1),
    (1, 32, 8, 32, 0),
    (3, 96, 40, 32, 2),
    (64, 128, 96, 64, 2),
    (65, 192, 64, 64, 2),
    (129, 384, 128, 128, 2),
    (7, 384, 72, 64, 4),
    (5, 160, 1024, 32, 5),
];

/// Every height, by themselves and sharing rows of x.
pub const TILINGS: [Tiling; 4] = [
    Tiling { height: Height::Low, cluster: 1 },
    Tiling { height: Height::High, cluster: 1 },
    Tiling { height: Height::Low, cluster: 4 },
    Tiling { height: Height::High, cluster: 2 },
];

fn run(stream: &Arc<dyn Stream>, case: &Case, tiling: Tiling, rows: Range<usize>) -> Vec<f32> {
    let (_, n, d, head_size, heads) = case.size;
    let m = rows.len();
    let x = Buffer::from_slice(stream, &narrow(&case.x[rows.start * d..rows.end * d])).unwrap();
    let w = Buffer::from_slice(stream, &arrange(&case.w, d)).unwrap();
    let positions = Buffer::from_slice(stream, &case.positions[rows]).unwrap();
    let angles = Buffer::from_slice(stream, case.rotary.table()).unwrap();
    let rotation = Rotation {
        columns: heads * head_size,
        head_size,
        angles: angles.ptr(),
        positions: Positions::Each(positions.ptr()),
    };
    let product = Product { x: x.ptr(), w: w.ptr(), m, n, k: d };
    let mut y = Buffer::from_slice(stream, &vec![bf16::NAN; m * n]).unwrap();
    linear_rotary_hopper_in(&**stream, tiling, product, rotation, y.ptr_mut()).unwrap();
    plain(&y.to_vec().unwrap())
}

#[test]
fn a_turned_projection_is_near_the_reference_in_every_tiling() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        let case = Case::new(&mut inputs, size);
        let (want, scale) = case.reference(&case.x);
        let bound = |i: usize| 1.01 * PRODUCT_TOLERANCE * scale[i] + BF16_ROUNDING * want[i].abs();
        let mut bits: Option<Vec<f32>> = None;
        for stream in hopper_streams() {
            for tiling in TILINGS {
                let what = format!("{size:?} {tiling:?} {}", stream.describe());
                let y = run(&stream, &case, tiling, 0..size.0);
                assert_near(&y, &want, bound, 1.0, &what);
                assert_same(&y, bits.get_or_insert_with(|| y.clone()), &what);
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (130, 256, 264, 64, 2));
    for stream in hopper_streams() {
        let all = run(&stream, &case, TILINGS[3], 0..130);
        for row in [0, 63, 64, 129] {
            let alone = run(&stream, &case, TILINGS[0], row..row + 1);
            assert_same(&alone, &all[row * 256..(row + 1) * 256], &format!("row {row}"));
        }
    }
}
