//! Tensor maps in the code of the driver.

use std::ptr;

use cudarc::driver::DriverError;
use cudarc::driver::sys::{
    self, CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave,
    CUtensorMapL2promotion, CUtensorMapSwizzle,
};

use crate::cuda::launch::{Boxes, ElementType, Swizzle, Tensor, TensorMap};

/// Most dimensions of a tensor.
const MOST: usize = 5;

/// The map of a tensor, or what is wrong with it. The context is current.
pub(super) fn encode(tensor: &Tensor) -> Result<TensorMap, DriverError> {
    let Tensor { address, element, boxes } = *tensor;
    let Boxes { sizes, strides, sides, swizzle } = boxes;
    let rank = sizes.len();
    if rank == 0 || rank > MOST || strides.len() != rank - 1 || sides.len() != rank {
        return Err(DriverError(sys::CUresult::CUDA_ERROR_INVALID_VALUE));
    }
    let strides = strides.iter().map(|stride| stride * element.bytes());
    let (sizes, strides) = (padded(sizes.iter().map(|&size| size as u64)), padded(strides.map(|s| s as u64)));
    let sides = padded(sides.iter().map(|&side| u32::try_from(side).unwrap_or(u32::MAX)));
    let mut map = CUtensorMap { opaque: [0; 16] };
    // SAFETY: the arrays hold what the rank asks for and outlive the call, which writes the map and nothing else. The
    // address is written into it unread.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            data_type(element),
            rank as u32,
            ptr::without_provenance_mut(address as usize),
            sizes.as_ptr(),
            strides.as_ptr(),
            sides.as_ptr(),
            [1; MOST].as_ptr(),
            CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle_of(swizzle),
            CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()?;
    Ok(TensorMap(bytemuck::cast(map.opaque)))
}

fn padded<T: Copy + Default>(values: impl Iterator<Item = T>) -> [T; MOST] {
    let mut all = [T::default(); MOST];
    all.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
    all
}

fn data_type(element: ElementType) -> CUtensorMapDataType {
    use CUtensorMapDataType::*;
    match element {
        ElementType::U8 => CU_TENSOR_MAP_DATA_TYPE_UINT8,
        ElementType::U16 => CU_TENSOR_MAP_DATA_TYPE_UINT16,
        ElementType::U32 => CU_TENSOR_MAP_DATA_TYPE_UINT32,
        ElementType::I32 => CU_TENSOR_MAP_DATA_TYPE_INT32,
        ElementType::U64 => CU_TENSOR_MAP_DATA_TYPE_UINT64,
        ElementType::F32 => CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        ElementType::F64 => CU_TENSOR_MAP_DATA_TYPE_FLOAT64,
        ElementType::Bf16 => CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    }
}

fn swizzle_of(swizzle: Swizzle) -> CUtensorMapSwizzle {
    match swizzle {
        Swizzle::None => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::Bytes32 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        Swizzle::Bytes64 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::Bytes128 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    }
}
