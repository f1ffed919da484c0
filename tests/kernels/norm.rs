//! The norm of rows.

use std::sync::Arc;

use bidslate::cuda::launch::{Buffer, PtrMut, Stream};
use bidslate::cuda::norm::norm;
use bidslate::ops;
use half::bf16;

use crate::numbers::*;
use crate::setup::*;
use crate::streams::streams;

pub const EPS: f32 = 1e-6;

/// The norm of the rows of `x`, in f32 and in bf16.
pub fn run(stream: &Arc<dyn Stream>, x: &[f32], weight: &[f32], eps: f32) -> (Vec<f32>, Vec<bf16>) {
    let d = weight.len();
    let (x, weight) = (Buffer::from_slice(stream, x).unwrap(), Buffer::from_slice(stream, weight).unwrap());
    let mut y = Buffer::new(stream, x.len()).unwrap();
    let mut rounded = Buffer::new(stream, x.len()).unwrap();
    let m = x.len() / d;
    norm(&**stream, x.ptr(), weight.ptr(), m, d, eps, y.ptr_mut(), rounded.ptr_mut()).unwrap();
    (y.to_vec().unwrap(), rounded.to_vec().unwrap())
}

#[test]
fn the_norm_is_near_the_reference() {
    let mut inputs = Inputs::new();
    for (m, d) in [(0, 64), (1, 2), (1, 32), (7, 96), (8, 64), (9, 130), (17, 1024)] {
        let weight = inputs.numbers(d);
        let mut x = inputs.numbers(m * d);
        // A row of zeros, where epsilon is all there is.
        x[m / 2 * d..].iter_mut().take(d).for_each(|x| *x = 0.0);
        let want = ops::rms_norm::reference(&wide(&x), &wide(&weight), f64::from(EPS));
        for stream in streams() {
            let what = format!("{m} x {d} {}", stream.describe());
            let (y, bf16) = run(&stream, &x, &weight, EPS);
            assert_near(&y, &want, |i| want[i].abs(), ops::rms_norm::TOLERANCE.f32, &what);
            assert_same(&plain(&bf16), &rounded(&y), &what);
        }
    }
}

#[test]
fn either_output_may_be_left_out() {
    let mut inputs = Inputs::new();
    let (m, d) = (3, 64);
    let (x, weight) = (inputs.numbers(m * d), inputs.numbers(d));
    for stream in streams() {
        let (want, want_rounded) = run(&stream, &x, &weight, EPS);
        let x = Buffer::from_slice(&stream, &x).unwrap();
        let weight = Buffer::from_slice(&stream, &weight).unwrap();
        let mut y = Buffer::<f32>::new(&stream, m * d).unwrap();
        norm(&*stream, x.ptr(), weight.ptr(), m, d, EPS, y.ptr_mut(), PtrMut::NULL).unwrap();
        assert_same(&y.to_vec().unwrap(), &want, "f32 alone");
        let mut y = Buffer::<bf16>::new(&stream, m * d).unwrap();
        norm(&*stream, x.ptr(), weight.ptr(), m, d, EPS, PtrMut::NULL, y.ptr_mut()).unwrap();
        assert_same(&plain(&y.to_vec().unwrap()), &plain(&want_rounded), "bf16 alone");
    }
}
