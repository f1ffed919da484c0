//! What the kernels that norm rows and multiply them share: the rows, and how the work is cut.

use crate::cuda::launch::{LaunchShape, Ptr};
use crate::cuda::tiling::{BUSY_BLOCKS, ROWS, Width, size};

/// Most columns of rows that fit into a block's shared memory.
pub const MOST_COLUMNS: usize = 1024;

/// Threads of a block.
const THREADS: u32 = 256;

/// Bytes of the ring that weights stream through.
const RING_BYTES: usize = 32 << 10;

/// Shared memory of a block that norms rows of `d` columns.
pub(crate) fn shared_bytes(d: usize) -> usize {
    ROWS * d.next_multiple_of(64) * 2 + RING_BYTES
}

/// Rows to be normed, rounded to bf16 and multiplied.
#[derive(Debug, Clone, Copy)]
pub struct NormedRows {
    /// [m, d], aligned to 8 bytes.
    pub x: Ptr<f32>,
    /// The norm's weight `[d]`; null takes the rows as they are.
    pub weight: Ptr<f32>,
    /// Rows.
    pub m: usize,
    /// Columns, a multiple of 8 up to 1,024.
    pub d: usize,
    /// The norm's epsilon.
    pub eps: f32,
}

/// How a product with normed rows is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of weights in a tile.
    pub width: Width,
    /// Tiles that a block makes of its normed rows, at least 1.
    pub tiles_per_block: usize,
}

impl Tiling {
    /// For products of `m` rows with `n` rows of weights: blocks for all of a card first, then few norms.
    pub fn of(m: usize, n: usize) -> Self {
        let width = Width::of(m, n);
        let (rows, tiles) = (m.div_ceil(ROWS), n.div_ceil(width.columns()));
        Self { width, tiles_per_block: (rows * tiles / BUSY_BLOCKS).clamp(1, tiles.max(1)) }
    }

    /// The launch for `rows` and `n` rows of weights, and the number of tiles of a block.
    pub(crate) fn shape(self, rows: &NormedRows, n: usize) -> (LaunchShape, u32) {
        let (m, d) = (rows.m, rows.d);
        assert!(d.is_multiple_of(8) && d <= MOST_COLUMNS, "rows of {d} columns do not fit");
        assert!(self.tiles_per_block > 0, "blocks without tiles");
        let blocks = n.div_ceil(self.width.columns()).div_ceil(self.tiles_per_block);
        let shared = shared_bytes(d);
        let shape = LaunchShape::new([size(blocks), size(m.div_ceil(ROWS)), 1], THREADS).shared(size(shared));
        (shape, size(self.tiles_per_block))
    }
}
