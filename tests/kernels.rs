//! The kernels of `kernels/` on an emulated GPU, in the plain and the check build: each is launched by its typed
//! launcher and compared with a reference. Inputs are drawn afresh in each run; the seed is printed on failure and
//! `BIDSLATE_SEED` repeats a run.

#[path = "kernels/attention.rs"]
mod attention;
#[path = "kernels/beam_attention.rs"]
mod beam_attention;
#[path = "kernels/beam_self_attention.rs"]
mod beam_self_attention;
#[path = "kernels/embed.rs"]
mod embed;
#[path = "kernels/emulator.rs"]
mod emulator;
#[path = "kernels/gpu.rs"]
mod gpu;
#[path = "kernels/linear.rs"]
mod linear;
#[path = "kernels/norm.rs"]
mod norm;
#[path = "kernels/norm_linear.rs"]
mod norm_linear;
#[path = "kernels/numbers.rs"]
mod numbers;
#[path = "kernels/ptx.rs"]
mod ptx;
#[allow(dead_code)]
#[path = "conformance/setup.rs"]
mod setup;
#[path = "kernels/signatures.rs"]
mod signatures;
#[path = "kernels/swiglu.rs"]
mod swiglu;
