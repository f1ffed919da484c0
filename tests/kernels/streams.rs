//! The devices that kernels are tested on.

use std::sync::Arc;

use bidslate::cuda::launch::Stream;
use simt::{Build, Copies, Schedule};

use crate::emulator::stream;
use crate::setup::Inputs;

/// What kernels are tested on: both builds of the emulator, the fast one, and the one that checks every access, in an
/// order of threads drawn anew. With `BIDSLATE_DEVICE=cuda:N` it is that GPU instead.
pub fn streams() -> Vec<Arc<dyn Stream>> {
    if let Ok(device) = std::env::var("BIDSLATE_DEVICE") {
        return vec![crate::gpu::stream(&device)];
    }
    let seed = Inputs::new().seed();
    vec![
        stream(Build::Plain, Schedule::Forward, Copies::Lazy),
        stream(Build::Check, Schedule::Random(seed), Copies::Random(seed)),
    ]
}
