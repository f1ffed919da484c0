//! Arrays in device memory.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{Address, Download, Element, Ptr, PtrMut, Stream};
use crate::error::DeviceError;

/// An array of `T` in device memory.
pub struct Buffer<T> {
    stream: Arc<dyn Stream>,
    address: Address,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// An array of `len` elements with undefined contents.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(stream: &Arc<dyn Stream>, len: usize) -> Result<Self, DeviceError> {
        // An empty array has an address too: kernels may be given it, and read nothing.
        let address = stream.allocate((len * size_of::<T>()).max(1))?;
        Ok(Self { stream: stream.clone(), address, len, element: PhantomData })
    }

    /// An array of `len` zeros.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], [`DeviceError::Failed`].
    pub fn zeroed(stream: &Arc<dyn Stream>, len: usize) -> Result<Self, DeviceError> {
        let mut buffer = Self::new(stream, len)?;
        let zeros = vec![T::zeroed(); len.clamp(1, 1 << 20)];
        for start in (0..len).step_by(zeros.len()) {
            buffer.upload(start, &zeros[..zeros.len().min(len - start)])?;
        }
        Ok(buffer)
    }

    /// An array that holds `values`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn from_slice(stream: &Arc<dyn Stream>, values: &[T]) -> Result<Self, DeviceError> {
        let mut buffer = Self::new(stream, values.len())?;
        buffer.upload(0, values)?;
        Ok(buffer)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The elements from `start` on, for a kernel to read.
    pub fn at(&self, start: usize) -> Ptr<T> {
        Ptr(self.address_of(start, 0), PhantomData)
    }

    /// The elements from `start` on, for a kernel to write.
    pub fn at_mut(&mut self, start: usize) -> PtrMut<T> {
        PtrMut(self.address_of(start, 0), PhantomData)
    }

    /// The whole array, for a kernel to read.
    pub fn ptr(&self) -> Ptr<T> {
        self.at(0)
    }

    /// The whole array, for a kernel to write.
    pub fn ptr_mut(&mut self) -> PtrMut<T> {
        self.at_mut(0)
    }

    /// Enqueues a copy of `values` to the elements from `start` on.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn upload(&mut self, start: usize, values: &[T]) -> Result<(), DeviceError> {
        if values.is_empty() {
            return Ok(());
        }
        self.stream.upload(self.address_of(start, values.len()), bytemuck::cast_slice(values))
    }

    /// Waits for the stream and copies the elements from `start` on into `values`.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn download(&self, start: usize, values: &mut [T]) -> Result<(), DeviceError> {
        if values.is_empty() {
            return Ok(());
        }
        self.stream.download(&mut [self.reading(start, values)])
    }

    /// The copy of the elements from `start` on into `values`, to be made together with others.
    pub fn reading<'h>(&self, start: usize, values: &'h mut [T]) -> Download<'h> {
        Download { from: self.address_of(start, values.len()), to: bytemuck::cast_slice_mut(values) }
    }

    /// Waits for the stream and copies the whole array.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn to_vec(&self) -> Result<Vec<T>, DeviceError> {
        let mut values = vec![T::zeroed(); self.len];
        self.download(0, &mut values)?;
        Ok(values)
    }

    fn address_of(&self, start: usize, count: usize) -> Address {
        assert!(start + count <= self.len, "{count} elements from {start} of {}", self.len);
        self.address + (start * size_of::<T>()) as Address
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.stream.free(self.address);
    }
}

impl<T> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer<{}>[{}]", std::any::type_name::<T>(), self.len)
    }
}
