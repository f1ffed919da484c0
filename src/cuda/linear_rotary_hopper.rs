//! [`crate::ops::linear`] and [`crate::ops::rotary`] in one kernel by Hopper's own instructions: the encoder's queries, keys
//! and values of rows that are normed already. Its sums are taken in another order than those of
//! [`norm_linear`](super::norm_linear::norm_linear).

use half::bf16;

use super::launch::Stream;
use super::linear::Product;
use super::norm_linear::{Rotation, Turn};
pub use super::product_hopper::{Height, Tiling};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "linear_rotary_hopper";

    /// Tiles of 64 rows.
    fn linear_rotary_hopper_64(
        x: TensorMap,
        w: TensorMap,
        angles: Ptr<f32>,
        position: Ptr<u32>,
        y: PtrMut<bf16>,
        m: u32,
        n: u32,
        k: u32,
        position_stride: u32,
        rotated: u32,
        head_shift: u32,
    );
    /// Tiles of 128 rows.
    fn linear_rotary_hopper_128(
        x: TensorMap,
        w: TensorMap,
        angles: Ptr<f32>,
        position: Ptr<u32>,
        y: PtrMut<bf16>,
        m: u32,
        n: u32,
        k: u32,
        position_stride: u32,
        rotated: u32,
        head_shift: u32,
    );
}

/// `y = rotary(x W^T)` [m, n], rounded, aligned to 8 bytes; the rows of W are [`arrange`]d.
///
/// [`arrange`]: super::product_hopper::arrange
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
///
/// # Panics
/// If k is 0 or no multiple of 8, or n or the rotation are not in whole heads.
pub fn linear_rotary_hopper(
    stream: &dyn Stream,
    product: Product,
    rotation: Rotation,
    y: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    linear_rotary_hopper_in(stream, Tiling::of(product.m, product.n), product, rotation, y)
}

/// [`linear_rotary_hopper`] cut by `tiling`: the same bits for every one.
///
/// # Errors
/// As [`linear_rotary_hopper`].
///
/// # Panics
/// As [`linear_rotary_hopper`].
pub fn linear_rotary_hopper_in(
    stream: &dyn Stream,
    tiling: Tiling,
    product: Product,
    rotation: Rotation,
    y: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    let Product { m, n, k, .. } = product;
    let Turn { angles, position, stride, columns, shift } = Turn::new(Some(rotation), n);
    stream.hopper()?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let [x, w] = tiling.operands(stream, product)?;
    let shape = tiling.shape(m, n, 0);
    let launch = match tiling.height {
        Height::Low => linear_rotary_hopper_64,
        Height::High => linear_rotary_hopper_128,
    };
    launch(stream, shape, x, w, angles, position, y, size(m), size(n), size(k), stride, columns, shift)
}
