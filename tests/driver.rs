//! The CUDA driver's half of the launch interface on a stand-in for the driver's library: old drivers and devices,
//! launches that are refused, memory that runs out, and a context that is lost.
//!
//! The library is found when a process first asks for it, so each scenario runs in a process of its own.
#![cfg(feature = "cuda")]

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
    child.args(["--exact", &format!("scenarios::{scenario}"), "--ignored"]);
    child.env("LD_LIBRARY_PATH", LIBRARY.path()).envs(settings.iter().copied());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn an_old_driver_is_refused() {
    run("old_driver", &[("FAKE_VERSION", "12080")]);
}

#[test]
fn a_driver_without_devices_is_refused() {
    run("no_devices", &[("FAKE_DEVICES", "0")]);
}

#[test]
fn a_device_beyond_the_last_is_refused() {
    run("beyond_the_last", &[("FAKE_DEVICES", "2")]);
}

#[test]
fn an_old_device_is_refused() {
    run("old_device", &[("FAKE_CAPABILITY", "75")]);
}

#[test]
fn work_runs_in_order() {
    run("copies", &[]);
}

#[test]
fn recorded_work_runs_when_it_is_launched() {
    run("graphs", &[]);
}

#[test]
fn uploads_are_kept_until_the_device_has_read_them() {
    run("many_uploads", &[("FAKE_MEMORY", "100000000")]);
}

#[test]
fn work_is_timed_on_the_device() {
    run("timed", &[]);
}

#[test]
fn wrong_launches_are_refused() {
    run("wrong_launches", &[]);
}

#[test]
fn clusters_and_tensor_maps_reach_the_driver() {
    run("hopper", &[]);
}

#[test]
fn launches_whose_blocks_wait_for_each_other_reach_the_driver() {
    run("teams", &[]);
}

#[test]
fn launches_follow_each_other_as_their_stream_was_told() {
    run("programmatic", &[]);
}

#[test]
fn what_is_made_for_hopper_is_refused_elsewhere() {
    run("another_architecture", &[("FAKE_CAPABILITY", "100")]);
}

#[test]
fn memory_that_runs_out_is_told_with_figures() {
    run("out_of_memory", &[("FAKE_MEMORY", "1000")]);
}

#[test]
fn a_lost_context_is_an_error_from_then_on() {
    run("lost_context", &[]);
}

mod scenarios {
    use std::sync::Arc;

    use bidslate::cuda::driver::Driver;
    use bidslate::cuda::launch::{
        Boxes, Buffer, Kernel, KernelArgument, LaunchShape, Launches, Stream, Swizzle,
    };
    use bidslate::error::DeviceError;

    bidslate::kernels! {
        in "ptx_check";

        /// Copies `rows` rows of 16 bytes; the only kernel of the stand-in.
        fn ptx_stream_copy(from: Ptr<u8>, to: PtrMut<u8>, rows: u32);
    }

    /// So many rows lose the context.
    const FAULT: u32 = 0xfa117;

    /// So many rows write how they were launched.
    const TELL: u32 = 0x7e11;

    const SHAPE: LaunchShape = LaunchShape::new([1, 1, 1], 128);

    fn refusal(index: usize) -> DeviceError {
        Driver::open(index).err().expect("the device is not there")
    }

    fn stream() -> Arc<dyn Stream> {
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
    fn wrong_launches() {
        static UNKNOWN: Kernel = Kernel { name: "nothing", file: "ptx_check", parameters: &[] };
        let stream = stream();
        let launch =
            |kernel, arguments: &[&[u8]]| stream.launch(kernel, SHAPE, arguments).unwrap_err().to_string();
        let error = launch(&UNKNOWN, &[]);
        assert!(error.contains("nothing") && error.contains("kernels/ptx_check.cu"), "{error}");
        let error = launch(&KERNELS[0], &[1u64.bytes(), 2u64.bytes()]);
        assert!(error.contains("arguments of [8, 8] bytes, expected [8, 8, 4]"), "{error}");
        let error = launch(&KERNELS[0], &[1u64.bytes(), 2u64.bytes(), 3u64.bytes()]);
        assert!(error.contains("arguments of [8, 8, 8] bytes, expected [8, 8, 4]"), "{error}");

        let mut buffer = Buffer::from_slice(&stream, &[0u8; 16]).unwrap();
        let mut with_shared =
            |bytes| ptx_stream_copy(&*stream, SHAPE.shared(bytes), buffer.ptr(), buffer.ptr_mut(), 0);
        with_shared(227 << 10).unwrap();
        with_shared(16).unwrap();
        let error = with_shared((227 << 10) + 1).unwrap_err().to_string();
        assert!(error.contains("ptx_stream_copy: INVALID_VALUE"), "{error}");
        with_shared(200 << 10).expect("a refused launch leaves the context as it was");
    }

    fn launch_in_clusters(stream: &dyn Stream, grid: u32, blocks: u32) -> Result<(), DeviceError> {
        let shape = LaunchShape::new([grid, 1, 1], 128).clusters(blocks);
        ptx_stream_copy(stream, shape, Ptr::NULL, PtrMut::NULL, 0)
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn hopper() {
        let stream = stream();
        stream.hopper().unwrap();
        for (grid, blocks) in [(3, 1), (4, 2), (8, 8), (32, 16)] {
            launch_in_clusters(&*stream, grid, blocks).unwrap();
        }
        // Not a whole number of clusters; more blocks than a cluster may have; none.
        for (grid, blocks, refusal) in
            [(4, 3, "INVALID_CLUSTER_SIZE"), (34, 17, "INVALID_CLUSTER_SIZE"), (4, 0, "INVALID_VALUE")]
        {
            let error = launch_in_clusters(&*stream, grid, blocks).unwrap_err().to_string();
            assert!(error.contains(&format!("ptx_stream_copy: {refusal}")), "{error}");
        }

        let array = Buffer::<half::bf16>::new(&stream, 4096).unwrap();
        let [rows, columns, stride] = [7, 100, 104];
        let map =
            TensorMap::rows(&*stream, array.at(8), [rows, columns, stride], [64, 128], Swizzle::Bytes128);
        let words: [u64; 16] = bytemuck::cast(map.unwrap().0);
        let address = u64::from_ne_bytes(array.at(8).bytes().try_into().unwrap());
        // bf16, two dimensions, 128 bytes of swizzle.
        assert_eq!(words[..9], [9, 2, address, 3, 100, 7, 208, 64, 128]);

        // Three dimensions, whose strides are bytes too.
        let boxes =
            Boxes { sizes: &[24, 3, 5], strides: &[32, 96], sides: &[16, 3, 2], swizzle: Swizzle::Bytes32 };
        let map = TensorMap::new(&*stream, array.ptr(), boxes).unwrap();
        let words: [u64; 16] = bytemuck::cast(map.0);
        assert_eq!(
            (words[..2].to_vec(), words[3..12].to_vec()),
            (vec![9, 3], vec![1, 24, 3, 5, 64, 192, 16, 3, 2])
        );

        let make = |at, sizes: &[usize], strides: &[usize], sides: &[usize], swizzle| {
            TensorMap::new(&*stream, array.at(at), Boxes { sizes, strides, sides, swizzle })
        };
        let refused = |at, sizes: &[usize], strides: &[usize], sides: &[usize], swizzle| {
            let error = make(at, sizes, strides, sides, swizzle).unwrap_err().to_string();
            assert!(error.contains("tensor map: INVALID_VALUE"), "{error}");
        };
        let none = Swizzle::None;
        make(0, &[100, 7], &[stride], &[64, 1], none).expect("the refused ones differ from it in one thing");
        refused(4, &[100, 7], &[stride], &[64, 1], none);
        refused(0, &[100, 0], &[stride], &[64, 1], none);
        refused(0, &[100, 7], &[stride + 1], &[64, 1], none);
        refused(0, &[100, 7], &[1 << 40], &[64, 1], none);
        refused(0, &[100, 7], &[stride], &[64, 0], none);
        refused(0, &[100, 7], &[stride], &[64, 257], none);
        refused(0, &[100, 7], &[stride], &[64, (1 << 32) + 1], none);
        refused(0, &[100, 7], &[stride], &[4, 1], none);
        refused(0, &[100, 7], &[stride], &[64, 1], Swizzle::Bytes64);
        refused(0, &[100, 7], &[stride], &[64], none);
        refused(0, &[100, 7], &[], &[64, 1], none);
        refused(0, &[100], &[stride], &[64], none);
        refused(0, &[], &[], &[], none);
        refused(0, &[8; 6], &[8; 5], &[8; 6], none);
    }

    /// What reached the driver of a launch: blocks, threads, shared bytes, blocks of a cluster, whether it is
    /// cooperative, and programmatic.
    struct Told(Buffer<u32>);

    impl Told {
        fn new(stream: &Arc<dyn Stream>) -> Self {
            Self(Buffer::from_slice(stream, &[7; 6]).unwrap())
        }

        fn launch(&mut self, stream: &dyn Stream, shape: LaunchShape) -> Result<(), DeviceError> {
            let to: u64 = bytemuck::cast_slice(self.0.ptr_mut().bytes())[0];
            stream.launch(&KERNELS[0], shape, &[0u64.bytes(), to.bytes(), TELL.bytes()])
        }

        fn found(&self) -> Vec<u32> {
            self.0.to_vec().unwrap()
        }
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn programmatic() {
        let driver = Driver::open(0).unwrap();
        let [stream, other] = [(); 2].map(|()| driver.stream().unwrap());
        let in_clusters = LaunchShape::new([16, 1, 1], 96).shared(100 << 10).clusters(8);
        let mut launched = [SHAPE, in_clusters, SHAPE.cooperative()].map(|shape| (shape, Told::new(&stream)));
        let mut told = |stream: &dyn Stream| {
            launched.each_mut().map(|(shape, told)| {
                told.launch(stream, *shape).unwrap();
                told.found()
            })
        };
        let expected = |programmatic| {
            let in_clusters = vec![16, 96, 100 << 10, 8, 0, programmatic];
            [vec![1, 128, 0, 1, 0, programmatic], in_clusters, vec![1, 128, 0, 1, 1, 0]]
        };
        assert_eq!(told(&*stream), expected(0), "at first");
        stream.set_launches(Launches::Programmatic).unwrap();
        assert_eq!(told(&*stream), expected(1));
        assert_eq!(told(&*other), expected(0), "of the other stream nothing was asked");

        let mut recorded = Told::new(&stream);
        let graph = stream.capture(&mut || recorded.launch(&*stream, SHAPE)).unwrap();
        stream.set_launches(Launches::Ordinary).unwrap();
        graph.launch().unwrap();
        assert_eq!(recorded.found(), expected(1)[0], "as it was recorded");
        assert_eq!(told(&*stream), expected(0), "again");
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn teams() {
        let stream = stream();
        let resident = |shape| stream.resident(&KERNELS[0], shape).unwrap();
        assert_eq!(resident(LaunchShape::new([1, 1, 1], 256).shared(100 << 10)), 2 * 132);
        assert_eq!(resident(LaunchShape::new([8, 1, 1], 256).clusters(8)), 16 * 8);
        assert_eq!(resident(LaunchShape::new([16, 1, 1], 256).clusters(16)), 8 * 16);
        assert_eq!(resident(LaunchShape::new([1, 1, 1], 2048)), 0);
        let launch = |blocks| {
            let shape = LaunchShape::new([blocks, 1, 1], 128).cooperative();
            ptx_stream_copy(&*stream, shape, Ptr::NULL, PtrMut::NULL, 0)
        };
        launch(132).unwrap();
        let error = launch(133).unwrap_err().to_string();
        assert!(error.contains("ptx_stream_copy: COOPERATIVE_LAUNCH_TOO_LARGE"), "{error}");
    }

    #[test]
    #[ignore = "run under the stand-in"]
    fn another_architecture() {
        let stream = stream();
        let expected = DeviceError::NotHopper { device: "cuda:0, Fake GPU".into(), found: "sm_100".into() };
        assert_eq!(stream.hopper(), Err(expected.clone()));
        assert_eq!(launch_in_clusters(&*stream, 4, 2), Err(expected.clone()));
        let array = Buffer::<f32>::new(&stream, 64).unwrap();
        let map = TensorMap::rows(&*stream, array.ptr(), [4, 16, 16], [16, 4], Swizzle::None);
        assert_eq!(map, Err(expected.clone()));
        launch_in_clusters(&*stream, 4, 1).unwrap();
        assert_eq!(stream.set_launches(Launches::Programmatic), Err(expected));
        launch_in_clusters(&*stream, 4, 1).expect("launches are ordinary ones as before");
        stream.set_launches(Launches::Ordinary).unwrap();
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
