//! [`crate::ops::segment_attention`] on the GPU, in f32 with the bits of the CPU.

use super::launch::{Buffer, LaunchShape, Stream};
use super::lists::Lists;
use super::tiling::size;
use crate::cpu::row_attention::score_scale;
use crate::error::DeviceError;

crate::kernels! {
    in "segment_attention";

    /// Attention of each segment's filled rows to one another.
    fn segment_attention(
        qkv: Ptr<f32>,
        lengths: Ptr<i32>,
        scale: f32,
        slots: u32,
        head: u32,
        out: PtrMut<f32>,
    );
}

const THREADS: u32 = 128;
/// Dynamic shared memory that needs no opting in.
const SHARED_BYTES: usize = 48 * 1024;

/// Whether heads of `head_size` over `slots` slots can be computed: their keys and values lie in shared memory.
pub fn fits(slots: usize, head_size: usize) -> bool {
    shared_bytes(slots, head_size) <= SHARED_BYTES
}

fn shared_bytes(slots: usize, head_size: usize) -> usize {
    2 * slots * (head_size + 1) * size_of::<f32>()
}

/// Full attention among the filled slots of each list. `qkv` is [rows, 3 d]: queries, keys and values side by side,
/// d = heads * head_size, which must [fit](fits); `out` [rows, d], zeros in slots that are not filled.
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn run(
    stream: &dyn Stream,
    qkv: &Buffer<f32>,
    lists: Lists,
    heads: usize,
    head_size: usize,
    out: &mut Buffer<f32>,
) -> Result<(), DeviceError> {
    let d = heads * head_size;
    assert!(fits(lists.slots, head_size));
    assert!(qkv.len() >= lists.rows() * 3 * d && out.len() >= lists.rows() * d);
    if lists.rows() == 0 || d == 0 {
        return Ok(());
    }
    segment_attention(
        stream,
        LaunchShape::new([size(lists.count), size(heads), 1], THREADS)
            .shared(size(shared_bytes(lists.slots, head_size))),
        qkv.ptr(),
        lists.lengths.ptr(),
        score_scale(head_size),
        size(lists.slots),
        size(head_size),
        out.ptr_mut(),
    )
}
