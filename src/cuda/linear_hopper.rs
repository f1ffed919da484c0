//! [`linear`](super::linear::linear) by Hopper's own instructions: bulk copies and wgmma. Its sums are taken in another
//! order than those of `linear`.

use half::bf16;

use super::launch::{LaunchShape, Stream, Swizzle};
use super::linear::{Output, Product};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "linear_hopper";

    /// `y = x W^T` in f32.
    fn linear_hopper_f32(x: TensorMap, w: TensorMap, y: PtrMut<f32>, m: u32, n: u32, k: u32);
    /// `y = x W^T`, rounded to bf16.
    fn linear_hopper_bf16(x: TensorMap, w: TensorMap, y: PtrMut<bf16>, m: u32, n: u32, k: u32);
    /// `y += x W^T` in f32.
    fn linear_hopper_add(x: TensorMap, w: TensorMap, y: PtrMut<f32>, m: u32, n: u32, k: u32);
}

/// Rows and columns of a tile of y: so many rows of x and of w are copied at once.
const TILE: usize = 128;
/// Columns of x and of w that are copied at once: 128 bytes, the period of the swizzle.
const DEPTH: usize = 64;
/// Eight warps that multiply and one that copies.
const THREADS: u32 = 288;
/// Four stages of both operands, and two mbarriers for each stage.
const SHARED_BYTES: usize = 4 * (2 * TILE * DEPTH * 2 + 2 * 8);

/// `y = x W^T` or `y += x W^T`, with f32 sums whose order depends on nothing but k.
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
///
/// # Panics
/// If k is 0 or no multiple of 8.
pub fn linear_hopper(stream: &dyn Stream, product: Product, y: Output) -> Result<(), DeviceError> {
    let Product { x, w, m, n, k } = product;
    assert!(k > 0 && k.is_multiple_of(8), "products of {k} columns: rows must be aligned to 16 bytes");
    stream.hopper()?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let operand = |array: Ptr<bf16>, rows: usize| {
        TensorMap::rows(stream, array, [rows, k, k], [DEPTH, TILE], Swizzle::Bytes128)
    };
    let (x, w) = (operand(x, m)?, operand(w, n)?);
    let grid = [size(n.div_ceil(TILE)), size(m.div_ceil(TILE)), 1];
    let shape = LaunchShape::new(grid, THREADS).shared(size(SHARED_BYTES));
    let (m, n, k) = (size(m), size(n), size(k));
    match y {
        Output::F32(y) => linear_hopper_f32(stream, shape, x, w, y, m, n, k),
        Output::Bf16(y) => linear_hopper_bf16(stream, shape, x, w, y, m, n, k),
        Output::Add(y) => linear_hopper_add(stream, shape, x, w, y, m, n, k),
    }
}
