//! Memory on the boundaries of cache lines, for packed operands.

use bytemuck::{Pod, Zeroable};

/// One cache line of 32-bit numbers.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Zeroed 32-bit words that start on a cache line: f32 numbers, or pairs of bf16 numbers.
pub(crate) struct Aligned(Vec<Line>);

impl Aligned {
    /// At least `words` words of zeros.
    pub(crate) fn zeroed(words: usize) -> Self {
        Self(vec![Line([0; 16]); words.div_ceil(16)])
    }

    /// As f32 numbers.
    pub(crate) fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }

    /// As f32 numbers.
    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    /// As pairs of bf16 numbers, the first in the low half.
    pub(crate) fn pairs(&self) -> &[u32] {
        bytemuck::cast_slice(&self.0)
    }

    /// As pairs of bf16 numbers, the first in the low half.
    pub(crate) fn pairs_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        std::mem::size_of_val(self.0.as_slice())
    }
}
