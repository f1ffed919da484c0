//! [`crate::ops::rms_norm`] on the GPU.

use half::bf16;

use crate::cuda::launch::{LaunchShape, Stream};
use crate::cuda::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "norm";

    /// The norm of each row of `x` [m, d], to `y` and, rounded, to `rounded`; either may be null.
    fn rms_norm(
        x: Ptr<f32>,
        weight: Ptr<f32>,
        y: PtrMut<f32>,
        rounded: PtrMut<bf16>,
        m: u32,
        d: u32,
        eps: f32,
    );
}

/// Rows of a block.
const ROWS: usize = 8;

/// Root-mean-square norm of the `m` rows of `x` [m, d] with `weight` `[d]`: to `y` [m, d] and, rounded, to `rounded`
/// [m, d], each unless null.
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// If d is odd.
#[allow(clippy::too_many_arguments)]
pub fn norm(
    stream: &dyn Stream,
    x: Ptr<f32>,
    weight: Ptr<f32>,
    m: usize,
    d: usize,
    eps: f32,
    y: PtrMut<f32>,
    rounded: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    assert!(d.is_multiple_of(2), "rows of {d} columns: they are read in pairs");
    if m == 0 {
        return Ok(());
    }
    let shape = LaunchShape::new([size(m.div_ceil(ROWS)), 1, 1], 32 * ROWS as u32);
    rms_norm(stream, shape, x, weight, y, rounded, size(m), size(d), eps)
}
