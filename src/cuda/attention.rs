//! [`crate::ops::attention`] of ragged requests over their own rows, on the GPU in bf16.

use half::bf16;

use crate::cuda::launch::{LaunchShape, Stream};
use crate::cuda::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "attention";

    /// Heads of 32.
    fn attention_32(qkv: Ptr<bf16>, offsets: Ptr<u32>, out: PtrMut<bf16>);
    /// Heads of 64.
    fn attention_64(qkv: Ptr<bf16>, offsets: Ptr<u32>, out: PtrMut<bf16>);
    /// Heads of 128.
    fn attention_128(qkv: Ptr<bf16>, offsets: Ptr<u32>, out: PtrMut<bf16>);
}

/// Query rows of a block, and keys of a tile.
pub(crate) const ROWS: usize = 64;

/// Blocks of attention over `grid` tiles, heads and requests.
pub(crate) fn shape(grid: [usize; 3], head_size: usize) -> LaunchShape {
    // The queries, and two stages of keys and values.
    LaunchShape::new(grid.map(size), 128).shared(size(5 * ROWS * head_size * 2))
}

/// Attention of every row to all rows of its request.
///
/// `qkv` is [T, 3 d], queries, keys and values side by side, aligned to 16 bytes, d = heads * head_size; request i has
/// rows `offsets[i]..offsets[i + 1]`, at most `longest`; `out` is [T, d], aligned to 4 bytes.
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// If the head size is not 32, 64 or 128.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    stream: &dyn Stream,
    qkv: Ptr<bf16>,
    offsets: Ptr<u32>,
    requests: usize,
    longest: usize,
    heads: usize,
    head_size: usize,
    out: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    let kernel = match head_size {
        32 => attention_32,
        64 => attention_64,
        128 => attention_128,
        _ => panic!("heads of {head_size} columns"),
    };
    if requests == 0 || longest == 0 || heads == 0 {
        return Ok(());
    }
    kernel(stream, shape([longest.div_ceil(ROWS), heads, requests], head_size), qkv, offsets, out)
}
