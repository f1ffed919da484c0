//! [`crate::ops::linear`], added to the residual stream, and the [`crate::ops::rms_norm`] that follows, in one kernel by
//! Hopper's own instructions: the encoder's output projections. Sums are taken in another order than those of
//! [`linear`](super::linear::linear) and [`norm`](super::norm::norm).

use half::bf16;

use super::launch::Stream;
use super::linear::Product;
use super::norm_product::MOST_COLUMNS;
pub use super::product_hopper::Height;
use super::product_hopper::Tiling;
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "linear_norm_hopper";

    /// Tiles of 64 rows.
    fn linear_norm_hopper_64(
        a: TensorMap,
        w: TensorMap,
        x: PtrMut<f32>,
        weight: Ptr<f32>,
        normed: PtrMut<f32>,
        rounded: PtrMut<bf16>,
        m: u32,
        n: u32,
        k: u32,
        eps: f32,
    );
    /// Tiles of 128 rows.
    fn linear_norm_hopper_128(
        a: TensorMap,
        w: TensorMap,
        x: PtrMut<f32>,
        weight: Ptr<f32>,
        normed: PtrMut<f32>,
        rounded: PtrMut<bf16>,
        m: u32,
        n: u32,
        k: u32,
        eps: f32,
    );
}

/// What the blocks of a cluster tell each other: an mbarrier for each of 8 warps, and a sum for each row of 8 tiles.
const JOIN_BYTES: usize = 8 * 8 + 8 * 128 * size_of::<f32>();

/// The residual stream, and the norm of its new rows.
#[derive(Debug, Clone, Copy)]
pub struct Residual {
    /// [m, n], added to.
    pub x: PtrMut<f32>,
    /// The norm's weight `[n]`.
    pub weight: Ptr<f32>,
    /// The norm's epsilon.
    pub eps: f32,
    /// [m, n], unless null: takes the normed rows.
    pub normed: PtrMut<f32>,
    /// [m, n]: takes the normed rows, rounded.
    pub rounded: PtrMut<bf16>,
}

/// `x += a W^T`, and the norm of the new x. The product's `x` is a; the rows of W are [`arrange`]d. The arrays of
/// [`Residual`] are aligned to four elements.
///
/// [`arrange`]: super::product_hopper::arrange
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
///
/// # Panics
/// If k is 0 or no multiple of 8, or n no multiple of 16 up to 1,024.
pub fn linear_norm_hopper(stream: &dyn Stream, product: Product, to: Residual) -> Result<(), DeviceError> {
    linear_norm_hopper_in(stream, Tiling::of_rows(product.m, product.n).height, product, to)
}

/// [`linear_norm_hopper`] in tiles of `height`: the same bits for both.
///
/// # Errors
/// As [`linear_norm_hopper`].
///
/// # Panics
/// As [`linear_norm_hopper`].
pub fn linear_norm_hopper_in(
    stream: &dyn Stream,
    height: Height,
    product: Product,
    to: Residual,
) -> Result<(), DeviceError> {
    let Product { m, n, k, .. } = product;
    let Residual { x, weight, eps, normed, rounded } = to;
    assert!(n.is_multiple_of(16) && n <= MOST_COLUMNS, "rows of {n} columns do not fit");
    stream.hopper()?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let tiling = Tiling { height, ..Tiling::of_rows(m, n) };
    let [a, w] = tiling.operands(stream, product)?;
    let shape = tiling.shape(m, n, JOIN_BYTES);
    let launch = match height {
        Height::Low => linear_norm_hopper_64,
        Height::High => linear_norm_hopper_128,
    };
    launch(stream, shape, a, w, x, weight, normed, rounded, size(m), size(n), size(k), eps)
}
