//! What reaches the driver of launches and tensor maps, and what is refused before or by it.

use std::sync::Arc;

use bidslate::cuda::driver::Driver;
use bidslate::cuda::launch::{
    Boxes, Buffer, Element, Kernel, KernelArgument, LaunchShape, Launches, Ptr, PtrMut, Stream, Swizzle,
    TensorMap,
};
use bidslate::error::DeviceError;

use crate::scenarios::{KERNELS, SHAPE, ptx_stream_copy, stream};

/// So many rows write how they were launched.
const TELL: u32 = 0x7e11;

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

/// What the kernel declares counts too.
#[test]
#[ignore = "run under the stand-in"]
fn declared_shared_memory() {
    let stream = stream();
    let with_shared = |bytes| ptx_stream_copy(&*stream, SHAPE.shared(bytes), Ptr::NULL, PtrMut::NULL, 0);
    with_shared(27 << 10).unwrap();
    with_shared(40 << 10).unwrap();
    with_shared(207 << 10).unwrap();
    let error = with_shared(208 << 10).unwrap_err().to_string();
    assert!(error.contains("ptx_stream_copy: INVALID_VALUE"), "{error}");
}

/// Streams that need more than was allowed, at the same time.
#[test]
#[ignore = "run under the stand-in"]
fn streams_at_once() {
    let driver = Driver::open(0).unwrap();
    let streams = [(); 4].map(|()| driver.stream().unwrap());
    std::thread::scope(|scope| {
        for (stream, kibibytes) in streams.iter().zip([200, 100, 150, 60]) {
            scope.spawn(move || {
                let shape = SHAPE.shared(kibibytes << 10);
                for _ in 0..3 {
                    ptx_stream_copy(&**stream, shape, Ptr::NULL, PtrMut::NULL, 0).unwrap();
                }
            });
        }
    });
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
    let map = TensorMap::rows(&*stream, array.at(8), [rows, columns, stride], [64, 128], Swizzle::Bytes128);
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
    refused(0, &[100, 7], &[stride], &[64, 1, 1], none);
    refused(0, &[100, 7], &[], &[64, 1], none);
    refused(0, &[100], &[stride], &[64], none);
    refused(0, &[], &[], &[], none);
    refused(0, &[8; 6], &[8; 5], &[8; 6], none);
}

/// Type, dimensions and swizzle in the map of two rows of 16 bytes.
fn encoded<T: Element>(stream: &Arc<dyn Stream>, swizzle: Swizzle) -> [u64; 3] {
    let columns = 16 / size_of::<T>();
    let array = Buffer::<T>::new(stream, 2 * columns).unwrap();
    let map = TensorMap::rows(&**stream, array.ptr(), [2, columns, columns], [columns, 2], swizzle);
    let words: [u64; 16] = bytemuck::cast(map.unwrap().0);
    assert_eq!(words[4..9], [columns as u64, 2, 16, columns as u64, 2]);
    [words[0], words[1], words[3]]
}

/// The numbers are those of cuda.h.
#[test]
#[ignore = "run under the stand-in"]
fn tensor_maps() {
    let stream = stream();
    let none = Swizzle::None;
    assert_eq!(encoded::<u8>(&stream, none), [0, 2, 0]);
    assert_eq!(encoded::<u16>(&stream, none), [1, 2, 0]);
    assert_eq!(encoded::<u32>(&stream, none), [2, 2, 0]);
    assert_eq!(encoded::<i32>(&stream, none), [3, 2, 0]);
    assert_eq!(encoded::<u64>(&stream, none), [4, 2, 0]);
    assert_eq!(encoded::<f32>(&stream, none), [7, 2, 0]);
    assert_eq!(encoded::<f64>(&stream, none), [8, 2, 0]);
    for (number, swizzle) in [(1, Swizzle::Bytes32), (2, Swizzle::Bytes64), (3, Swizzle::Bytes128)] {
        assert_eq!(encoded::<half::bf16>(&stream, swizzle), [9, 2, number]);
    }
}

/// What reached the driver of a launch: blocks in x, y and z, threads, shared bytes, blocks of a cluster, whether it is
/// cooperative, and programmatic.
struct Told(Buffer<u32>);

impl Told {
    fn new(stream: &Arc<dyn Stream>) -> Self {
        Self(Buffer::from_slice(stream, &[7; 8]).unwrap())
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
    let in_clusters = LaunchShape::new([16, 2, 3], 96).shared(100 << 10).clusters(8);
    let mut launched = [SHAPE, in_clusters, SHAPE.cooperative()].map(|shape| (shape, Told::new(&stream)));
    let mut told = |stream: &dyn Stream| {
        launched.each_mut().map(|(shape, told)| {
            told.launch(stream, *shape).unwrap();
            told.found()
        })
    };
    let expected = |programmatic| {
        let in_clusters = vec![16, 2, 3, 96, 100 << 10, 8, 0, programmatic];
        [vec![1, 1, 1, 128, 0, 1, 0, programmatic], in_clusters, vec![1, 1, 1, 128, 0, 1, 1, 0]]
    };
    assert_eq!(told(&*stream), expected(0), "at first");
    stream.set_launches(Launches::Programmatic).unwrap();
    assert_eq!(told(&*stream), expected(1));
    assert_eq!(told(&*other), expected(0), "of the other stream nothing was asked");

    let mut recorded = [(); 2].map(|()| Told::new(&stream));
    let mut both = || recorded.iter_mut().try_for_each(|told| told.launch(&*stream, SHAPE));
    let graph = stream.capture(&mut both).unwrap();
    assert_eq!(told(&*stream), expected(1), "after a graph");
    stream.set_launches(Launches::Ordinary).unwrap();
    graph.launch().unwrap();
    let of_graph = [expected(0), expected(1)].map(|[told, ..]| told);
    assert_eq!(recorded.map(|told| told.found()), of_graph, "as it was recorded: the first follows none");
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
