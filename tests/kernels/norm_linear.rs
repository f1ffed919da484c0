//! Norm, product and rotary embedding in one.

use std::sync::Arc;

use bidslate::cpu::Rotary;
use bidslate::cuda::launch::{Buffer, Ptr, PtrMut, Stream};
use bidslate::cuda::norm_linear::{
    NormedRows, Positions, Projected, Rotation, Tiling, norm_linear, norm_linear_in,
};
use bidslate::cuda::tiling::Width;
use bidslate::ops;
use half::bf16;

use crate::norm::{self, EPS};
use crate::numbers::*;
use crate::setup::*;
use crate::streams::streams;

const THETA: f64 = 10_000.0;
const POSITIONS: usize = 50;

/// (m, n, d, head size, heads that turn): nothing, one, odd, on both sides of a tile, and every head size.
const SIZES: [(usize, usize, usize, usize, usize); 8] = [
    (0, 64, 64, 64, 1),
    (1, 1, 32, 32, 0),
    (3, 67, 40, 32, 0),
    (64, 96, 96, 32, 2),
    (65, 192, 64, 64, 2),
    (17, 384, 128, 128, 2),
    (7, 384, 72, 64, 5),
    (5, 160, 1024, 32, 5),
];

pub const TILINGS: [Tiling; 4] = [
    Tiling { width: Width::Narrow, tiles_per_block: 1 },
    Tiling { width: Width::Narrow, tiles_per_block: 2 },
    Tiling { width: Width::Wide, tiles_per_block: 1 },
    Tiling { width: Width::Wide, tiles_per_block: 3 },
];

pub struct Case {
    pub size: (usize, usize, usize, usize, usize),
    pub x: Vec<f32>,
    weight: Vec<f32>,
    pub w: Vec<bf16>,
    pub positions: Vec<u32>,
    pub rotary: Rotary,
}

/// What a run gives.
struct Run {
    f32: Vec<f32>,
    bf16: Vec<bf16>,
    normed: Vec<f32>,
}

impl Case {
    pub fn new(inputs: &mut Inputs, size: (usize, usize, usize, usize, usize)) -> Self {
        let (m, n, d, head_size, _) = size;
        Self {
            size,
            x: inputs.numbers(m * d),
            weight: inputs.numbers(d),
            w: narrow(&inputs.numbers(n * d)),
            positions: inputs.indices(m, POSITIONS),
            rotary: Rotary::new(THETA, head_size, POSITIONS),
        }
    }

    fn run(&self, stream: &Arc<dyn Stream>, tiling: Tiling, rows: std::ops::Range<usize>) -> Run {
        let (_, n, d, head_size, heads) = self.size;
        let m = rows.len();
        let x = Buffer::from_slice(stream, &self.x[rows.start * d..rows.end * d]).unwrap();
        let weight = Buffer::from_slice(stream, &self.weight).unwrap();
        let w = Buffer::from_slice(stream, &self.w).unwrap();
        let positions = Buffer::from_slice(stream, &self.positions[rows]).unwrap();
        let angles = Buffer::from_slice(stream, self.rotary.table()).unwrap();
        let rotation = (heads > 0).then(|| Rotation {
            columns: heads * head_size,
            head_size,
            angles: angles.ptr(),
            positions: Positions::Each(positions.ptr()),
        });
        let rows = NormedRows { x: x.ptr(), weight: weight.ptr(), m, d, eps: EPS };
        let mut normed = Buffer::new(stream, m * d).unwrap();
        let (mut f32, mut bf16) = (Buffer::new(stream, m * n).unwrap(), Buffer::new(stream, m * n).unwrap());
        let go = |normed, y| {
            norm_linear_in(&**stream, tiling, rows, w.ptr(), n, rotation, normed, y).unwrap();
        };
        go(normed.ptr_mut(), Projected::F32(f32.ptr_mut()));
        go(PtrMut::NULL, Projected::Bf16(bf16.ptr_mut()));
        Run { f32: f32.to_vec().unwrap(), bf16: bf16.to_vec().unwrap(), normed: normed.to_vec().unwrap() }
    }

    /// The projection of normed rows, and the scale of its error.
    pub fn reference(&self, normed: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let (m, n, d, head_size, heads) = self.size;
        let (x, w) = (wide(&rounded(normed)), wide_bf16(&self.w));
        let mut y = ops::linear::reference(&x, m, &w, d);
        let mut scale = ops::linear::reference(&absolute(&x), m, &absolute(&w), d);
        let rows = y.chunks_mut(n).zip(scale.chunks_mut(n)).zip(&self.positions);
        for ((y, scale), &position) in rows {
            let heads = y.chunks_mut(head_size).zip(scale.chunks_mut(head_size)).take(heads);
            for (y, scale) in heads {
                ops::rotary::reference(THETA, y, position as usize);
                for i in 0..head_size / 2 {
                    scale[i] += scale[i + head_size / 2];
                    scale[i + head_size / 2] = scale[i];
                }
            }
        }
        (y, scale)
    }
}

#[test]
fn a_projection_is_near_the_reference_in_every_tiling() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        let case = Case::new(&mut inputs, size);
        let mut bits: Option<Vec<f32>> = None;
        for stream in streams() {
            let (normed, _) = norm::run(&stream, &case.x, &case.weight, EPS);
            let (want, scale) = case.reference(&normed);
            for tiling in TILINGS {
                let what = format!("{size:?} {tiling:?} {}", stream.describe());
                let run = case.run(&stream, tiling, 0..size.0);
                assert_same(&run.normed, &normed, &what);
                assert_near(&run.f32, &want, |i| scale[i], PRODUCT_TOLERANCE, &what);
                assert_same(&plain(&run.bf16), &rounded(&run.f32), &what);
                assert_same(&run.f32, bits.get_or_insert_with(|| run.f32.clone()), &what);
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (66, 128, 96, 64, 1));
    for stream in streams() {
        let all = case.run(&stream, TILINGS[0], 0..66).f32;
        for row in [0, 15, 64, 65] {
            let alone = case.run(&stream, TILINGS[2], row..row + 1).f32;
            assert_same(&alone, &all[row * 128..(row + 1) * 128], &format!("row {row}"));
        }
    }
}

#[test]
fn one_position_serves_all_rows_and_the_norm_may_be_left_out() {
    let mut inputs = Inputs::new();
    let mut case = Case::new(&mut inputs, (4, 64, 64, 32, 2));
    case.positions = vec![7; 4];
    for stream in streams() {
        let (normed, _) = norm::run(&stream, &case.x, &case.weight, EPS);
        let want = case.run(&stream, TILINGS[0], 0..4).f32;
        let x = Buffer::from_slice(&stream, &normed).unwrap();
        let w = Buffer::from_slice(&stream, &case.w).unwrap();
        let position = Buffer::from_slice(&stream, &[7]).unwrap();
        let angles = Buffer::from_slice(&stream, case.rotary.table()).unwrap();
        let rotation = Rotation {
            columns: 64,
            head_size: 32,
            angles: angles.ptr(),
            positions: Positions::All(position.ptr()),
        };
        let rows = NormedRows { x: x.ptr(), weight: Ptr::NULL, m: 4, d: 64, eps: EPS };
        let mut y = Buffer::new(&stream, 4 * 64).unwrap();
        let to = Projected::F32(y.ptr_mut());
        norm_linear(&*stream, rows, w.ptr(), 64, Some(rotation), PtrMut::NULL, to).unwrap();
        assert_same(&y.to_vec().unwrap(), &want, &stream.describe());
    }
}
