//! Raw item embeddings, left in the mapped file and widened a row at a time.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;

use super::store::vec_bytes;

/// Element type of stored embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FloatType {
    F32,
    Bf16,
    F16,
}

impl FloatType {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// Where a catalog's original rows lie.
#[derive(Clone)]
enum Source {
    Memory(Arc<Vec<f32>>),
    Mapped { map: Arc<Mmap>, bytes: Range<usize>, dtype: FloatType },
}

/// A matrix [rows, width]: the original rows, shared by all snapshots, and rows inserted since.
#[derive(Clone)]
pub(super) struct Embeddings {
    width: usize,
    rows: usize,
    source: Source,
    inserted: Arc<Vec<f32>>,
}

impl Embeddings {
    /// A matrix [values.len() / width, width] in memory.
    pub(super) fn in_memory(values: Vec<f32>, width: usize) -> Self {
        let rows = values.len() / width;
        Self { width, rows, source: Source::Memory(Arc::new(values)), inserted: Arc::default() }
    }

    /// A matrix of `width` columns at `bytes` of a mapped file, little-endian, with any alignment.
    pub(super) fn mapped(map: Arc<Mmap>, bytes: Range<usize>, dtype: FloatType, width: usize) -> Self {
        let rows = bytes.len() / (width * dtype.bytes());
        Self { width, rows, source: Source::Mapped { map, bytes, dtype }, inserted: Arc::default() }
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows + self.inserted.len() / self.width
    }

    /// Bytes it holds in memory; a mapped file is not held.
    pub(super) fn bytes(&self) -> usize {
        let original = match &self.source {
            Source::Memory(values) => vec_bytes(values),
            Source::Mapped { .. } => 0,
        };
        original + vec_bytes(&self.inserted)
    }

    /// Widens row `row` to f32 into `out` `[width]`.
    pub(super) fn read(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.width, "room for one embedding");
        if row >= self.rows {
            let at = (row - self.rows) * self.width;
            out.copy_from_slice(&self.inserted[at..at + self.width]);
            return;
        }
        match &self.source {
            Source::Memory(values) => out.copy_from_slice(&values[row * self.width..(row + 1) * self.width]),
            Source::Mapped { map, bytes, dtype } => {
                let row_bytes = self.width * dtype.bytes();
                let start = bytes.start + row * row_bytes;
                widen(&map[start..start + row_bytes], *dtype, out);
            }
        }
    }

    /// For each row, whether it is free of NaN and infinities.
    pub(super) fn finite_rows(&self) -> Vec<bool> {
        let mut finite = vec![true; self.rows()];
        finite.par_chunks_mut(4096).enumerate().for_each(|(chunk, finite)| {
            let mut row = vec![0.0; self.width];
            for (i, finite) in finite.iter_mut().enumerate() {
                self.read(chunk * 4096 + i, &mut row);
                *finite = all_finite(&row);
            }
        });
        finite
    }

    /// Appends rows [values.len() / width, width].
    pub(super) fn append(&mut self, values: &[f32]) {
        Arc::make_mut(&mut self.inserted).extend_from_slice(values);
    }
}

/// Whether no value is a NaN or an infinity.
pub(super) fn all_finite(values: &[f32]) -> bool {
    // Without a short cut, so that it vectorizes.
    values.iter().fold(true, |finite, value| finite & value.is_finite())
}

fn widen(bytes: &[u8], dtype: FloatType, out: &mut [f32]) {
    match dtype {
        FloatType::F32 => {
            for (out, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*b);
            }
        }
        FloatType::Bf16 => {
            for (out, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = bf16::from_le_bytes(*b).to_f32();
            }
        }
        FloatType::F16 => {
            for (out, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = f16::from_le_bytes(*b).to_f32();
            }
        }
    }
}
