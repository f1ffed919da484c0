//! The kernels of `kernels/` on an emulated GPU, in the plain and the check build: each is launched by its typed
//! launcher and compared with a reference. Inputs are drawn afresh in each run; the seed is printed on failure and
//! `BIDSLATE_SEED` repeats a run.

#[path = "kernels/emulator.rs"]
mod emulator;
#[path = "kernels/gpu.rs"]
mod gpu;
#[path = "kernels/ptx.rs"]
mod ptx;
#[allow(dead_code)]
#[path = "conformance/setup.rs"]
mod setup;
#[path = "kernels/signatures.rs"]
mod signatures;
