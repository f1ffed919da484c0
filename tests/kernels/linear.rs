//! Products.

use std::sync::Arc;

use bidslate::cuda::launch::{Buffer, PtrMut, Stream};
use bidslate::cuda::linear::{Output, Product, linear, linear_in};
use bidslate::cuda::tiling::Width;
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

const WIDTHS: [Width; 2] = [Width::Narrow, Width::Wide];

struct Case {
    m: usize,
    n: usize,
    k: usize,
    x: Vec<bf16>,
    w: Vec<bf16>,
    before: Vec<f32>,
}

impl Case {
    fn new(inputs: &mut Inputs, (m, n, k): (usize, usize, usize)) -> Self {
        let (x, w) = (narrow(&inputs.numbers(m * k)), narrow(&inputs.numbers(n * k)));
        Self { m, n, k, x, w, before: inputs.numbers(m * n) }
    }

    /// Runs the product of rows `rows` into a y that holds `before`.
    fn run<T: bidslate::cuda::launch::Element>(
        &self,
        stream: &Arc<dyn Stream>,
        width: Width,
        rows: std::ops::Range<usize>,
        before: &[T],
        output: impl Fn(PtrMut<T>) -> Output,
    ) -> Vec<T> {
        let Self { n, k, .. } = *self;
        let x = Buffer::from_slice(stream, &self.x[rows.start * k..rows.end * k]).unwrap();
        let w = Buffer::from_slice(stream, &self.w).unwrap();
        let mut y = Buffer::from_slice(stream, before).unwrap();
        let product = Product { x: x.ptr(), w: w.ptr(), m: rows.len(), n, k };
        linear_in(&**stream, width, product, output(y.ptr_mut())).unwrap();
        y.to_vec().unwrap()
    }

    fn f32(&self, stream: &Arc<dyn Stream>, width: Width, rows: std::ops::Range<usize>) -> Vec<f32> {
        let y = vec![f32::NAN; rows.len() * self.n];
        self.run(stream, width, rows, &y, Output::F32)
    }
}

#[test]
fn a_product_is_near_the_reference_in_tiles_of_every_width() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        let case = Case::new(&mut inputs, size);
        let (x, w) = (wide_bf16(&case.x), wide_bf16(&case.w));
        let want = ops::linear::reference(&x, case.m, &w, case.k);
        let scale = ops::linear::reference(&absolute(&x), case.m, &absolute(&w), case.k);
        let mut bits: Option<Vec<f32>> = None;
        for stream in streams() {
            for width in WIDTHS {
                let what = format!("{size:?} {width:?} {}", stream.describe());
                let sums = case.f32(&stream, width, 0..case.m);
                assert_near(&sums, &want, |i| scale[i], PRODUCT_TOLERANCE, &what);
                assert_same(&sums, bits.get_or_insert_with(|| sums.clone()), &what);

                let y = vec![bf16::NAN; case.m * case.n];
                let stored = case.run(&stream, width, 0..case.m, &y, Output::Bf16);
                assert_same(&plain(&stored), &rounded(&sums), &what);

                let added = case.run(&stream, width, 0..case.m, &case.before, Output::Add);
                let want: Vec<f32> =
                    case.before.iter().zip(&sums).map(|(before, sum)| before + sum).collect();
                assert_same(&added, &want, &what);
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (70, 66, 136));
    for stream in streams() {
        let all = case.f32(&stream, Width::Narrow, 0..case.m);
        for row in [0, 31, 63, 64, 69] {
            let alone = case.f32(&stream, Width::Wide, row..row + 1);
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
        for (row, y) in case.f32(&stream, Width::Narrow, 0..66).chunks(case.n).enumerate() {
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
