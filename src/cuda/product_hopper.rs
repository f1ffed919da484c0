//! What the kernels share that multiply by bulk copies and wgmma: how their work is cut, and their operands.

use super::launch::{LaunchShape, Stream, Swizzle, TensorMap};
use super::linear::Product;
use super::tiling::size;
use crate::error::DeviceError;

/// Columns of a tile: so many rows of w are copied at once.
pub const COLUMNS: usize = 128;
/// Columns of x and of w that are copied at once: 128 bytes, the period of the swizzle.
const DEPTH: usize = 64;
/// The ring of both operands, and the mbarriers of its stages.
const SHARED_BYTES: usize = (96 << 10) + 2 * 4 * 8;
/// Multiprocessors of a large card.
const MULTIPROCESSORS: usize = 132;

/// Rows of a product's tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Height {
    /// 64 rows: more blocks.
    Low = 64,
    /// 128 rows: fewer bytes read per product.
    High = 128,
}

/// How a product is cut. It decides about time alone, not about bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of a tile.
    pub height: Height,
    /// Blocks of a cluster, which share the rows of x: 1, 2, 4 or 8.
    pub cluster: usize,
}

impl Tiling {
    /// For products of [m, n]: low tiles, each by itself, where all of them run at once, one to a multiprocessor; else
    /// high ones that share rows of x. From counted bytes and FLOPs, not measured.
    pub fn of(m: usize, n: usize) -> Self {
        match Height::of(m, n) {
            Height::Low => Self { height: Height::Low, cluster: 1 },
            Height::High if n.div_ceil(COLUMNS).is_multiple_of(2) => {
                Self { height: Height::High, cluster: 2 }
            }
            Height::High => Self { height: Height::High, cluster: 1 },
        }
    }

    /// For products whose epilogue needs whole rows of `n` columns: a cluster has them, with up to 8 blocks of which some
    /// may stand past the last column.
    pub fn of_rows(m: usize, n: usize) -> Self {
        Self { height: Height::of(m, n), cluster: blocks_of_row(n) }
    }

    /// The launch for a product of [m, n], with `more` bytes of shared memory for the epilogue.
    pub(crate) fn shape(self, m: usize, n: usize, more: usize) -> LaunchShape {
        let rows = self.height as usize;
        let tiles = n.div_ceil(COLUMNS).next_multiple_of(self.cluster);
        let grid = [tiles, m.div_ceil(rows), 1].map(size);
        let shape = LaunchShape::new(grid, size(2 * rows + 32)).shared(size(SHARED_BYTES + more));
        shape.clusters(size(self.cluster))
    }

    /// x and w as the kernels take them.
    pub(crate) fn operands(
        self,
        stream: &dyn Stream,
        product: Product,
    ) -> Result<[TensorMap; 2], DeviceError> {
        let Product { x, w, m, n, k } = product;
        assert!(k > 0 && k.is_multiple_of(8), "products of {k} columns: rows must be aligned to 16 bytes");
        let map = |array, rows: usize, side: usize| {
            TensorMap::rows(stream, array, [rows, k, k], [DEPTH, side], Swizzle::Bytes128)
        };
        Ok([map(x, m, self.height as usize / self.cluster)?, map(w, n, COLUMNS)?])
    }
}

impl Height {
    fn of(m: usize, n: usize) -> Self {
        let low = m.div_ceil(Self::Low as usize) * n.div_ceil(COLUMNS);
        if low <= MULTIPROCESSORS { Self::Low } else { Self::High }
    }
}

/// Blocks of the cluster that has whole rows of `n` columns.
pub(crate) fn blocks_of_row(n: usize) -> usize {
    n.div_ceil(COLUMNS).max(1).next_power_of_two()
}

/// Rows of weights, 16 of which are arranged together.
const RUN: usize = 16;

/// The rows of `w` [n, k] in the order in which the kernels with an epilogue take them: a thread has then four columns of
/// the product that follow one another.
///
/// # Panics
/// If n is no multiple of 16.
pub fn arrange<T: Copy>(w: &[T], k: usize) -> Vec<T> {
    assert!(w.len().is_multiple_of(RUN * k), "rows of weights in runs of {RUN}");
    let row_of = |slot: usize| slot % 8 / 2 * 4 + slot / 8 * 2 + slot % 2;
    let runs = w.chunks(RUN * k);
    let rows = runs.flat_map(|run| (0..RUN).map(move |slot| &run[row_of(slot) * k..][..k]));
    rows.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_low_while_all_run_at_once() {
        let cut = |height, cluster| Tiling { height, cluster };
        assert_eq!(Tiling::of(64, 1536), cut(Height::Low, 1));
        assert_eq!(Tiling::of(64 * 33, 512), cut(Height::Low, 1));
        assert_eq!(Tiling::of(64 * 33 + 1, 512), cut(Height::High, 2));
        assert_eq!(Tiling::of(10_000, 3 * 128), cut(Height::High, 1));
        assert_eq!(Tiling::of_rows(1792, 512), cut(Height::Low, 4));
        assert_eq!(Tiling::of_rows(10_000, 1024), cut(Height::High, 8));
        assert_eq!([1, 128, 129, 384, 640].map(blocks_of_row), [1, 1, 2, 4, 8]);
    }

    #[test]
    fn runs_of_sixteen_rows_are_arranged() {
        let w: Vec<usize> = (0..2 * 32).collect();
        let slots = [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15];
        let rows = slots.into_iter().chain(slots.map(|row| 16 + row));
        let expected: Vec<usize> = rows.flat_map(|row| [2 * row, 2 * row + 1]).collect();
        assert_eq!(arrange(&w, 2), expected);
    }
}
