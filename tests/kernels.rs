//! The kernels of `kernels/` on an emulated GPU, in the plain and the check build: each is launched by its typed
//! launcher and compared with a reference. Inputs are drawn afresh in each run; the seed is printed on failure and
//! `BIDSLATE_SEED` repeats a run.

#[path = "kernels/allocation.rs"]
mod allocation;
#[path = "kernels/attention.rs"]
mod attention;
#[path = "kernels/attention_hopper.rs"]
mod attention_hopper;
#[path = "kernels/auction.rs"]
mod auction;
#[path = "kernels/audit.rs"]
mod audit;
#[path = "kernels/beam_attention.rs"]
mod beam_attention;
#[path = "kernels/beam_attention_hopper.rs"]
mod beam_attention_hopper;
#[path = "kernels/beam_self_attention.rs"]
mod beam_self_attention;
#[path = "kernels/catalog.rs"]
mod catalog;
#[path = "kernels/creative.rs"]
mod creative;
#[path = "kernels/decode_step.rs"]
mod decode_step;
#[path = "kernels/embed.rs"]
mod embed;
#[path = "kernels/emulator.rs"]
mod emulator;
#[path = "kernels/encoder.rs"]
mod encoder;
#[path = "kernels/gpu.rs"]
mod gpu;
#[path = "kernels/graph.rs"]
mod graph;
#[path = "kernels/libm.rs"]
mod libm;
#[path = "kernels/linear.rs"]
mod linear;
#[path = "kernels/linear_f32.rs"]
mod linear_f32;
#[path = "kernels/linear_hopper.rs"]
mod linear_hopper;
#[path = "kernels/linear_norm_hopper.rs"]
mod linear_norm_hopper;
#[path = "kernels/linear_rotary_hopper.rs"]
mod linear_rotary_hopper;
#[path = "kernels/linear_swiglu_hopper.rs"]
mod linear_swiglu_hopper;
#[path = "kernels/list_slots.rs"]
mod list_slots;
#[path = "kernels/norm.rs"]
mod norm;
#[path = "kernels/norm_linear.rs"]
mod norm_linear;
#[path = "kernels/numbers.rs"]
mod numbers;
#[path = "kernels/payment.rs"]
mod payment;
#[path = "kernels/ptx.rs"]
mod ptx;
#[path = "kernels/quantize.rs"]
mod quantize;
#[path = "kernels/reward.rs"]
mod reward;
#[path = "kernels/reward_choice.rs"]
mod reward_choice;
#[path = "kernels/rms_norm_f32.rs"]
mod rms_norm_f32;
#[path = "kernels/sample.rs"]
mod sample;
#[path = "kernels/search.rs"]
mod search;
#[path = "kernels/segment_attention.rs"]
mod segment_attention;
#[path = "kernels/segment_mean.rs"]
mod segment_mean;
#[allow(dead_code)]
#[path = "conformance/setup.rs"]
mod setup;
#[path = "kernels/signatures.rs"]
mod signatures;
#[path = "kernels/streams.rs"]
mod streams;
mod support;
#[path = "kernels/swiglu.rs"]
mod swiglu;
#[path = "kernels/watched.rs"]
mod watched;
mod world;
