//! The blocks and threads of a launch, and how launches follow each other.

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

/// How a launch follows those before it in its stream. The results are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Launches {
    /// When they have ended.
    #[default]
    Ordinary,
    /// Its blocks become resident while the kernel before it still runs, as far as there is room, and wait there until it
    /// has ended (programmatic dependent launch): every kernel of `kernels/` begins with that wait. A copy ends before a
    /// kernel begins, and begins after it has ended, in either case; a cooperative launch is always an ordinary one.
    Programmatic,
}
