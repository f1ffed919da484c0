//! Products of matrices, at the rows of a history and at those of 64 beams.

use bidslate::cuda::launch::{Buffer, PtrMut, Stream};
use bidslate::cuda::linear::{Output, Product, linear};
use bidslate::cuda::linear_hopper::linear_hopper;
use bidslate::cuda::norm_linear::{NormedRows, Projected, norm_linear};
use bidslate::cuda::swiglu::swiglu;
use bidslate::error::DeviceError;
use criterion::{Criterion, Throughput};

use crate::device::{Cache, Device};
use crate::fused;

pub const EPS: f32 = 1e-6;

pub fn bench(criterion: &mut Criterion, device: &Device) {
    for d in device.hidden_sizes() {
        for m in [device.pick(64, 5), device.tokens(), 8 * device.tokens()] {
            for (n, k) in [(d, d), (d, 3 * d)] {
                plain(criterion, device, "linear", linear, [m, n, k]);
                if device.stream.hopper().is_ok() {
                    plain(criterion, device, "linear_hopper", linear_hopper, [m, n, k]);
                }
            }
            normed(criterion, device, m, 3 * d, d);
            gated(criterion, device, m, 3 * d, d);
            fused::bench(criterion, device, m, d);
        }
    }
}

pub fn flops(m: usize, n: usize, k: usize) -> Throughput {
    Throughput::Elements((2 * m * n * k) as u64)
}

/// What computes a product.
type Code = fn(&dyn Stream, Product, Output) -> Result<(), DeviceError>;

/// `y = x W^T`, the output projections.
fn plain(criterion: &mut Criterion, device: &Device, name: &str, code: Code, [m, n, k]: [usize; 3]) {
    let bytes = 2 * (m * k + n * k) + 4 * m * n;
    let (x, w) = (device.rotated(m * k, bytes), device.rotated(n * k, bytes));
    let mut y: Vec<Buffer<f32>> = device.rotated_f32(m * n, bytes);
    device.bench(criterion, &format!("{name} {m}x{n}x{k}"), flops(m, n, k), Cache::Warm, |run| {
        let at = run % x.len();
        let product = Product { x: x[at].ptr(), w: w[at].ptr(), m, n, k };
        code(&*device.stream, product, Output::F32(y[at].ptr_mut()))
    });
}

/// `y = rms_norm(x) W^T` in bf16, the input projections without their rotation.
fn normed(criterion: &mut Criterion, device: &Device, m: usize, n: usize, d: usize) {
    let bytes = 4 * m * d + 2 * (n * d + m * n);
    let (x, w) = (device.rotated_f32(m * d, bytes), device.rotated(n * d, bytes));
    let weight = device.upload(&vec![1.0f32; d]);
    let mut y = device.rotated(m * n, bytes);
    device.bench(criterion, &format!("norm_linear {m}x{n}x{d}"), flops(m, n, d), Cache::Warm, |run| {
        let at = run % x.len();
        let rows = NormedRows { x: x[at].ptr(), weight: weight.ptr(), m, d, eps: EPS };
        let to = Projected::Bf16(y[at].ptr_mut());
        norm_linear(&*device.stream, rows, w[at].ptr(), n, None, PtrMut::NULL, to)
    });
}

/// `silu(h gate^T) * (h up^T)`, h = rms_norm(x).
fn gated(criterion: &mut Criterion, device: &Device, m: usize, ffn: usize, d: usize) {
    let bytes = 4 * m * d + 2 * (2 * ffn * d + m * ffn);
    let (x, w) = (device.rotated_f32(m * d, bytes), device.rotated(2 * ffn * d, bytes));
    let weight = device.upload(&vec![1.0f32; d]);
    let mut hidden = device.rotated(m * ffn, bytes);
    device.bench(criterion, &format!("swiglu {m}x{ffn}x{d}"), flops(m, 2 * ffn, d), Cache::Warm, |run| {
        let at = run % x.len();
        let rows = NormedRows { x: x[at].ptr(), weight: weight.ptr(), m, d, eps: EPS };
        swiglu(&*device.stream, rows, w[at].ptr(), ffn, hidden[at].ptr_mut())
    });
}
