//! Root-mean-square norm in f32, with the bits of the CPU.

use super::launch::{Buffer, LaunchShape, Stream};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "rms_norm_f32";

    /// `y = x / sqrt(mean(x^2) + eps) * weight`, [rows, d].
    fn rms_norm_f32(x: Ptr<f32>, weight: Ptr<f32>, eps: f32, rows: u32, d: u32, y: PtrMut<f32>);
}

const THREADS: u32 = 256;
const ROWS_PER_BLOCK: usize = 16;

/// The norm of the first `rows` rows of `x` [rows, d] into `y`, with `weight` `[d]`.
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn rms_norm(
    stream: &dyn Stream,
    x: &Buffer<f32>,
    rows: usize,
    weight: &Buffer<f32>,
    eps: f32,
    y: &mut Buffer<f32>,
) -> Result<(), DeviceError> {
    let d = weight.len();
    assert!(x.len() >= rows * d && y.len() >= rows * d);
    if rows == 0 || d == 0 {
        return Ok(());
    }
    let shape = LaunchShape::new([size(rows.div_ceil(ROWS_PER_BLOCK)), 1, 1], THREADS);
    rms_norm_f32(stream, shape, x.ptr(), weight.ptr(), eps, size(rows), size(d), y.ptr_mut())
}
