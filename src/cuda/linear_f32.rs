//! Products in f32, with the bits of the CPU: those of the reward model.

use std::sync::Arc;

use super::launch::{Buffer, LaunchShape, Stream};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "linear_f32";

    /// `y = x W^T`.
    fn linear_f32(x: Ptr<f32>, w: Ptr<f32>, rows: u32, out: u32, input: u32, y: PtrMut<f32>);

    /// `y += x W^T`.
    fn linear_f32_add(x: Ptr<f32>, w: Ptr<f32>, rows: u32, out: u32, input: u32, y: PtrMut<f32>);

    /// `y = x W^T + bias`.
    fn linear_f32_bias(
        x: Ptr<f32>,
        w: Ptr<f32>,
        bias: Ptr<f32>,
        rows: u32,
        out: u32,
        input: u32,
        y: PtrMut<f32>,
    );

    /// `y = max(x W^T + bias, 0)`.
    fn linear_f32_bias_relu(
        x: Ptr<f32>,
        w: Ptr<f32>,
        bias: Ptr<f32>,
        rows: u32,
        out: u32,
        input: u32,
        y: PtrMut<f32>,
    );

    /// `y = (x W^T + bias) + table[row % period]`.
    fn linear_f32_position(
        x: Ptr<f32>,
        w: Ptr<f32>,
        bias: Ptr<f32>,
        table: Ptr<f32>,
        period: u32,
        rows: u32,
        out: u32,
        input: u32,
        y: PtrMut<f32>,
    );

    /// `y = silu(x gate^T) * (x up^T)`.
    fn linear_f32_swiglu(
        x: Ptr<f32>,
        gate: Ptr<f32>,
        up: Ptr<f32>,
        rows: u32,
        out: u32,
        input: u32,
        y: PtrMut<f32>,
    );
}

const THREADS: u32 = 128;
/// Rows and columns of a block's tile.
const TILE: usize = 64;

/// The weights of a product, [out, in].
#[derive(Debug)]
pub struct Matrix {
    values: Buffer<f32>,
    in_size: usize,
}

impl Matrix {
    /// Uploads [out, in] weights, `in_size` > 0.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(stream: &Arc<dyn Stream>, values: &[f32], in_size: usize) -> Result<Self, DeviceError> {
        assert!(in_size > 0 && values.len().is_multiple_of(in_size));
        Ok(Self { values: Buffer::from_slice(stream, values)?, in_size })
    }

    /// Columns of `x`.
    pub fn in_size(&self) -> usize {
        self.in_size
    }

    /// Columns of `y`.
    pub fn out_size(&self) -> usize {
        self.values.len() / self.in_size
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.values.bytes()
    }
}

/// What becomes of the sums of a product.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// `y = x W^T`.
    Store,
    /// `y += x W^T`: the residual connection.
    Add,
    /// `y = x W^T + bias`, bias `[out]`.
    Bias(&'a Buffer<f32>),
    /// `y = max(x W^T + bias, 0)`.
    BiasRelu(&'a Buffer<f32>),
    /// `y = (x W^T + bias) + table[row % period]`, table [period or more, out].
    Position(&'a Buffer<f32>, &'a Buffer<f32>, usize),
}

/// The product of the first `rows` rows of `x` [rows, in] and `w`, and its epilogue: `y` is [rows, out].
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn linear(
    stream: &dyn Stream,
    x: &Buffer<f32>,
    rows: usize,
    w: &Matrix,
    epilogue: Epilogue,
    y: &mut Buffer<f32>,
) -> Result<(), DeviceError> {
    let (in_size, out_size) = (w.in_size(), w.out_size());
    assert!(x.len() >= rows * in_size && y.len() >= rows * out_size);
    let Some(shape) = launch_shape(rows, out_size) else { return Ok(()) };
    let (m, out, input) = (size(rows), size(out_size), size(in_size));
    let (x, w, y) = (x.ptr(), w.values.ptr(), y.ptr_mut());
    match epilogue {
        Epilogue::Store => linear_f32(stream, shape, x, w, m, out, input, y),
        Epilogue::Add => linear_f32_add(stream, shape, x, w, m, out, input, y),
        Epilogue::Bias(bias) => {
            assert_eq!(bias.len(), out_size);
            linear_f32_bias(stream, shape, x, w, bias.ptr(), m, out, input, y)
        }
        Epilogue::BiasRelu(bias) => {
            assert_eq!(bias.len(), out_size);
            linear_f32_bias_relu(stream, shape, x, w, bias.ptr(), m, out, input, y)
        }
        Epilogue::Position(bias, table, period) => {
            assert!(bias.len() == out_size && period > 0 && table.len() >= period * out_size);
            let (bias, table) = (bias.ptr(), table.ptr());
            linear_f32_position(stream, shape, x, w, bias, table, size(period), m, out, input, y)
        }
    }
}

/// `y = silu(x gate^T) * (x up^T)` of the first `rows` rows: `x` is [rows, in], `y` [rows, out].
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn swiglu(
    stream: &dyn Stream,
    x: &Buffer<f32>,
    rows: usize,
    gate: &Matrix,
    up: &Matrix,
    y: &mut Buffer<f32>,
) -> Result<(), DeviceError> {
    let (in_size, out_size) = (gate.in_size(), gate.out_size());
    assert!(up.in_size() == in_size && up.out_size() == out_size);
    assert!(x.len() >= rows * in_size && y.len() >= rows * out_size);
    let Some(shape) = launch_shape(rows, out_size) else { return Ok(()) };
    linear_f32_swiglu(
        stream,
        shape,
        x.ptr(),
        gate.values.ptr(),
        up.values.ptr(),
        size(rows),
        size(out_size),
        size(in_size),
        y.ptr_mut(),
    )
}

/// One block a tile; none where there is nothing to compute.
fn launch_shape(rows: usize, out_size: usize) -> Option<LaunchShape> {
    let grid = [size(rows.div_ceil(TILE)), size(out_size.div_ceil(TILE)), 1];
    (rows > 0 && out_size > 0).then(|| LaunchShape::new(grid, THREADS))
}
