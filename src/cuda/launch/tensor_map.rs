//! Arrays as Hopper's bulk copies see them.

use super::{Address, Element, ElementType, KernelArgument, Ptr, PtrMut, Stream};
use crate::error::DeviceError;

/// A kernel's `const __grid_constant__ TensorMap`: an array in device memory, in the code of the device that made it. It
/// goes with the array, as a pointer would: it is good as long as the array's memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(128))]
pub struct TensorMap(pub [u8; 128]);

/// Dimensions of an array, and the box of it that one bulk copy moves. The innermost dimension comes first; its elements
/// lie side by side.
#[derive(Debug, Clone, Copy)]
pub struct Boxes<'a> {
    /// Elements of the array in each of its 1 to 5 dimensions, none of them 0. Beyond them loads give zeros, and stores
    /// leave out.
    pub sizes: &'a [usize],
    /// Elements from one to the next in the second dimension and so on, one fewer than `sizes`: multiples of 16 bytes.
    pub strides: &'a [usize],
    /// Elements of the box in each dimension, 1 to 256; a row of it has a multiple of 16 bytes, and no more than the
    /// swizzle has.
    pub sides: &'a [usize],
    /// How its rows lie in shared memory.
    pub swizzle: Swizzle,
}

/// How the rows of a box lie in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swizzle {
    /// One after the other.
    None,
    /// 16-byte parts permuted with a period of 256 bytes, for rows of up to 32.
    Bytes32,
    /// 16-byte parts permuted with a period of 512 bytes, for rows of up to 64.
    Bytes64,
    /// 16-byte parts permuted with a period of 1,024 bytes, for rows of up to 128.
    Bytes128,
}

/// What a [`TensorMap`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Element 0 of the array, aligned to 16 bytes.
    pub address: Address,
    /// Its elements.
    pub element: ElementType,
    /// Its dimensions.
    pub boxes: Boxes<'a>,
}

impl TensorMap {
    /// An array that bulk copies load from.
    ///
    /// # Errors
    /// [`DeviceError::NotHopper`] where there are no such copies, [`DeviceError::Failed`] where `boxes` are not as
    /// [`Boxes`] says.
    pub fn new<T: Element>(stream: &dyn Stream, array: Ptr<T>, boxes: Boxes) -> Result<Self, DeviceError> {
        stream.tensor_map(&Tensor { address: array.0, element: T::TYPE, boxes })
    }

    /// An array that bulk copies store to.
    ///
    /// # Errors
    /// As [`TensorMap::new`].
    pub fn new_mut<T: Element>(
        stream: &dyn Stream,
        array: PtrMut<T>,
        boxes: Boxes,
    ) -> Result<Self, DeviceError> {
        Self::new(stream, array.read(), boxes)
    }

    /// The rows [rows, columns] of a matrix whose rows begin `stride` elements apart, in boxes of `sides` (columns, then
    /// rows) elements.
    ///
    /// # Errors
    /// As [`TensorMap::new`].
    pub fn rows<T: Element>(
        stream: &dyn Stream,
        array: Ptr<T>,
        [rows, columns, stride]: [usize; 3],
        sides: [usize; 2],
        swizzle: Swizzle,
    ) -> Result<Self, DeviceError> {
        let boxes = Boxes { sizes: &[columns, rows], strides: &[stride], sides: &sides, swizzle };
        Self::new(stream, array, boxes)
    }
}

impl KernelArgument for TensorMap {
    const CPP: &'static str = "TensorMap";

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}
