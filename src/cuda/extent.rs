//! Sizes as kernels take them.

/// A size or an index for a kernel. Sizes beyond 32 bits are excluded by the limits of the engine, long before a launch.
pub(super) fn extent(size: usize) -> u32 {
    u32::try_from(size).expect("sizes of kernels fit into 32 bits")
}

/// Blocks of `per_block` for `count` of something.
pub(super) fn blocks(count: usize, per_block: usize) -> u32 {
    extent(count.div_ceil(per_block))
}
