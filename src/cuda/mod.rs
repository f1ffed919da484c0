//! The operations of [`crate::ops`] on an NVIDIA GPU, by the hand-written kernels of `kernels/`.
//!
//! Everything here but the driver speaks to a [`launch::Stream`]: device memory, copies and launches, in order. On a
//! GPU that is a stream of the CUDA driver (feature `cuda`); in the tests it is an emulator that runs the same `.cu`
//! files on the CPU. So the sizes, offsets and argument orders of this module are executed wherever the tests are.

pub mod attention;
pub mod attention_hopper;
pub mod auction;
pub mod auction_regret;
pub mod beam_attention;
pub mod beam_attention_hopper;
pub mod beam_self_attention;
pub mod blocks;
pub mod catalog;
pub mod choice;
pub mod creative;
pub mod creative_choose;
pub mod creative_input;
pub mod decode_step;
pub mod decoder;
#[cfg(feature = "cuda")]
pub mod driver;
pub mod embed;
pub mod encoder;
pub mod encoder_block;
pub mod encoder_block_hopper;
pub mod launch;
pub mod linear;
pub mod linear_f32;
pub mod linear_hopper;
pub mod linear_norm_hopper;
pub mod linear_rotary_hopper;
pub mod linear_swiglu_hopper;
pub mod list_slots;
pub mod lists;
pub mod mlp;
pub mod model;
pub mod norm;
pub mod norm_linear;
mod norm_product;
pub mod payment;
pub mod persistent_search;
pub mod product_hopper;
pub mod quantize;
pub mod reward;
pub mod reward_choice;
pub mod reward_input;
pub mod reward_towers;
pub mod rms_norm_f32;
pub mod scoring;
pub mod search;
pub mod segment_attention;
pub mod segment_mean;
pub mod swiglu;
pub mod tiling;
pub mod weights;

/// The kernels of every operation.
pub fn kernels() -> impl Iterator<Item = &'static launch::Kernel> {
    [
        attention::KERNELS,
        attention_hopper::KERNELS,
        auction::KERNELS,
        auction_regret::KERNELS,
        beam_attention::KERNELS,
        beam_attention_hopper::KERNELS,
        beam_self_attention::KERNELS,
        creative_choose::KERNELS,
        creative_input::KERNELS,
        decode_step::KERNELS,
        embed::KERNELS,
        linear::KERNELS,
        linear_f32::KERNELS,
        linear_hopper::KERNELS,
        linear_norm_hopper::KERNELS,
        linear_rotary_hopper::KERNELS,
        linear_swiglu_hopper::KERNELS,
        list_slots::KERNELS,
        norm::KERNELS,
        norm_linear::KERNELS,
        payment::KERNELS,
        persistent_search::KERNELS,
        quantize::KERNELS,
        reward_choice::KERNELS,
        reward_input::KERNELS,
        reward_towers::KERNELS,
        rms_norm_f32::KERNELS,
        search::bid_max::KERNELS,
        search::code_weights::KERNELS,
        search::expand::KERNELS,
        search::gather_lists::KERNELS,
        search::open_search::KERNELS,
        search::select::KERNELS,
        search::step_hopper::KERNELS,
        segment_attention::KERNELS,
        segment_mean::KERNELS,
        swiglu::KERNELS,
    ]
    .into_iter()
    .flatten()
}
