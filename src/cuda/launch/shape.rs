//! The blocks and threads of a launch, and how they are launched.

/// The blocks and threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// Blocks of a cluster, side by side in x: 1 where there are none.
    pub cluster: u32,
    /// Whether the blocks may wait for each other: all of them are resident at once, or the launch is refused.
    pub cooperative: bool,
}

impl LaunchShape {
    /// Blocks of `block` threads without dynamic shared memory.
    pub const fn new(grid: [u32; 3], block: u32) -> Self {
        Self { grid, block, shared_bytes: 0, cluster: 1, cooperative: false }
    }

    /// With `bytes` of dynamic shared memory.
    pub const fn shared(self, bytes: u32) -> Self {
        Self { shared_bytes: bytes, ..self }
    }

    /// In clusters of `blocks` blocks, 1 to 16, of which x holds a whole number. For kernels made for Hopper.
    pub const fn clusters(self, blocks: u32) -> Self {
        Self { cluster: blocks, ..self }
    }

    /// With blocks that may wait for each other; see [`Stream::resident`](super::Stream::resident).
    pub const fn cooperative(self) -> Self {
        Self { cooperative: true, ..self }
    }
}
