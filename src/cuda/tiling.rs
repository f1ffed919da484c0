//! How products are cut into tiles. It decides how fast they are, never what they give.

/// Rows of a tile.
pub const ROWS: usize = 64;

/// The most rows of a product: its tiles of rows count along y, of which a grid has 65,535.
pub const MOST_ROWS: usize = 65_535 * ROWS;

/// Blocks that keep a large card busy: two for each of 132 multiprocessors.
pub const BUSY_BLOCKS: usize = 264;

/// Columns of a product's tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 64 columns: more blocks.
    Narrow,
    /// 128 columns: fewer bytes read per product.
    Wide,
}

impl Width {
    /// Wide where that leaves enough blocks for products of [m, n].
    pub fn of(m: usize, n: usize) -> Self {
        let blocks = m.div_ceil(ROWS) * n.div_ceil(Self::Wide.columns());
        if blocks >= BUSY_BLOCKS { Self::Wide } else { Self::Narrow }
    }

    /// Columns of a tile.
    pub fn columns(self) -> usize {
        match self {
            Self::Narrow => 64,
            Self::Wide => 128,
        }
    }
}

/// A size or count as kernels take it.
///
/// # Panics
/// If it does not fit: device memory would have to hold more than 2^32 elements' rows.
pub fn size(size: usize) -> u32 {
    u32::try_from(size).unwrap_or_else(|_| panic!("{size} is more than kernels can count"))
}
