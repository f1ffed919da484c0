//! Residual quantization of many vectors, with the codes of the CPU.

use std::sync::Arc;

use super::launch::{Buffer, LaunchShape, Stream};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "quantize";

    /// Codes of vectors by nearest entry, layer by layer.
    fn quantize(
        y: Ptr<f32>,
        by_dimension: Ptr<f32>,
        rows: u32,
        layers: u32,
        width: u32,
        d: u32,
        codes: PtrMut<u16>,
        fault: PtrMut<u32>,
    );
}

const THREADS: u32 = 256;
const ROWS_PER_BLOCK: usize = 8;

/// Widest vectors that a block's shared memory holds.
pub const MAX_WIDTH: usize = 1024;

/// The codebooks of a residual quantizer.
#[derive(Debug)]
pub struct Codebook {
    /// [C, d_q, W]: neighbouring threads read neighbouring codes.
    by_dimension: Buffer<f32>,
    layers: usize,
    codes: usize,
    width: usize,
}

impl Codebook {
    /// Uploads a codebook of `shape` = [C, W, d_q], d_q from 1 to [`MAX_WIDTH`], W from 1 to 65,536.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(stream: &Arc<dyn Stream>, values: &[f32], shape: [usize; 3]) -> Result<Self, DeviceError> {
        let [layers, codes, width] = shape;
        assert!((1..=MAX_WIDTH).contains(&width) && (1..=1 << 16).contains(&codes));
        assert_eq!(values.len(), layers * codes * width);
        let by_dimension: Vec<f32> = values
            .chunks(codes * width)
            .flat_map(|book| (0..width).flat_map(|i| book.iter().skip(i).step_by(width).copied()))
            .collect();
        Ok(Self { by_dimension: Buffer::from_slice(stream, &by_dimension)?, layers, codes, width })
    }

    /// Codes [rows, C] of the first `rows` vectors of `y` [rows, d_q]. `fault` `[rows]` becomes 0, or 1 + the first layer
    /// whose distances all overflow.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn quantize(
        &self,
        stream: &dyn Stream,
        y: &Buffer<f32>,
        rows: usize,
        codes: &mut Buffer<u16>,
        fault: &mut Buffer<u32>,
    ) -> Result<(), DeviceError> {
        assert!(y.len() >= rows * self.width && codes.len() >= rows * self.layers && fault.len() >= rows);
        if rows == 0 {
            return Ok(());
        }
        let residual_bytes = ROWS_PER_BLOCK * self.width * size_of::<f32>();
        quantize(
            stream,
            LaunchShape::new([size(rows.div_ceil(ROWS_PER_BLOCK)), 1, 1], THREADS)
                .shared(size(residual_bytes)),
            y.ptr(),
            self.by_dimension.ptr(),
            size(rows),
            size(self.layers),
            size(self.codes),
            size(self.width),
            codes.ptr_mut(),
            fault.ptr_mut(),
        )
    }
}
