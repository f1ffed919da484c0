//! RMSNorm, gate and up projections and `silu(gate) * up` in one kernel: the first half of the feed-forward layer.

use half::bf16;

use crate::cuda::launch::Stream;
pub use crate::cuda::norm_product::{NormedRows, Tiling};
use crate::cuda::tiling::{Width, size};
use crate::error::DeviceError;

crate::kernels! {
    in "swiglu";

    /// Tiles of 64 rows of weights.
    fn swiglu_64(
        x: Ptr<f32>,
        weight: Ptr<f32>,
        w: Ptr<bf16>,
        hidden: PtrMut<bf16>,
        m: u32,
        ffn: u32,
        d: u32,
        eps: f32,
        tiles_per_block: u32,
    );
    /// Tiles of 128 rows of weights.
    fn swiglu_128(
        x: Ptr<f32>,
        weight: Ptr<f32>,
        w: Ptr<bf16>,
        hidden: PtrMut<bf16>,
        m: u32,
        ffn: u32,
        d: u32,
        eps: f32,
        tiles_per_block: u32,
    );
}

/// Rows of gate, then of up, that alternate in the weights.
const RUN: usize = 16;

/// The weights as [`swiglu`] takes them: of `gate` and `up`, both [ffn, d], 16 rows of the one, 16 of the other, and so
/// on.
///
/// # Panics
/// If the two differ in size or ffn is no multiple of 16.
pub fn interleave<T: Copy>(gate: &[T], up: &[T], d: usize) -> Vec<T> {
    assert!(
        gate.len() == up.len() && gate.len().is_multiple_of(RUN * d),
        "gate and up in runs of {RUN} rows"
    );
    let runs = gate.chunks(RUN * d).zip(up.chunks(RUN * d));
    runs.flat_map(|(gate, up)| gate.iter().chain(up)).copied().collect()
}

/// `hidden = silu(h gate^T) * (h up^T)` [m, ffn], h = rms_norm(x); `w` is [`interleave`]d, [2 ffn, d], aligned to 16
/// bytes.
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// If the sizes are not as [`NormedRows`] says, or ffn is no multiple of 16.
pub fn swiglu(
    stream: &dyn Stream,
    rows: NormedRows,
    w: Ptr<bf16>,
    ffn: usize,
    hidden: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    swiglu_in(stream, Tiling::of(rows.m, 2 * ffn), rows, w, ffn, hidden)
}

/// [`swiglu`] cut by `tiling`: the same bits for every one.
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// As [`swiglu`].
pub fn swiglu_in(
    stream: &dyn Stream,
    tiling: Tiling,
    rows: NormedRows,
    w: Ptr<bf16>,
    ffn: usize,
    hidden: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    assert!(ffn.is_multiple_of(RUN), "a width of {ffn}: gate and up alternate in runs of {RUN}");
    let (shape, tiles) = tiling.shape(&rows, 2 * ffn);
    if rows.m == 0 || ffn == 0 {
        return Ok(());
    }
    let NormedRows { x, weight, m, d, eps } = rows;
    let (m, ffn, d) = (size(m), size(ffn), size(d));
    match tiling.width {
        Width::Narrow => swiglu_64(stream, shape, x, weight, w, hidden, m, ffn, d, eps, tiles),
        Width::Wide => swiglu_128(stream, shape, x, weight, w, hidden, m, ffn, d, eps, tiles),
    }
}
