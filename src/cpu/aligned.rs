//! Memory on the boundaries of cache lines, for packed operands.

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

/// One cache line of 32-bit numbers.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Zeroed 32-bit words that start on a cache line: f32 numbers, or pairs of bf16 numbers.
///
/// A model's weights are read from end to end in every step of a search, far more than the address caches of a
/// processor cover in small pages, so what is large asks for huge ones.
pub(crate) struct Aligned {
    memory: Memory,
    lines: usize,
}

enum Memory {
    Heap(Vec<Line>),
    Mapped(MmapMut),
}

impl Aligned {
    /// At least `words` words of zeros.
    pub(crate) fn zeroed(words: usize) -> Self {
        let lines = words.div_ceil(16);
        let memory =
            mapped(lines * size_of::<Line>()).unwrap_or_else(|| Memory::Heap(vec![Line([0; 16]); lines]));
        Self { memory, lines }
    }

    fn lines(&self) -> &[Line] {
        match &self.memory {
            Memory::Heap(lines) => lines,
            Memory::Mapped(map) => bytemuck::cast_slice(&map[..self.bytes()]),
        }
    }

    fn lines_mut(&mut self) -> &mut [Line] {
        let bytes = self.bytes();
        match &mut self.memory {
            Memory::Heap(lines) => lines,
            Memory::Mapped(map) => bytemuck::cast_slice_mut(&mut map[..bytes]),
        }
    }

    /// As f32 numbers.
    pub(crate) fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(self.lines())
    }

    /// As f32 numbers.
    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.lines_mut())
    }

    /// As pairs of bf16 numbers, the first in the low half.
    pub(crate) fn pairs(&self) -> &[u32] {
        bytemuck::cast_slice(self.lines())
    }

    /// As pairs of bf16 numbers, the first in the low half.
    pub(crate) fn pairs_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(self.lines_mut())
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.lines * size_of::<Line>()
    }
}

/// Memory of its own for what is at least a huge page long; none where the system does not give any.
fn mapped(bytes: usize) -> Option<Memory> {
    if bytes < HUGE {
        return None;
    }
    let map = MmapMut::map_anon(bytes).ok()?;
    // Advice only: where it is not taken, pages are small.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Some(Memory::Mapped(map))
}
