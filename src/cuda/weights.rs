//! Weights from their file to device memory.

use std::sync::Arc;

use half::bf16;

use super::choice::Code;
use super::launch::{Buffer, Ptr, Stream};
use super::linear::{Output, Product, linear};
use super::linear_f32;
use super::linear_hopper::linear_hopper;
use crate::error::DeviceError;
use crate::model::weights::Weights;

/// Reads tensors by name and uploads them.
#[derive(Clone, Copy)]
pub struct Upload<'a> {
    /// Where to.
    pub stream: &'a Arc<dyn Stream>,
    /// The checked weights.
    pub weights: &'a Weights,
    /// What multiplies with the matrices in bf16.
    pub products: Code,
}

impl Upload<'_> {
    /// A vector, in f32.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn vector(&self, name: &str) -> Result<Buffer<f32>, DeviceError> {
        Buffer::from_slice(self.stream, &self.weights.f32(name))
    }

    /// The matrices `names`, [out_i, in] each, stacked and rounded to bf16, to the nearest, ties to even.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn matrix(&self, names: &[impl AsRef<str>], in_size: usize) -> Result<Matrix, DeviceError> {
        let mut stacked = Vec::new();
        for name in names {
            stacked.extend(self.weights.f32(name.as_ref()).iter().map(|&x| bf16::from_f32(x)));
        }
        self.rounded(&stacked, in_size)
    }

    /// The matrices `names`, [out_i, in] each, stacked, in f32.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn matrix_f32(
        &self,
        names: &[impl AsRef<str>],
        in_size: usize,
    ) -> Result<linear_f32::Matrix, DeviceError> {
        let parts: Vec<_> = names.iter().map(|name| self.weights.f32(name.as_ref())).collect();
        linear_f32::Matrix::new(self.stream, &parts.concat(), in_size)
    }

    /// A matrix that is rounded already.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn rounded(&self, values: &[bf16], in_size: usize) -> Result<Matrix, DeviceError> {
        Ok(Matrix { values: Buffer::from_slice(self.stream, values)?, in_size, code: self.products })
    }
}

/// A weight matrix [out, in] in bf16.
#[derive(Debug)]
pub struct Matrix {
    values: Buffer<bf16>,
    in_size: usize,
    code: Code,
}

impl Matrix {
    /// Rows.
    pub fn out_size(&self) -> usize {
        self.values.len() / self.in_size
    }

    /// The rows from `row` on.
    pub fn at(&self, row: usize) -> Ptr<bf16> {
        self.values.at(row * self.in_size)
    }

    /// All rows.
    pub fn ptr(&self) -> Ptr<bf16> {
        self.values.ptr()
    }

    /// The product of the `m` rows of `x` [m, in] with this matrix, to `y` [m, out].
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn multiply(
        &self,
        stream: &dyn Stream,
        x: Ptr<bf16>,
        m: usize,
        y: Output,
    ) -> Result<(), DeviceError> {
        let product = Product { x, w: self.ptr(), m, n: self.out_size(), k: self.in_size };
        match self.code {
            Code::Portable => linear(stream, product, y),
            Code::Hopper => linear_hopper(stream, product, y),
        }
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.values.bytes()
    }
}
