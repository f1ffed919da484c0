//! Product, residual stream and norm in one, by bulk copies, wgmma and clusters.

use std::ops::Range;
use std::sync::Arc;

use bidslate::cuda::launch::{Buffer, PtrMut, Stream};
use bidslate::cuda::linear::Product;
use bidslate::cuda::linear_norm_hopper::{Height, Residual, linear_norm_hopper_in};
use bidslate::cuda::product_hopper::arrange;
use bidslate::ops;
use half::bf16;

use crate::norm::EPS;
use crate::numbers::*;
use crate::setup::*;
use crate::streams::hopper_streams;

/// (m, n, k): nothing, one, on both sides of a tile and of its last columns; rows of one, two, four and eight blocks, of
/// which some end before the cluster; more of k than the ring holds.
const SIZES: [(usize, usize, usize); 10] = [
    (0, 128, 8),
    (1, 16, 8),
    (65, 64, 72),
    (129, 128, 64),
    (64, 144, 264),
    (130, 256, 40),
    (3, 384, 512),
    (66, 512, 328),
    (2, 640, 72),
    (65, 1024, 64),
];

struct Case {
    size: (usize, usize, usize),
    a: Vec<bf16>,
    w: Vec<bf16>,
    x: Vec<f32>,
    weight: Vec<f32>,
}

/// What a run gives.
struct Run {
    x: Vec<f32>,
    normed: Vec<f32>,
    rounded: Vec<f32>,
}

impl Case {
    fn new(inputs: &mut Inputs, (m, n, k): (usize, usize, usize)) -> Self {
        let (a, w) = (narrow(&inputs.numbers(m * k)), narrow(&inputs.numbers(n * k)));
        Self { size: (m, n, k), a, w, x: inputs.numbers(m * n), weight: inputs.numbers(n) }
    }

    fn run(&self, stream: &Arc<dyn Stream>, height: Height, rows: Range<usize>) -> Run {
        self.run_to(stream, height, rows, true)
    }

    /// Without `normed` that output is left out.
    fn run_to(&self, stream: &Arc<dyn Stream>, height: Height, rows: Range<usize>, normed: bool) -> Run {
        let (_, n, k) = self.size;
        let m = rows.len();
        let a = Buffer::from_slice(stream, &self.a[rows.start * k..rows.end * k]).unwrap();
        let w = Buffer::from_slice(stream, &arrange(&self.w, k)).unwrap();
        let mut x = Buffer::from_slice(stream, &self.x[rows.start * n..rows.end * n]).unwrap();
        let weight = Buffer::from_slice(stream, &self.weight).unwrap();
        let mut to = Buffer::from_slice(stream, &vec![0.0f32; m * n]).unwrap();
        let mut rounded = Buffer::from_slice(stream, &vec![bf16::NAN; m * n]).unwrap();
        let residual = Residual {
            x: x.ptr_mut(),
            weight: weight.ptr(),
            eps: EPS,
            normed: if normed { to.ptr_mut() } else { PtrMut::NULL },
            rounded: rounded.ptr_mut(),
        };
        let product = Product { x: a.ptr(), w: w.ptr(), m, n, k };
        linear_norm_hopper_in(&**stream, height, product, residual).unwrap();
        Run {
            x: x.to_vec().unwrap(),
            normed: to.to_vec().unwrap(),
            rounded: plain(&rounded.to_vec().unwrap()),
        }
    }

    /// The new rows, and the scale of their error.
    fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let (m, _, k) = self.size;
        let (a, w, x) = (wide_bf16(&self.a), wide_bf16(&self.w), wide(&self.x));
        let added = |x: Vec<f64>, y: Vec<f64>| x.iter().zip(y).map(|(x, y)| x + y).collect::<Vec<f64>>();
        let scale = ops::linear::reference(&absolute(&a), m, &absolute(&w), k);
        (added(x.clone(), ops::linear::reference(&a, m, &w, k)), added(absolute(&x), scale))
    }
}

/// The heights whose clusters have no more threads than a stream runs at once: an emulator 1,024 where it checks, else
/// 4,096.
fn heights(stream: &Arc<dyn Stream>, n: usize) -> Vec<Height> {
    let most = match stream.describe() {
        name if name.contains("Check") => 1024,
        name if name.contains("Plain") => 4096,
        _ => usize::MAX,
    };
    let blocks = n.div_ceil(128).next_power_of_two();
    let fits = |height: &Height| blocks * (2 * *height as usize + 32) <= most;
    [Height::Low, Height::High].into_iter().filter(fits).collect()
}

#[test]
fn new_rows_and_their_norm_are_near_the_reference_in_every_tiling() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        let (m, n, _) = size;
        let case = Case::new(&mut inputs, size);
        let (want, scale) = case.reference();
        let mut bits: Option<Run> = None;
        for stream in hopper_streams() {
            for height in heights(&stream, n) {
                let what = format!("{size:?} {height:?} {}", stream.describe());
                let run = case.run(&stream, height, 0..m);
                assert_near(&run.x, &want, |i| scale[i], PRODUCT_TOLERANCE, &what);
                let normed = ops::rms_norm::reference(&wide(&run.x), &wide(&case.weight), f64::from(EPS));
                let size = |i: usize| normed[i].abs();
                assert_near(&run.normed, &normed, size, ops::rms_norm::TOLERANCE.f32, &what);
                assert_same(&run.rounded, &rounded(&run.normed), &what);
                let bits = bits.get_or_insert_with(|| case.run_to(&stream, height, 0..m, false));
                assert_same(&run.x, &bits.x, &what);
                assert_same(&run.rounded, &bits.rounded, &what);
                assert!(bits.normed.iter().all(|&x| x == 0.0), "{what}: written though left out");
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (130, 256, 200));
    for stream in hopper_streams() {
        let all = case.run(&stream, Height::High, 0..130);
        for row in [0, 63, 64, 129] {
            let (alone, part) = (case.run(&stream, Height::Low, row..row + 1), row * 256..(row + 1) * 256);
            assert_same(&alone.x, &all.x[part.clone()], &format!("row {row}"));
            assert_same(&alone.normed, &all.normed[part], &format!("row {row}"));
        }
    }
}

/// Rows of zeros, where epsilon is all there is, and of what is not a number.
#[test]
fn odd_rows_stay_by_themselves() {
    let mut inputs = Inputs::new();
    let (m, n, k) = (67, 256, 72);
    let mut case = Case::new(&mut inputs, (m, n, k));
    case.a[..k].fill(bf16::ZERO);
    case.x[..n].fill(0.0);
    case.a[65 * k + 70] = bf16::NAN;
    for stream in hopper_streams() {
        let run = case.run(&stream, Height::High, 0..m);
        assert!(run.normed[..n].iter().all(|&y| y == 0.0));
        for (row, y) in run.normed.chunks(n).enumerate() {
            assert!(y.iter().all(|y| y.is_finite() == (row != 65)), "row {row}");
        }
    }
}
