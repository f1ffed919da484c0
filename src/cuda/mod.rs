//! The operations of [`crate::ops`] on an NVIDIA GPU, by the hand-written kernels of `kernels/`.
//!
//! Everything here but the driver speaks to a [`launch::Stream`]: device memory, copies and launches, in order. On a
//! GPU that is a stream of the CUDA driver (feature `cuda`); in the tests it is an emulator that runs the same `.cu`
//! files on the CPU. So the sizes, offsets and argument orders of this module are executed wherever the tests are.

pub mod attention;
pub mod beam_attention;
pub mod beam_self_attention;
#[cfg(feature = "cuda")]
pub mod driver;
pub mod embed;
pub mod launch;
pub mod linear;
pub mod norm;
pub mod norm_linear;
mod norm_product;
pub mod swiglu;
pub mod tiling;

/// The kernels of every operation.
pub fn kernels() -> impl Iterator<Item = &'static launch::Kernel> {
    [
        attention::KERNELS,
        beam_attention::KERNELS,
        beam_self_attention::KERNELS,
        embed::KERNELS,
        linear::KERNELS,
        norm::KERNELS,
        norm_linear::KERNELS,
        swiglu::KERNELS,
    ]
    .into_iter()
    .flatten()
}
