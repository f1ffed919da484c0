//! [`linear`](super::linear::linear) by Hopper's own instructions: bulk copies and wgmma. Its sums are taken in another
//! order than those of `linear`.

use half::bf16;

use super::launch::Stream;
use super::linear::{Output, Product};
pub use super::product_hopper::{Height, Tiling};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "linear_hopper";

    /// `y = x W^T` in f32, tiles of 64 rows.
    fn linear_hopper_f32_64(x: TensorMap, w: TensorMap, y: PtrMut<f32>, m: u32, n: u32, k: u32);
    /// `y = x W^T` in f32, tiles of 128 rows.
    fn linear_hopper_f32_128(x: TensorMap, w: TensorMap, y: PtrMut<f32>, m: u32, n: u32, k: u32);
    /// `y = x W^T`, rounded to bf16, tiles of 64 rows.
    fn linear_hopper_bf16_64(x: TensorMap, w: TensorMap, y: PtrMut<bf16>, m: u32, n: u32, k: u32);
    /// `y = x W^T`, rounded to bf16, tiles of 128 rows.
    fn linear_hopper_bf16_128(x: TensorMap, w: TensorMap, y: PtrMut<bf16>, m: u32, n: u32, k: u32);
    /// `y += x W^T` in f32, tiles of 64 rows.
    fn linear_hopper_add_64(x: TensorMap, w: TensorMap, y: PtrMut<f32>, m: u32, n: u32, k: u32);
    /// `y += x W^T` in f32, tiles of 128 rows.
    fn linear_hopper_add_128(x: TensorMap, w: TensorMap, y: PtrMut<f32>, m: u32, n: u32, k: u32);
}

/// `y = x W^T` or `y += x W^T`, with f32 sums whose order depends on nothing but k.
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
///
/// # Panics
/// If k is 0 or no multiple of 8.
pub fn linear_hopper(stream: &dyn Stream, product: Product, y: Output) -> Result<(), DeviceError> {
    linear_hopper_in(stream, Tiling::of(product.m, product.n), product, y)
}

/// [`linear_hopper`] cut by `tiling`: the same bits for every one.
///
/// # Errors
/// As [`linear_hopper`].
///
/// # Panics
/// As [`linear_hopper`].
pub fn linear_hopper_in(
    stream: &dyn Stream,
    tiling: Tiling,
    product: Product,
    y: Output,
) -> Result<(), DeviceError> {
    let Product { m, n, k, .. } = product;
    stream.hopper()?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let [x, w] = tiling.operands(stream, product)?;
    let shape = tiling.shape(m, n, 0);
    let (m, n, k) = (size(m), size(n), size(k));
    match (y, tiling.height) {
        (Output::F32(y), Height::Low) => linear_hopper_f32_64(stream, shape, x, w, y, m, n, k),
        (Output::F32(y), Height::High) => linear_hopper_f32_128(stream, shape, x, w, y, m, n, k),
        (Output::Bf16(y), Height::Low) => linear_hopper_bf16_64(stream, shape, x, w, y, m, n, k),
        (Output::Bf16(y), Height::High) => linear_hopper_bf16_128(stream, shape, x, w, y, m, n, k),
        (Output::Add(y), Height::Low) => linear_hopper_add_64(stream, shape, x, w, y, m, n, k),
        (Output::Add(y), Height::High) => linear_hopper_add_128(stream, shape, x, w, y, m, n, k),
    }
}
