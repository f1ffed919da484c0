//! The kernels of `kernels/` on an emulated GPU, in the plain and the check build: each is launched by its typed
//! launcher and compared with a reference.

#[path = "kernels/emulator.rs"]
#[allow(dead_code, reason = "kernels run on it as they come")]
mod emulator;
#[path = "kernels/signatures.rs"]
mod signatures;
