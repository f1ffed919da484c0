//! Mean of the encoder's states of each request.

use super::launch::{Buffer, LaunchShape, Stream};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "segment_mean";

    /// `mean[r]` = mean of the rows `offsets[r]..offsets[r + 1]` of `x`, zeros where there are none.
    fn segment_mean(x: Ptr<f32>, offsets: Ptr<u32>, d: u32, mean: PtrMut<f32>);
}

const THREADS: u32 = 512;
const COLUMNS_PER_BLOCK: usize = 32;

/// The mean of each request's rows of `x` [rows, d] into `mean` [requests, d]; `offsets` is `[requests + 1]`.
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn run(
    stream: &dyn Stream,
    x: &Buffer<f32>,
    offsets: &Buffer<u32>,
    requests: usize,
    d: usize,
    mean: &mut Buffer<f32>,
) -> Result<(), DeviceError> {
    assert!(offsets.len() > requests && mean.len() >= requests * d);
    if requests == 0 || d == 0 {
        return Ok(());
    }
    let shape = LaunchShape::new([size(d.div_ceil(COLUMNS_PER_BLOCK)), size(requests), 1], THREADS);
    segment_mean(stream, shape, x.ptr(), offsets.ptr(), size(d), mean.ptr_mut())
}
