//! [`crate::ops::cached_attention`] on the GPU, in f32, with the newest position appended to the cache on the way.

use half::bf16;

use crate::cuda::launch::{LaunchShape, Stream};
use crate::cuda::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "beam_self_attention";

    /// Heads of 32.
    fn beam_self_attention_32(
        qkv: Ptr<f32>,
        keys: PtrMut<f32>,
        values: PtrMut<f32>,
        ancestors: Ptr<u32>,
        newest: Ptr<u32>,
        out: PtrMut<bf16>,
        rows: u32,
        heads: u32,
        beams: u32,
        positions: u32,
    );
    /// Heads of 64.
    fn beam_self_attention_64(
        qkv: Ptr<f32>,
        keys: PtrMut<f32>,
        values: PtrMut<f32>,
        ancestors: Ptr<u32>,
        newest: Ptr<u32>,
        out: PtrMut<bf16>,
        rows: u32,
        heads: u32,
        beams: u32,
        positions: u32,
    );
    /// Heads of 128.
    fn beam_self_attention_128(
        qkv: Ptr<f32>,
        keys: PtrMut<f32>,
        values: PtrMut<f32>,
        ancestors: Ptr<u32>,
        newest: Ptr<u32>,
        out: PtrMut<bf16>,
        rows: u32,
        heads: u32,
        beams: u32,
        positions: u32,
    );
}

/// Warps of a block: each has a row and head.
const WARPS: usize = 4;

/// Keys and values of a block's own positions, appended to and never reordered. Aligned to 16 bytes.
#[derive(Debug, Clone, Copy)]
pub struct SelfCache {
    /// `[positions][rows][d]`
    pub keys: PtrMut<f32>,
    /// `[positions][rows][d]`
    pub values: PtrMut<f32>,
    /// The row of its request, from 0, that ran a row's prefix at an earlier position: [rows, positions]. Entries from
    /// the newest position on are not read. Null: every row is its own ancestor.
    pub ancestors: Ptr<u32>,
    /// Positions that there is room for.
    pub positions: usize,
    /// The position that the rows now run, `[1]`, below `positions`.
    pub newest: Ptr<u32>,
}

/// Sizes of the rows of a decoder.
#[derive(Debug, Clone, Copy)]
pub struct DecoderRows {
    /// Rows of all requests.
    pub rows: usize,
    /// Rows of a request: `rows` is a multiple.
    pub beams: usize,
    /// Heads.
    pub heads: usize,
    /// 32, 64 or 128.
    pub head_size: usize,
}

/// Appends the newest keys and values of `qkv` [rows, 3 d] to the cache and attends each row to its past and itself;
/// `out` is [rows, d]. Both aligned to 16 bytes.
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// If the head size is not 32, 64 or 128 or the rows are not in whole requests.
pub fn beam_self_attention(
    stream: &dyn Stream,
    sizes: DecoderRows,
    qkv: Ptr<f32>,
    cache: SelfCache,
    out: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    let DecoderRows { rows, beams, heads, head_size } = sizes;
    let kernel = match head_size {
        32 => beam_self_attention_32,
        64 => beam_self_attention_64,
        128 => beam_self_attention_128,
        _ => panic!("heads of {head_size} columns"),
    };
    if rows == 0 || heads == 0 {
        return Ok(());
    }
    assert!(beams > 0 && rows.is_multiple_of(beams), "{rows} rows in requests of {beams}");
    let SelfCache { keys, values, ancestors, positions, newest } = cache;
    let shape = LaunchShape::new([size((rows * heads).div_ceil(WARPS)), 1, 1], 32 * WARPS as u32);
    let (rows, heads, beams) = (size(rows), size(heads), size(beams));
    kernel(stream, shape, qkv, keys, values, ancestors, newest, out, rows, heads, beams, size(positions))
}
