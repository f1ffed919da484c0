//! [`crate::ops::attention`] of beams over their request's encoder rows, on the GPU in bf16.

use std::sync::Arc;

use half::bf16;

use crate::cuda::attention::{ROWS, shape};
use crate::cuda::launch::{Buffer, Stream};
use crate::cuda::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "beam_attention";

    /// Heads of 32.
    fn beam_attention_32(
        q: Ptr<bf16>,
        kv: Ptr<bf16>,
        offsets: Ptr<u32>,
        partials: PtrMut<f32>,
        counters: PtrMut<u32>,
        out: PtrMut<bf16>,
        beams: u32,
        kv_stride: u32,
        chunks: u32,
    );
    /// Heads of 64.
    fn beam_attention_64(
        q: Ptr<bf16>,
        kv: Ptr<bf16>,
        offsets: Ptr<u32>,
        partials: PtrMut<f32>,
        counters: PtrMut<u32>,
        out: PtrMut<bf16>,
        beams: u32,
        kv_stride: u32,
        chunks: u32,
    );
    /// Heads of 128.
    fn beam_attention_128(
        q: Ptr<bf16>,
        kv: Ptr<bf16>,
        offsets: Ptr<u32>,
        partials: PtrMut<f32>,
        counters: PtrMut<u32>,
        out: PtrMut<bf16>,
        beams: u32,
        kv_stride: u32,
        chunks: u32,
    );
}

/// Keys of a block.
pub const CHUNK: usize = 256;

/// Sizes of a batch of beams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Beams {
    /// Requests.
    pub requests: usize,
    /// Rows of each request.
    pub beams: usize,
    /// Heads.
    pub heads: usize,
    /// 32, 64 or 128.
    pub head_size: usize,
    /// Most keys of a request.
    pub most_keys: usize,
}

impl Beams {
    /// Parts that a request's keys are cut into.
    pub(super) fn chunks(&self) -> usize {
        self.most_keys.div_ceil(CHUNK)
    }

    /// Groups of blocks that join their sums.
    fn units(&self) -> usize {
        self.requests * self.heads * self.beams.div_ceil(ROWS)
    }

    /// Floats in which the blocks hand over their sums.
    fn partials(&self) -> usize {
        self.units() * self.chunks() * (self.head_size / 8 + 1) * 128 * 4
    }
}

/// Where the blocks of a launch hand over their sums. Launches that follow one another on a stream may share it.
#[derive(Debug)]
pub struct BeamScratch {
    partials: Buffer<f32>,
    counters: Buffer<u32>,
}

impl BeamScratch {
    /// Room for batches of up to `beams`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(stream: &Arc<dyn Stream>, beams: Beams) -> Result<Self, DeviceError> {
        Ok(Self {
            partials: Buffer::new(stream, beams.partials())?,
            counters: Buffer::from_slice(stream, &vec![0; beams.units()])?,
        })
    }

    /// The arrays, of which batches of `beams` need this much.
    ///
    /// # Panics
    /// If they are too small.
    pub(super) fn arrays(&mut self, beams: Beams) -> (PtrMut<f32>, PtrMut<u32>) {
        let Self { partials, counters } = self;
        assert!(
            partials.len() >= beams.partials() && counters.len() >= beams.units(),
            "scratch for {beams:?}"
        );
        (partials.ptr_mut(), counters.ptr_mut())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.partials.bytes() + self.counters.bytes()
    }
}

/// Keys and values of all requests' encoder rows: row r has d keys from `keys[r * stride]` on, then d values.
#[derive(Debug, Clone, Copy)]
pub struct CrossKeys {
    /// Aligned to 16 bytes.
    pub keys: Ptr<bf16>,
    /// Elements from row to row, a multiple of 8.
    pub stride: usize,
    /// Rows that there is room for, those of all requests at least.
    pub rows: usize,
    /// Request i has rows `offsets[i]..offsets[i + 1]`, at least one: [requests + 1].
    pub offsets: Ptr<u32>,
}

/// Attention of `beams` rows for each request, `q` [requests * beams, d], to the request's keys; `out` like `q`.
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// If the head size is not 32, 64 or 128, the stride is no multiple of 8 or `scratch` is too small.
pub fn beam_attention(
    stream: &dyn Stream,
    beams: Beams,
    q: Ptr<bf16>,
    cross: CrossKeys,
    scratch: &mut BeamScratch,
    out: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    let kernel = match beams.head_size {
        32 => beam_attention_32,
        64 => beam_attention_64,
        128 => beam_attention_128,
        other => panic!("heads of {other} columns"),
    };
    let CrossKeys { keys, stride, offsets, .. } = cross;
    assert!(stride.is_multiple_of(8), "keys {stride} elements apart are not aligned to 16 bytes");
    let (partials, counters) = scratch.arrays(beams);
    if beams.partials() == 0 {
        return Ok(());
    }
    let grid = [beams.beams.div_ceil(ROWS) * beams.chunks(), beams.heads, beams.requests];
    kernel(
        stream,
        shape(grid, beams.head_size),
        q,
        keys,
        offsets,
        partials,
        counters,
        out,
        size(beams.beams),
        size(stride),
        size(beams.chunks()),
    )
}
