//! Products.

use std::sync::Arc;

use bidslate::cuda::launch::{Buffer, PtrMut, Stream};
use bidslate::cuda::linear::{Output, Product, linear, linear_in};
use bidslate::cuda::tiling::Width;
use bidslate::error::DeviceError;
use bidslate::ops;
use half::bf16;

use crate::numbers::*;
use crate::setup::*;
use crate::streams::streams;

/// (m, n, k): nothing, one, odd, on both sides of a tile, of a warp's part and of the ring's stages.
const SIZES: [(usize, usize, usize); 9] = [
    (0, 5, 8),
    (1, 1, 8),
    (3, 7, 24),
    (33, 31, 40),
    (64, 64, 64),
    (65, 127, 72),
    (63, 129, 136),
    (2, 40, 328),
    (70, 130, 264),
];

/// What computes a product.
pub type Code = fn(&dyn Stream, Product, Output) -> Result<(), DeviceError>;

const NARROW: Code = |stream, product, y| linear_in(stream, Width::Narrow, product, y);
const WIDE: Code = |stream, product, y| linear_in(stream, Width::Wide, product, y);

pub struct Case {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub x: Vec<bf16>,
    w: Vec<bf16>,
    before: Vec<f32>,
}

impl Case {
    pub fn new(inputs: &mut Inputs, (m, n, k): (usize, usize, usize)) -> Self {
        let (x, w) = (narrow(&inputs.numbers(m * k)), narrow(&inputs.numbers(n * k)));
        Self { m, n, k, x, w, before: inputs.numbers(m * n) }
    }

    /// Runs the product of rows `rows` into a y that holds `before`.
    fn run<T: bidslate::cuda::launch::Element>(
        &self,
        stream: &Arc<dyn Stream>,
        code: Code,
        rows: std::ops::Range<usize>,
        before: &[T],
        output: impl Fn(PtrMut<T>) -> Output,
    ) -> Vec<T> {
        let Self { n, k, .. } = *self;
        let x = Buffer::from_slice(stream, &self.x[rows.start * k..rows.end * k]).unwrap();
        let w = Buffer::from_slice(stream, &self.w).unwrap();
        let mut y = Buffer::from_slice(stream, before).unwrap();
        let product = Product { x: x.ptr(), w: w.ptr(), m: rows.len(), n, k };
        code(&**stream, product, output(y.ptr_mut())).unwrap();
        y.to_vec().unwrap()
    }

    pub fn f32(&self, stream: &Arc<dyn Stream>, code: Code, rows: std::ops::Range<usize>) -> Vec<f32> {
        let y = vec![f32::NAN; rows.len() * self.n];
        self.run(stream, code, rows, &y, Output::F32)
    }

    /// Holds the product to the reference, its bf16 and its addition to its own bits; returns it.
    pub fn check(&self, stream: &Arc<dyn Stream>, code: Code) -> Vec<f32> {
        let what = format!("{} x {} x {} {}", self.m, self.n, self.k, stream.describe());
        let (x, w) = (wide_bf16(&self.x), wide_bf16(&self.w));
        let want = ops::linear::reference(&x, self.m, &w, self.k);
        let scale = ops::linear::reference(&absolute(&x), self.m, &absolute(&w), self.k);
        let sums = self.f32(stream, code, 0..self.m);
        assert_near(&sums, &want, |i| scale[i], PRODUCT_TOLERANCE, &what);

        let y = vec![bf16::NAN; self.m * self.n];
        let stored = self.run(stream, code, 0..self.m, &y, Output::Bf16);
        assert_same(&plain(&stored), &rounded(&sums), &what);

        let added = self.run(stream, code, 0..self.m, &self.before, Output::Add);
        let want: Vec<f32> = self.before.iter().zip(&sums).map(|(before, sum)| before + sum).collect();
        assert_same(&added, &want, &what);
        sums
    }
}

#[test]
fn a_product_is_near_the_reference_in_tiles_of_every_width() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        let case = Case::new(&mut inputs, size);
        let mut bits: Option<Vec<f32>> = None;
        for stream in streams() {
            for code in [NARROW, WIDE] {
                let sums = case.check(&stream, code);
                assert_same(&sums, bits.get_or_insert_with(|| sums.clone()), &stream.describe());
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (70, 66, 136));
    for stream in streams() {
        let all = case.f32(&stream, NARROW, 0..case.m);
        for row in [0, 31, 63, 64, 69] {
            let alone = case.f32(&stream, WIDE, row..row + 1);
            assert_same(&alone, &all[row * case.n..(row + 1) * case.n], &format!("row {row}"));
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    let mut inputs = Inputs::new();
    let mut case = Case::new(&mut inputs, (66, 40, 72));
    case.x[65 * case.k + 70] = bf16::NAN;
    for stream in streams() {
        for (row, y) in case.f32(&stream, NARROW, 0..66).chunks(case.n).enumerate() {
            assert!(y.iter().all(|y| y.is_finite() == (row != 65)), "row {row}");
        }
    }
}

#[test]
#[should_panic(expected = "aligned to 16 bytes")]
fn columns_that_do_not_fill_16_bytes_are_refused() {
    let stream = streams().remove(0);
    let x = Buffer::from_slice(&stream, &[bf16::ONE; 12]).unwrap();
    let mut y = Buffer::from_slice(&stream, &[0.0]).unwrap();
    let product = Product { x: x.ptr(), w: x.ptr(), m: 1, n: 1, k: 12 };
    let _ = linear(&*stream, product, Output::F32(y.ptr_mut()));
}
