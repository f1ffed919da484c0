//! [`beam_attention`](super::beam_attention::beam_attention) of heads of 64 by Hopper's own instructions: the blocks of a
//! cluster share a request's keys and join their sums through shared memory. Its sums are taken in another order than
//! those of `beam_attention`.

use half::bf16;

use super::beam_attention::{Beams, CrossKeys};
use super::launch::{LaunchShape, Stream, Swizzle};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "beam_attention_hopper";

    /// Heads of 64.
    fn beam_attention_hopper_64(q: TensorMap, kv: TensorMap, offsets: Ptr<u32>, out: PtrMut<bf16>, beams: u32);
}

/// Columns of a head.
pub const HEAD: usize = 64;

/// Beams of a cluster, and keys of a tile.
const ROWS: usize = 64;
const THREADS: u32 = 128;
/// The queries, four stages of keys and values, and two mbarriers for each stage.
const FIXED_BYTES: usize = (1 + 4 * 2) * ROWS * HEAD * 2 + 4 * 2 * 8;
/// Parts that a request's keys are cut into.
const PARTS: usize = 8;
/// What the threads leave of a part: 32 sums, two maxima and two sums of weights each.
const PART_BYTES: usize = (HEAD / 2 + 4) * THREADS as usize * 4;

/// How many blocks share the keys of 64 beams and a head. It decides about time alone, not about bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster {
    /// A block by itself.
    One = 1,
    /// Two blocks.
    Two = 2,
    /// Four blocks.
    Four = 4,
    /// Eight blocks.
    Eight = 8,
}

/// [`beam_attention`](super::beam_attention::beam_attention). Requests without keys get zeros. Tiles are copied whole: of
/// the rows behind a request's, up to the last that there is room for, any may be read and none counts.
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
///
/// # Panics
/// If the head size is not 64 or the stride is no multiple of 8.
pub fn beam_attention_hopper(
    stream: &dyn Stream,
    beams: Beams,
    cluster: Cluster,
    q: Ptr<bf16>,
    cross: CrossKeys,
    out: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    let Beams { requests, beams, heads, head_size, .. } = beams;
    let CrossKeys { keys, stride, rows, offsets } = cross;
    assert!(head_size == HEAD, "heads of {head_size} columns, expected {HEAD}");
    assert!(stride.is_multiple_of(8), "keys {stride} elements apart are not aligned to 16 bytes");
    stream.hopper()?;
    if requests * beams * heads == 0 {
        return Ok(());
    }
    let d = heads * HEAD;
    // Where there is no row the kernel does not look, but a map has at least one.
    let map = |array: Ptr<bf16>, sizes: [usize; 3]| {
        TensorMap::rows(stream, array, sizes, [HEAD, ROWS], Swizzle::Bytes128)
    };
    let (q, kv) = (map(q, [requests * beams, d, d])?, map(keys, [rows.max(1), 2 * d, stride])?);
    let blocks = cluster as usize;
    let grid = [beams.div_ceil(ROWS) * blocks, heads, requests].map(size);
    let shared_bytes = FIXED_BYTES + PARTS / blocks * PART_BYTES;
    let shape = LaunchShape::new(grid, THREADS).shared(size(shared_bytes)).clusters(size(blocks));
    beam_attention_hopper_64(stream, shape, q, kv, offsets, out, size(beams))
}
