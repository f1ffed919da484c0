//! The encoder's products with what follows them as their epilogues, for Hopper, and a residual product with the norm as a
//! kernel of its own.

use bidslate::cuda::launch::PtrMut;
use bidslate::cuda::linear::{Output, Product, linear};
use bidslate::cuda::linear_norm_hopper::{Residual, linear_norm_hopper};
use bidslate::cuda::linear_rotary_hopper::linear_rotary_hopper;
use bidslate::cuda::linear_swiglu_hopper::linear_swiglu_hopper;
use bidslate::cuda::norm::norm;
use bidslate::cuda::norm_linear::{Positions, Rotation};
use bidslate::error::DeviceError;
use criterion::Criterion;

use crate::device::{Cache, Device};
use crate::products::{EPS, flops};

const HEAD_SIZE: usize = 64;

/// All products of a block with m rows of d columns.
pub fn bench(criterion: &mut Criterion, device: &Device, m: usize, d: usize) {
    let hopper = device.stream.hopper().is_ok();
    if hopper {
        turned(criterion, device, m, 3 * d, d);
        gated(criterion, device, m, 3 * d, d);
    }
    for k in [d, 3 * d] {
        residual(criterion, device, "linear_norm", [m, d, k], &|product, to| {
            let Residual { x, weight, eps, normed, rounded } = to;
            linear(&*device.stream, product, Output::Add(x))?;
            norm(&*device.stream, x.read(), weight, m, d, eps, normed, rounded)
        });
        if hopper {
            residual(criterion, device, "linear_norm_hopper", [m, d, k], &|product, to| {
                linear_norm_hopper(&*device.stream, product, to)
            });
        }
    }
}

/// `y = rotary(x W^T)` in bf16, of which queries and keys turn.
fn turned(criterion: &mut Criterion, device: &Device, m: usize, n: usize, k: usize) {
    let bytes = 2 * (m * k + n * k + m * n);
    let (x, w) = (device.rotated(m * k, bytes), device.rotated(n * k, bytes));
    let angles = device.upload(&device.numbers(device.tokens() * HEAD_SIZE));
    let positions: Vec<u32> = (0..m).map(|row| (row % device.tokens()) as u32).collect();
    let positions = device.upload(&positions);
    let rotation = Rotation {
        columns: n / 3 * 2,
        head_size: HEAD_SIZE,
        angles: angles.ptr(),
        positions: Positions::Each(positions.ptr()),
    };
    let mut y = device.rotated(m * n, bytes);
    let name = format!("linear_rotary_hopper {m}x{n}x{k}");
    device.bench(criterion, &name, flops(m, n, k), Cache::Warm, |run| {
        let at = run % x.len();
        let product = Product { x: x[at].ptr(), w: w[at].ptr(), m, n, k };
        linear_rotary_hopper(&*device.stream, product, rotation, y[at].ptr_mut())
    });
}

/// `silu(x gate^T) * (x up^T)`.
fn gated(criterion: &mut Criterion, device: &Device, m: usize, ffn: usize, k: usize) {
    let bytes = 2 * (m * k + 2 * ffn * k + m * ffn);
    let (x, w) = (device.rotated(m * k, bytes), device.rotated(2 * ffn * k, bytes));
    let mut hidden = device.rotated(m * ffn, bytes);
    let name = format!("linear_swiglu_hopper {m}x{ffn}x{k}");
    device.bench(criterion, &name, flops(m, 2 * ffn, k), Cache::Warm, |run| {
        let at = run % x.len();
        let product = Product { x: x[at].ptr(), w: w[at].ptr(), m, n: 2 * ffn, k };
        linear_swiglu_hopper(&*device.stream, product, hidden[at].ptr_mut())
    });
}

/// What computes a residual product and the norm behind it.
type Code<'a> = dyn Fn(Product, Residual) -> Result<(), DeviceError> + 'a;

/// `x += a W^T` and the new x, normed, in bf16.
fn residual(criterion: &mut Criterion, device: &Device, name: &str, [m, n, k]: [usize; 3], code: &Code) {
    let bytes = 2 * (m * k + n * k + m * n) + 8 * m * n;
    let (a, w) = (device.rotated(m * k, bytes), device.rotated(n * k, bytes));
    let weight = device.upload(&vec![1.0f32; n]);
    let mut x = device.rotated_f32(m * n, bytes);
    let mut rounded = device.rotated(m * n, bytes);
    device.bench(criterion, &format!("{name} {m}x{n}x{k}"), flops(m, n, k), Cache::Warm, |run| {
        let at = run % a.len();
        let (a, w) = (a[at].ptr(), w[at].ptr());
        let (x, rounded) = (x[at].ptr_mut(), rounded[at].ptr_mut());
        let to = Residual { x, weight: weight.ptr(), eps: EPS, normed: PtrMut::NULL, rounded };
        code(Product { x: a, w, m, n, k }, to)
    });
}
