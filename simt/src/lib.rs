//! Runs CUDA kernels on the CPU, so that tests need no GPU.
//!
//! The build script compiles every `kernels/*.cu` of the project, unchanged, as ordinary C++ against headers that stand
//! in for CUDA's. Every CUDA thread becomes a fiber; barriers, warp collectives, asynchronous copies and tensor-core
//! instructions are carried out by a small runtime. There are two builds of everything, see [`Build`]: the check build
//! watches each access to memory and reports races, accesses out of bounds, reads of what was never written, and more,
//! with the lines of the kernel.
//!
//! ```
//! use simt::{Build, Emulator};
//!
//! let emulator = Emulator::open(Build::Check)?;
//! let x = emulator.allocate(4 * 128)?;
//! emulator.write(x, &[0; 4 * 128])?;
//! let arguments: [&[u8]; 3] = [&x.to_ne_bytes(), &2f32.to_ne_bytes(), &128u32.to_ne_bytes()];
//! // SAFETY: `scale` takes a pointer to floats, a factor, and the number of floats.
//! unsafe { emulator.launch("scale", [1, 1, 1], [128, 1, 1], 0, &arguments) }?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The README of this crate says how it works, what it checks and what it cannot.

mod emulator;
mod fault;
mod library;
mod schedule;
mod signature;
mod source;
mod tensor_map;

pub use emulator::{Emulator, Stats};
pub use fault::{Fault, FaultKind, MemoryError, OpenError, Place};
pub use library::Build;
pub use schedule::{Copies, Schedule};
pub use signature::{Argument, Signature};
pub use tensor_map::{Swizzle, TensorMap, TensorMapError};
