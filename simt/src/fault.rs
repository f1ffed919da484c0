//! What can go wrong.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Why a launch failed. The contents of device memory are then undefined, but later launches are not affected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Fault {
    /// The kernel.
    pub kernel: Box<str>,
    /// The sort of fault.
    pub kind: FaultKind,
    /// What happened, in words.
    pub message: String,
    /// The block in the grid and the thread in the block, if a thread is at fault.
    pub thread: Option<([u32; 3], [u32; 3])>,
    /// The line of the kernel.
    pub place: Option<Place>,
    /// Where two accesses or waits are at odds, the line of the other one.
    pub other_place: Option<Place>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}: {}: {}", self.kernel, self.kind, self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n  at {place}")?;
        }
        if let Some(([x, y, z], [i, j, k])) = self.thread {
            write!(f, "\n  by thread ({i}, {j}, {k}) of block ({x}, {y}, {z})")?;
        }
        if let Some(other) = &self.other_place {
            write!(f, "\n  the other at {other}")?;
        }
        Ok(())
    }
}

/// A line of a kernel or a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as the compiler was given it.
    pub file: Box<str>,
    /// The line, from 1; 0 if it is not known.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The sorts of [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FaultKind {
    /// No kernel of this name, wrong arguments, or a launch that a GPU would refuse.
    Launch,
    /// All threads of the block that have not exited wait for each other.
    Deadlock,
    /// A thread runs, or polls for something, without an end.
    Endless,
    /// A barrier or mbarrier is used wrongly, as `__syncthreads` in divergent code.
    Barrier,
    /// A warp collective whose lanes do not agree, or whose mask is wrong.
    Collective,
    /// An access outside of the memory it may use.
    OutOfBounds,
    /// An access to device memory that has been freed.
    UseAfterFree,
    /// An address that is not aligned as the access needs.
    Misaligned,
    /// A read of memory that was never written.
    Uninitialised,
    /// An access to the destination of an asynchronous copy that has not been waited for.
    InFlight,
    /// Two accesses of which one is a write, and whose order nothing fixes.
    Race,
    /// Behaviour that C++ leaves undefined, as signed overflow.
    Undefined,
    /// The kernel gave up: `__trap`, or an assertion failed.
    Trap,
    /// A bulk copy or `wgmma` meets what a thread wrote and did not fence for it (`fence.proxy.async`).
    Proxy,
    /// A thread of a dependent launch that reaches device memory, or ends, without having waited for earlier kernels.
    Early,
}

impl FaultKind {
    /// In the order of the numbers that the C++ side uses.
    const ALL: [Self; 15] = [
        Self::Launch,
        Self::Deadlock,
        Self::Endless,
        Self::Barrier,
        Self::Collective,
        Self::OutOfBounds,
        Self::UseAfterFree,
        Self::Misaligned,
        Self::Uninitialised,
        Self::InFlight,
        Self::Race,
        Self::Undefined,
        Self::Trap,
        Self::Proxy,
        Self::Early,
    ];

    pub(crate) fn from_raw(raw: u32) -> Self {
        Self::ALL.get(raw as usize).copied().unwrap_or(Self::Undefined)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Launch => "launch refused",
            Self::Deadlock => "deadlock",
            Self::Endless => "endless",
            Self::Barrier => "barrier",
            Self::Collective => "warp collective",
            Self::OutOfBounds => "out of bounds",
            Self::UseAfterFree => "use after free",
            Self::Misaligned => "misaligned",
            Self::Uninitialised => "uninitialised",
            Self::InFlight => "copy in flight",
            Self::Race => "race",
            Self::Undefined => "undefined behaviour",
            Self::Trap => "trap",
            Self::Proxy => "missing proxy fence",
            Self::Early => "ahead of earlier kernels",
        })
    }
}

/// Why the host cannot do something with device memory.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// The emulated device has no addresses left.
    #[error("the emulated device has no room for {bytes} bytes")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A range that is not within an allocation or, on the check build, a read of bytes that were never written.
    #[error("{message}")]
    Invalid {
        /// What is wrong, in words.
        message: String,
    },
}

/// Why the emulator cannot be opened.
#[derive(Debug, Clone, Error)]
pub enum OpenError {
    /// A shared library that the build script made does not load.
    #[error("{}: {message}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What the loader says.
        message: String,
    },
    /// Two `.cu` files define kernels of one name.
    #[error("both {first} and {second} define a kernel `{name}`")]
    DuplicateKernel {
        /// The kernel.
        name: String,
        /// A file that defines it.
        first: String,
        /// Another.
        second: String,
    },
}
