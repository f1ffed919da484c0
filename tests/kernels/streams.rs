//! The devices that kernels are tested on.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;

use bidslate::cuda::launch::{Kernel, Stream};
use bidslate::error::DeviceError;
use simt::{Build, Copies, Schedule};

use crate::emulator::stream;
use crate::setup::Inputs;
use crate::watched::Watched;

/// What kernels are tested on: both builds of the emulator, the fast one, and the one that checks every access, in an
/// order of threads drawn anew. With `BIDSLATE_DEVICE=cuda:N` it is that GPU instead, and what it launches is added to the
/// file that `BIDSLATE_LAUNCHED` names, if any.
pub fn streams() -> Vec<Arc<dyn Stream>> {
    if let Ok(device) = std::env::var("BIDSLATE_DEVICE") {
        let stream = crate::gpu::stream(&device);
        return vec![match std::env::var_os("BIDSLATE_LAUNCHED") {
            Some(path) => witnessed(stream, &path),
            None => stream,
        }];
    }
    let seed = Inputs::new().seed();
    vec![
        stream(Build::Plain, Schedule::Forward, Copies::Lazy),
        stream(Build::Check, Schedule::Random(seed), Copies::Random(seed)),
    ]
}

/// Those of [`streams`] that run kernels made for Hopper. Of each other one the test says so, in words that
/// `scripts/gpu-check` looks for.
pub fn hopper_streams() -> Vec<Arc<dyn Stream>> {
    let runs = |stream: &Arc<dyn Stream>| match stream.hopper() {
        Ok(()) => true,
        Err(error @ DeviceError::NotHopper { .. }) => {
            println!("skipped: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    };
    streams().into_iter().filter(runs).collect()
}

/// A stream that adds a line `FILE KERNEL` to a file for each launch.
fn witnessed(stream: Arc<dyn Stream>, path: &OsStr) -> Arc<dyn Stream> {
    let launched = OpenOptions::new().append(true).create(true).open(path).unwrap();
    let witness = move |kernel: &Kernel| writeln!(&launched, "{} {}", kernel.file, kernel.name).unwrap();
    Watched::new(stream, Box::new(witness))
}

/// What needs the emulator itself.
mod emulated {
    use bidslate::cuda::launch::{Buffer, LaunchShape};

    use super::*;
    use crate::ptx::ptx_stream_copy;

    #[test]
    fn what_is_launched_is_written_down() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stream = stream(Build::Plain, Schedule::Forward, Copies::Lazy);
        let stream = witnessed(stream, file.path().as_os_str());
        let from = Buffer::from_slice(&stream, &[7u8; 64]).unwrap();
        let mut to = Buffer::<u8>::new(&stream, 64).unwrap();
        let shape = LaunchShape::new([1, 1, 1], 32);
        ptx_stream_copy(&*stream, shape, from.ptr(), to.ptr_mut(), 4).unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "ptx_check ptx_stream_copy\n");
        assert_eq!(to.to_vec().unwrap(), [7; 64]);
    }
}
