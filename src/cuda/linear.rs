//! [`crate::ops::linear`] on the GPU, in bf16: `y = x W^T`.

use half::bf16;

use crate::cuda::launch::{LaunchShape, Stream};
use crate::cuda::tiling::{ROWS, Width, size};
use crate::error::DeviceError;

crate::kernels! {
    in "linear";

    /// `y = x W^T` in f32, tiles of 64 columns.
    fn linear_f32_64(x: Ptr<bf16>, w: Ptr<bf16>, y: PtrMut<f32>, m: u32, n: u32, k: u32);
    /// `y = x W^T` in f32, tiles of 128 columns.
    fn linear_f32_128(x: Ptr<bf16>, w: Ptr<bf16>, y: PtrMut<f32>, m: u32, n: u32, k: u32);
    /// `y = x W^T`, rounded to bf16, tiles of 64 columns.
    fn linear_bf16_64(x: Ptr<bf16>, w: Ptr<bf16>, y: PtrMut<bf16>, m: u32, n: u32, k: u32);
    /// `y = x W^T`, rounded to bf16, tiles of 128 columns.
    fn linear_bf16_128(x: Ptr<bf16>, w: Ptr<bf16>, y: PtrMut<bf16>, m: u32, n: u32, k: u32);
    /// `y += x W^T` in f32, tiles of 64 columns.
    fn linear_add_64(x: Ptr<bf16>, w: Ptr<bf16>, y: PtrMut<f32>, m: u32, n: u32, k: u32);
    /// `y += x W^T` in f32, tiles of 128 columns.
    fn linear_add_128(x: Ptr<bf16>, w: Ptr<bf16>, y: PtrMut<f32>, m: u32, n: u32, k: u32);
}

/// The operands of a product.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// [m, k], aligned to 16 bytes.
    pub x: Ptr<bf16>,
    /// [n, k], aligned to 16 bytes.
    pub w: Ptr<bf16>,
    /// Rows of `x`.
    pub m: usize,
    /// Rows of `w`.
    pub n: usize,
    /// Columns of both, a multiple of 8.
    pub k: usize,
}

/// Where the sums [m, n] go. Arrays are aligned to two elements.
#[derive(Debug, Clone, Copy)]
pub enum Output {
    /// Stored.
    F32(PtrMut<f32>),
    /// Rounded and stored.
    Bf16(PtrMut<bf16>),
    /// Added to what is there.
    Add(PtrMut<f32>),
}

/// `y = x W^T` or `y += x W^T`, with f32 sums whose order depends on nothing but k.
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// If k is no multiple of 8.
pub fn linear(stream: &dyn Stream, product: Product, y: Output) -> Result<(), DeviceError> {
    linear_in(stream, Width::of(product.m, product.n), product, y)
}

/// [`linear`] in tiles of `width`: the same bits for every width.
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// If k is no multiple of 8.
pub fn linear_in(stream: &dyn Stream, width: Width, product: Product, y: Output) -> Result<(), DeviceError> {
    let Product { x, w, m, n, k } = product;
    assert!(k.is_multiple_of(8), "products of {k} columns: rows must be aligned to 16 bytes");
    if m == 0 || n == 0 {
        return Ok(());
    }
    let grid = [size(n.div_ceil(width.columns())), size(m.div_ceil(ROWS)), 1];
    let shape = match width {
        Width::Narrow => LaunchShape::new(grid, 128).shared(4 * (64 + 64) * 128),
        Width::Wide => LaunchShape::new(grid, 256).shared(3 * (64 + 128) * 128),
    };
    let (m, n, k) = (size(m), size(n), size(k));
    match (y, width) {
        (Output::F32(y), Width::Narrow) => linear_f32_64(stream, shape, x, w, y, m, n, k),
        (Output::F32(y), Width::Wide) => linear_f32_128(stream, shape, x, w, y, m, n, k),
        (Output::Bf16(y), Width::Narrow) => linear_bf16_64(stream, shape, x, w, y, m, n, k),
        (Output::Bf16(y), Width::Wide) => linear_bf16_128(stream, shape, x, w, y, m, n, k),
        (Output::Add(y), Width::Narrow) => linear_add_64(stream, shape, x, w, y, m, n, k),
        (Output::Add(y), Width::Wide) => linear_add_128(stream, shape, x, w, y, m, n, k),
    }
}
