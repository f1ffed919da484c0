//! The CUDA driver's half of the launch interface on a stand-in for the driver's library: old drivers and devices,
//! launches that are refused, memory that runs out, and a context that is lost.
//!
//! The library is found when a process first asks for it, so each scenario runs in a process of its own.
#![cfg(feature = "cuda")]

#[path = "driver/launches.rs"]
mod launches;

use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

/// A folder with the stand-in as `libcuda.so`.
static LIBRARY: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/driver/libcuda.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", source, "-o"]).arg(folder.path().join("libcuda.so"));
    assert!(compiler.status().unwrap().success(), "{compiler:?}");
    folder
});

/// Runs a scenario in a process that finds the stand-in, set up by `settings`.
fn run(scenario: &str, settings: &[(&str, &str)]) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", scenario, "--ignored"]);
    child.env("LD_LIBRARY_PATH", LIBRARY.path()).envs(settings.iter().copied());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn an_old_driver_is_refused() {
    run("scenarios::old_driver", &[("FAKE_VERSION", "12080")]);
}

#[test]
fn a_driver_without_devices_is_refused() {
    run("scenarios::no_devices", &[("FAKE_DEVICES", "0")]);
}

#[test]
fn a_device_beyond_the_last_is_refused() {
    run("scenarios::beyond_the_last", &[("FAKE_DEVICES", "2")]);
}

#[test]
fn an_old_device_is_refused() {
    run("scenarios::old_device", &[("FAKE_CAPABILITY", "75")]);
}

#[test]
fn work_runs_in_order() {
    run("scenarios::copies", &[]);
}

#[test]
fn recorded_work_runs_when_it_is_launched() {
    run("scenarios::graphs", &[]);
}

#[test]
fn uploads_are_kept_until_the_device_has_read_them() {
    run("scenarios::many_uploads", &[("FAKE_MEMORY", "100000000")]);
}

#[test]
fn work_is_timed_on_the_device() {
    run("scenarios::timed", &[]);
}

#[test]
fn wrong_launches_are_refused() {
    run("launches::wrong_launches", &[]);
}

#[test]
fn shared_memory_is_asked_for_beyond_what_a_kernel_declares() {
    run("launches::declared_shared_memory", &[("FAKE_DECLARED", "20480")]);
}

#[test]
fn streams_ask_for_shared_memory_one_at_a_time() {
    run("launches::streams_at_once", &[]);
}

#[test]
fn clusters_and_tensor_maps_reach_the_driver() {
    run("launches::hopper", &[]);
}

#[test]
fn tensor_maps_have_the_numbers_of_the_driver() {
    run("launches::tensor_maps", &[]);
}

#[test]
fn launches_whose_blocks_wait_for_each_other_reach_the_driver() {
    run("launches::teams", &[]);
}

#[test]
fn launches_follow_each_other_as_their_stream_was_told() {
    run("launches::programmatic", &[]);
}

#[test]
fn what_is_made_for_hopper_is_refused_elsewhere() {
    run("launches::another_architecture", &[("FAKE_CAPABILITY", "100")]);
}

#[test]
fn memory_that_runs_out_is_told_with_figures() {
    run("scenarios::out_of_memory", &[("FAKE_MEMORY", "1000")]);
}

#[test]
fn a_lost_context_is_an_error_from_then_on() {
    run("scenarios::lost_context", &[]);
}

mod scenarios {
    use std::sync::Arc;

    use bidslate::cuda::driver::Driver;
    use bidslate::cuda::launch::{Buffer, LaunchShape, Stream};
    use bidslate::error::DeviceError;

    bidslate::kernels! {
        in "ptx_check";

        /// Copies `rows` rows of 16 bytes; the only kernel of the stand-in.
        fn ptx_stream_copy(from: Ptr<u8>, to: PtrMut<u8>, rows: u32);
    }

    /// So many rows lose the context.
    const FAULT: u32 = 0xfa117;

    /// Blocks and threads for a few rows.
    pub const SHAPE: LaunchShape = LaunchShape::new([1, 1, 1], 128);

    fn refusal(index: usize) -> DeviceError {
        Driver::open(index).err().expect("the device is not there")
    }

    /// A stream of the stand-in's first device.
    pub fn stream() -> Arc<dyn Stream> {
        Driver::open(0).unwrap().stream().unwrap()
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn old_driver() {
        let (found, needed) = ("12.8".into(), "13.0".into());
        assert_eq!(refusal(0), DeviceError::DriverTooOld { index: 0, found, needed });
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn no_devices() {
        assert_eq!(refusal(0), DeviceError::NoDevice { index: 0, count: 0 });
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn beyond_the_last() {
        assert_eq!(refusal(2), DeviceError::NoDevice { index: 2, count: 2 });
        Driver::open(1).unwrap();
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn old_device() {
        let (found, needed) = ("7.5".into(), "8.0".into());
        assert_eq!(
            refusal(0),
            DeviceError::Architecture { device: "cuda:0, Fake GPU".into(), found, needed }
        );
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn copies() {
        let driver = Driver::open(0).unwrap();
        assert_eq!(driver.describe(), "cuda:0, Fake GPU (sm_90), driver of CUDA 13.0");
        assert_eq!(driver.stream().unwrap().kind(), "cuda sm_90");
        for stream in [driver.stream().unwrap(), driver.stream().unwrap()] {
            let values: Vec<u8> = (0..64).collect();
            let from = Buffer::from_slice(&stream, &values).unwrap();
            let mut to = Buffer::from_slice(&stream, &[0u8; 64]).unwrap();
            ptx_stream_copy(&*stream, SHAPE, from.ptr(), to.ptr_mut(), 3).unwrap();
            let found = to.to_vec().unwrap();
            assert!(found[..48] == values[..48] && found[48..] == [0; 16], "{found:?}");
            // Together, within the page-locked memory of the stream and beyond it.
            let large = Buffer::from_slice(&stream, &vec![7u8; 300_000]).unwrap();
            for count in [1, 20] {
                let (mut first, mut last) = ([0; 5], [0; 30]);
                let mut middle = vec![vec![0; large.len()]; count];
                let mut copies = vec![from.reading(3, &mut first)];
                copies.extend(middle.iter_mut().map(|middle| large.reading(0, middle)));
                copies.push(to.reading(34, &mut last));
                stream.download(&mut copies).unwrap();
                assert_eq!((&first[..], &last[..]), (&values[3..8], &found[34..]));
                assert!(middle.iter().flatten().all(|&byte| byte == 7));
            }
        }
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn graphs() {
        let stream = stream();
        let mut from = Buffer::from_slice(&stream, &[1u8; 16]).unwrap();
        let mut to = Buffer::from_slice(&stream, &[0u8; 16]).unwrap();
        let mut copy = || ptx_stream_copy(&*stream, SHAPE, from.ptr(), to.ptr_mut(), 1);
        let graph = stream.capture(&mut copy).unwrap();
        assert_eq!(to.to_vec().unwrap(), [0; 16]);
        for value in [1, 2] {
            from.upload(0, &[value; 16]).unwrap();
            graph.launch().unwrap();
            assert_eq!(to.to_vec().unwrap(), [value; 16]);
        }

        // On a thread that has used no device before.
        std::thread::spawn(|| drop(graph)).join().unwrap();
        stream.synchronize().expect("nothing went wrong");

        let refused = stream.capture(&mut || from.upload(0, &[3; 16])).err().unwrap().to_string();
        assert!(refused.contains("upload: not while a graph is recorded"), "{refused}");
        from.upload(0, &[3; 16]).expect("the capture has ended");
    }

    /// Sizes below, at and above that of the staging memory.
    #[test]
    #[ignore = "run under the stand-in"]
    fn many_uploads() {
        let stream = stream();
        let megabytes = [1, 3, 4, 5, 2, 2, 1, 3, 9, 1].map(|m: usize| m << 20);
        let values = |i: usize, len: usize| (0..len).map(|k| (k % 251 + 7 * i) as u8).collect::<Vec<_>>();
        let mut buffers: Vec<_> =
            megabytes.iter().map(|&len| Buffer::<u8>::new(&stream, len).unwrap()).collect();
        for (i, (buffer, len)) in buffers.iter_mut().zip(megabytes).enumerate() {
            let mut values = values(i, len);
            buffer.upload(0, &values).unwrap();
            // The source may be changed at once.
            values.fill(0);
        }
        for (i, (buffer, len)) in buffers.iter().zip(megabytes).enumerate() {
            assert!(buffer.to_vec().unwrap() == values(i, len), "buffer {i}");
        }
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn timed() {
        let driver = Driver::open(0).unwrap();
        let stream = driver.stream().unwrap();
        assert_eq!(stream.shared_bytes(), 227 << 10);
        let mut runs = 0;
        let time = stream.time(&mut || {
            runs += 1;
            Ok(())
        });
        assert_eq!((time, runs), (Ok(std::time::Duration::from_millis(1)), 1));
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn out_of_memory() {
        let stream = stream();
        let held = Buffer::<u8>::new(&stream, 600).unwrap();
        let (device, needed) = ("cuda:0".into(), 500);
        let error = Buffer::<u8>::new(&stream, needed).unwrap_err();
        assert_eq!(error, DeviceError::OutOfMemory { device, needed, free: 400, total: 1000 });
        drop(held);
        Buffer::<u8>::new(&stream, needed).unwrap();
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn lost_context() {
        let driver = Driver::open(0).unwrap();
        let [stream, other] = [(); 2].map(|()| driver.stream().unwrap());
        let mut buffer = Buffer::from_slice(&stream, &[0u8; 16]).unwrap();
        let fault = ptx_stream_copy(&*stream, SHAPE, buffer.ptr(), buffer.ptr_mut(), FAULT).unwrap_err();
        let message = fault.to_string();
        assert!(
            message.contains("cuda:0") && message.contains("ptx_stream_copy: ILLEGAL_ADDRESS"),
            "{message}"
        );
        let later = [
            buffer.upload(0, &[1]).unwrap_err(),
            buffer.to_vec().unwrap_err(),
            other.synchronize().unwrap_err(),
            other.allocate(16).unwrap_err(),
            ptx_stream_copy(&*other, SHAPE, buffer.ptr(), buffer.ptr_mut(), 1).unwrap_err(),
            driver.stream().err().unwrap(),
        ];
        assert!(later.iter().all(|error| *error == fault), "{later:?}");
        // Neither gives anything back, and neither panics.
        drop((buffer, stream, other));
        drop(driver);
    }
}
