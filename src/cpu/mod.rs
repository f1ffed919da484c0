//! The operations of [`crate::ops`] on the CPU.
//!
//! Every kernel is written once over arrays of fixed size and compiled once per instruction set ([`Isa`]); which
//! one runs is chosen at run time. In [`Precision::F32`] each output element is one sequence of fused
//! multiply-adds and every horizontal sum has one fixed shape, so that all instruction sets, any number of threads
//! and any number of rows in the call give the same bits. In [`Precision::Bf16`] the bits do not depend on threads
//! or rows; the instruction sets agree wherever no subnormal number takes part.
//!
//! The operations allocate nothing; their scratch is passed in or belongs to the thread.
//!
//! Slices that do not have the documented sizes are errors of the calling code and panic.

mod aligned;
pub mod attention;
mod bf16;
pub mod cached_attention;
pub(crate) mod exec;
mod isa;
mod keep;
mod lanes;
pub mod linear;
pub mod math;
pub mod norm;
pub mod peak;
pub mod rotary;
pub(crate) mod row_attention;
pub mod segment_attention;
mod shared;
mod team;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use attention::{AttentionScratch, KeyValues, attention};
pub use cached_attention::cached_attention;
pub use exec::{Exec, Precision};
pub use isa::Isa;
pub(crate) use isa::{Kernel, Machine, Scalar};
pub(crate) use keep::{KEEP_LINE, keep};
pub use linear::{Epilogue, Linear, linear};
pub use norm::rms_norm;
pub use rotary::{Rotary, rotate};
pub use segment_attention::segment_attention;
pub use team::Team;
