//! [`attention`](super::attention::attention) for heads of 64 by Hopper's own instructions: bulk copies and wgmma. Its
//! sums are taken in another order than those of `attention`.

use half::bf16;

use super::launch::{LaunchShape, Stream, Swizzle};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "attention_hopper";

    /// Heads of 64.
    fn attention_hopper_64(qkv: TensorMap, offsets: Ptr<u32>, out: PtrMut<bf16>);
}

/// Columns of a head.
pub const HEAD_SIZE: usize = 64;
/// Query rows of a block, and keys of a tile.
const ROWS: usize = 128;
/// A warpgroup that copies and two that multiply.
const THREADS: u32 = 384;
/// The queries, eight stages of keys or values, two mbarriers for each stage and two besides.
const SHARED_BYTES: usize = 9 * ROWS * HEAD_SIZE * 2 + (2 * 8 + 2) * 8;

/// Attention of every row to all rows of its request.
///
/// `qkv` is [rows, 3 d], queries, keys and values side by side, aligned to 16 bytes, d = heads * 64; request i has rows
/// `offsets[i]..offsets[i + 1]`, at most `longest`; `out` is [rows, d], aligned to 4 bytes.
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
#[allow(clippy::too_many_arguments)]
pub fn attention_hopper(
    stream: &dyn Stream,
    qkv: Ptr<bf16>,
    rows: usize,
    offsets: Ptr<u32>,
    requests: usize,
    longest: usize,
    heads: usize,
    out: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    stream.hopper()?;
    if requests == 0 || longest == 0 || heads == 0 {
        return Ok(());
    }
    let width = 3 * heads * HEAD_SIZE;
    let qkv = TensorMap::rows(stream, qkv, [rows, width, width], [HEAD_SIZE, ROWS], Swizzle::Bytes128)?;
    let grid = [longest.div_ceil(ROWS), heads, requests].map(size);
    let shape = LaunchShape::new(grid, THREADS).shared(size(SHARED_BYTES));
    attention_hopper_64(stream, shape, qkv, offsets, out)
}
