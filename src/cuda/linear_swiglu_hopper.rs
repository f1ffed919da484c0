//! Gate and up projections and `silu(gate) * up` in one kernel by Hopper's own instructions: the first half of the
//! encoder's feed-forward layer, of rows that are normed already. Its sums are taken in another order than those of
//! [`swiglu`](super::swiglu::swiglu).

use half::bf16;

use super::launch::Stream;
use super::linear::Product;
pub use super::product_hopper::{Height, Tiling};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "linear_swiglu_hopper";

    /// Tiles of 64 rows.
    fn linear_swiglu_hopper_64(x: TensorMap, w: TensorMap, hidden: PtrMut<bf16>, m: u32, ffn: u32, k: u32);
    /// Tiles of 128 rows.
    fn linear_swiglu_hopper_128(x: TensorMap, w: TensorMap, hidden: PtrMut<bf16>, m: u32, ffn: u32, k: u32);
}

/// `hidden = silu(x gate^T) * (x up^T)` [m, n / 2], rounded, aligned to 8 bytes. W is of gate and up, [`interleave`]d and
/// then [`arrange`]d.
///
/// [`interleave`]: super::swiglu::interleave
/// [`arrange`]: super::product_hopper::arrange
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
///
/// # Panics
/// If k is 0 or no multiple of 8, or n no multiple of 32.
pub fn linear_swiglu_hopper(
    stream: &dyn Stream,
    product: Product,
    hidden: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    linear_swiglu_hopper_in(stream, Tiling::of(product.m, product.n), product, hidden)
}

/// [`linear_swiglu_hopper`] cut by `tiling`: the same bits for every one.
///
/// # Errors
/// As [`linear_swiglu_hopper`].
///
/// # Panics
/// As [`linear_swiglu_hopper`].
pub fn linear_swiglu_hopper_in(
    stream: &dyn Stream,
    tiling: Tiling,
    product: Product,
    hidden: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    let Product { m, n, k, .. } = product;
    assert!(n.is_multiple_of(32), "{n} rows of weights: gate and up alternate in runs of 16");
    stream.hopper()?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let [x, w] = tiling.operands(stream, product)?;
    let shape = tiling.shape(m, n, 0);
    let launch = match tiling.height {
        Height::Low => linear_swiglu_hopper_64,
        Height::High => linear_swiglu_hopper_128,
    };
    launch(stream, shape, x, w, hidden, size(m), size(n / 2), size(k))
}
