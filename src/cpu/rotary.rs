//! [`crate::ops::rotary`] on the CPU.

use std::ops::Range;

use crate::cpu::Exec;
use crate::cpu::exec::part;
use crate::cpu::isa::{Kernel, Machine};
use crate::cpu::shared::Shared;

/// Cosines and sines of the rotary embedding, for every position and pair of dimensions.
pub struct Rotary {
    head_size: usize,
    /// Per position: head_size / 2 cosines, then as many sines.
    table: Vec<f32>,
}

impl Rotary {
    /// The table for positions `0..max_positions`: pair i turns by `position * theta^(-2 i / head_size)`, computed in
    /// f64. `head_size` is even.
    pub fn new(theta: f64, head_size: usize, max_positions: usize) -> Self {
        assert!(head_size.is_multiple_of(2));
        let half = head_size / 2;
        let mut table = Vec::with_capacity(head_size * max_positions);
        for position in 0..max_positions {
            let angle = |i: usize| position as f64 * libm::pow(theta, -2.0 * i as f64 / head_size as f64);
            table.extend((0..half).map(|i| libm::cos(angle(i)) as f32));
            table.extend((0..half).map(|i| libm::sin(angle(i)) as f32));
        }
        Self { head_size, table }
    }

    /// Number of positions in the table.
    pub fn max_positions(&self) -> usize {
        self.table.len().checked_div(self.head_size).unwrap_or(0)
    }

    /// The table: [positions, head_size], of each position head_size / 2 cosines, then as many sines.
    pub fn table(&self) -> &[f32] {
        &self.table
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(self.table.as_slice())
    }
}

/// Turns the pairs (i, i + head_size / 2) of each head by the angles of its row's position, in place.
///
/// `x` holds rows of `stride` columns; `columns` are the ones that turn, whole heads; `position` gives the position of
/// a row, below [`Rotary::max_positions`].
pub fn rotate(
    exec: Exec,
    rotary: &Rotary,
    x: &mut [f32],
    stride: usize,
    columns: Range<usize>,
    position: impl Fn(usize) -> usize + Sync,
) {
    if x.is_empty() || columns.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(stride) && columns.end <= stride);
    assert!(columns.len().is_multiple_of(rotary.head_size));
    let m = x.len() / stride;
    let pieces = exec.pieces(4 * m * columns.len());
    let x = Shared::new(x);
    exec.each(pieces, |piece| {
        let rows = part(m, pieces, piece);
        // SAFETY: each piece has rows of its own.
        let x = unsafe { x.slice_mut(rows.start * stride..rows.end * stride) };
        let columns = columns.clone();
        exec.isa.run(Rotate { rotary, x, stride, columns, position: |row| position(rows.start + row) });
    });
}

struct Rotate<'a, F> {
    rotary: &'a Rotary,
    x: &'a mut [f32],
    stride: usize,
    columns: Range<usize>,
    position: F,
}

impl<F: Fn(usize) -> usize> Kernel for Rotate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let head_size = self.rotary.head_size;
        for (row, x) in self.x.chunks_exact_mut(self.stride).enumerate() {
            let position = (self.position)(row);
            let angles = &self.rotary.table[position * head_size..(position + 1) * head_size];
            let (cos, sin) = angles.split_at(head_size / 2);
            for head in x[self.columns.clone()].chunks_exact_mut(head_size) {
                let (low, high) = head.split_at_mut(head_size / 2);
                for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    let (x, y) = (*a, *b);
                    *a = x.mul_add(*cos, -(y * sin));
                    *b = y.mul_add(*cos, x * sin);
                }
            }
        }
    }
}
