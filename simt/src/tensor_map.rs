//! What a bulk tensor copy knows of an array in device memory: the emulator's `CUtensorMap`.

use thiserror::Error;

/// How the rows of a box lie in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Swizzle {
    /// One after the other.
    None = 0,
    /// Rows of 32 bytes, their halves of 16 bytes exchanged in every other group of 128 bytes.
    Bytes32 = 32,
    /// Rows of 64 bytes, their 16-byte parts permuted with a period of 512 bytes.
    Bytes64 = 64,
    /// Rows of 128 bytes, their 16-byte parts permuted with a period of 1,024 bytes.
    Bytes128 = 128,
}

/// Why there is no such tensor map: what a driver would refuse too.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct TensorMapError(String);

/// The bytes of a kernel's `const __grid_constant__ TensorMap` parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorMap(Raw);

/// As `emulator/source/tensor_map.h` lays it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(128))]
struct Raw {
    magic: u64,
    base: u64,
    strides: [u64; 4],
    sizes: [u32; 5],
    tile: [u32; 5],
    rank: u32,
    element_bytes: u32,
    swizzle_bytes: u32,
    rest: [u32; 7],
}

const _: () = assert!(size_of::<Raw>() == TensorMap::BYTES);

impl TensorMap {
    /// Size of the parameter.
    pub const BYTES: usize = 128;

    /// An array at device address `base` with elements of `element_bytes`. `sizes` and `tile` count elements, the
    /// innermost dimension first; `strides` are the bytes between neighbours in the second dimension and so on. A copy
    /// moves a box of `tile` elements.
    ///
    /// # Errors
    /// [`TensorMapError`] for what `cuTensorMapEncodeTiled` refuses.
    pub fn tiled(
        base: u64,
        element_bytes: u32,
        sizes: &[u32],
        strides: &[u64],
        tile: &[u32],
        swizzle: Swizzle,
    ) -> Result<Self, TensorMapError> {
        let rank = sizes.len();
        let must = |good: bool, what: &str| if good { Ok(()) } else { Err(TensorMapError(what.to_owned())) };
        must((1..=5).contains(&rank), "a tensor has 1 to 5 dimensions")?;
        must(
            strides.len() == rank - 1 && tile.len() == rank,
            "there is a stride for all dimensions but the first, and a box size for all",
        )?;
        must(base.is_multiple_of(16), "the address is a multiple of 16")?;
        must([1, 2, 4, 8].contains(&element_bytes), "elements have 1, 2, 4 or 8 bytes")?;
        must(sizes.iter().all(|&size| size > 0), "no dimension is empty")?;
        must(
            strides.iter().all(|&stride| stride.is_multiple_of(16) && stride < 1 << 40),
            "strides are multiples of 16 below 2^40",
        )?;
        must(tile.iter().all(|side| (1..=256).contains(side)), "sides of a box are 1 to 256")?;
        let row = tile[0] * element_bytes;
        must(row.is_multiple_of(16), "a row of a box has a multiple of 16 bytes")?;
        must(
            swizzle == Swizzle::None || row <= swizzle as u32,
            "a row of a box is no longer than the swizzle",
        )?;
        let mut raw = Raw {
            magic: 0x7061_6d2d_726f_736e,
            base,
            strides: [0; 4],
            sizes: [1; 5],
            tile: [1; 5],
            rank: rank as u32,
            element_bytes,
            swizzle_bytes: swizzle as u32,
            rest: [0; 7],
        };
        raw.strides[..rank - 1].copy_from_slice(strides);
        raw.sizes[..rank].copy_from_slice(sizes);
        raw.tile[..rank].copy_from_slice(tile);
        Ok(Self(raw))
    }

    /// The parameter's bytes.
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        // SAFETY: `Raw` is 128 bytes of integers without padding.
        unsafe { std::mem::transmute(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_refuses_is_refused() {
        let good = |base, bytes, sizes: &[u32], strides: &[u64], tile: &[u32], swizzle| {
            TensorMap::tiled(base, bytes, sizes, strides, tile, swizzle).is_ok()
        };
        assert!(good(256, 2, &[100, 7], &[208], &[64, 64], Swizzle::Bytes128));
        assert!(good(256, 4, &[100], &[], &[256], Swizzle::None));
        assert!(!good(8, 2, &[100, 7], &[208], &[64, 64], Swizzle::Bytes128));
        assert!(!good(256, 3, &[100, 7], &[208], &[64, 64], Swizzle::Bytes128));
        assert!(!good(256, 2, &[100, 0], &[208], &[64, 64], Swizzle::Bytes128));
        assert!(!good(256, 2, &[100, 7], &[200], &[64, 64], Swizzle::Bytes128));
        assert!(!good(256, 2, &[100, 7], &[], &[64, 64], Swizzle::Bytes128));
        assert!(!good(256, 2, &[100, 7], &[208], &[64, 257], Swizzle::Bytes128));
        assert!(!good(256, 2, &[100, 7], &[208], &[4, 64], Swizzle::Bytes128));
        assert!(!good(256, 2, &[100, 7], &[208], &[64, 64], Swizzle::Bytes64));
        assert!(!good(256, 2, &[], &[], &[], Swizzle::None));
    }
}
