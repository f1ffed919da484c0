//! Work that is recorded and launched as one.

use bidslate::cuda::launch::{Buffer, KernelArgument, LaunchShape, Launches, Ptr};
use bidslate::error::DeviceError;

use crate::ptx::ptx_stream_copy;
use crate::streams::{hopper_streams, streams};

const SHAPE: LaunchShape = LaunchShape::new([1, 1, 1], 32);

#[test]
fn a_graph_runs_at_each_launch_and_not_before() {
    for stream in streams() {
        let what = stream.describe();
        let mut from = Buffer::from_slice(&stream, &[1u8; 64]).unwrap();
        let mut middle = Buffer::from_slice(&stream, &[0u8; 64]).unwrap();
        let mut to = Buffer::from_slice(&stream, &[0u8; 64]).unwrap();
        let copy = |from: &Buffer<u8>, to: &mut Buffer<u8>| {
            ptx_stream_copy(&*stream, SHAPE, from.ptr(), to.ptr_mut(), 4)
        };
        let graph = stream
            .capture(&mut || {
                copy(&from, &mut middle)?;
                copy(&middle, &mut to)
            })
            .unwrap();
        assert_eq!(to.to_vec().unwrap(), [0; 64], "{what}");
        for value in [1, 2] {
            from.upload(0, &[value; 64]).unwrap();
            graph.launch().unwrap();
            assert_eq!(to.to_vec().unwrap(), [value; 64], "{what}");
        }
    }
}

fn address(array: Ptr<u8>) -> u64 {
    u64::from_ne_bytes(array.bytes().try_into().unwrap())
}

/// Kernels in a chain, each of which reads what the one before wrote, with a copy between two of them: whichever began
/// too early would pass on what its predecessor had there from the run before.
#[test]
fn programmatic_launches_keep_their_order_recorded_or_not() {
    const BYTES: usize = 1 << 15;
    const LINKS: usize = 40;
    for stream in hopper_streams() {
        let what = stream.describe();
        let mut chain: Vec<_> =
            (0..=LINKS).map(|_| Buffer::from_slice(&stream, &[0u8; BYTES]).unwrap()).collect();
        let pass_on = |chain: &mut [Buffer<u8>]| -> Result<(), DeviceError> {
            (0..LINKS).try_for_each(|link| {
                let [from, to] = &mut chain[link..link + 2] else { unreachable!() };
                let shape = LaunchShape::new([BYTES as u32 / 16 / 128, 1, 1], 128);
                match link == LINKS / 2 {
                    true => stream.copy(address(to.ptr()), address(from.ptr()), BYTES),
                    false => ptx_stream_copy(&*stream, shape, from.ptr(), to.ptr_mut(), BYTES as u32 / 16),
                }
            })
        };
        stream.set_launches(Launches::Programmatic).unwrap();
        let graph = stream.capture(&mut || pass_on(&mut chain)).unwrap();
        for value in 1..6 {
            chain[0].upload(0, &[value; BYTES]).unwrap();
            match value % 2 {
                0 => pass_on(&mut chain).unwrap(),
                _ => graph.launch().unwrap(),
            }
            assert!(chain[LINKS].to_vec().unwrap() == [value; BYTES], "{value}: {what}");
        }
        stream.set_launches(Launches::Ordinary).unwrap();
    }
}

#[test]
fn what_cannot_be_recorded_is_refused_and_leaves_the_stream_as_it_was() {
    for stream in streams() {
        let what = stream.describe();
        let mut buffer = Buffer::from_slice(&stream, &[1u8; 16]).unwrap();
        let refused = |error: DeviceError| {
            assert!(error.to_string().contains("not while a graph is recorded"), "{what}: {error}");
        };
        let captured = stream.capture(&mut || {
            refused(buffer.to_vec().unwrap_err());
            refused(stream.synchronize().unwrap_err());
            refused(Buffer::<u8>::new(&stream, 16).unwrap_err());
            refused(stream.capture(&mut || Ok(())).err().unwrap());
            buffer.upload(0, &[2; 16])
        });
        refused(captured.err().unwrap());
        assert_eq!(buffer.to_vec().unwrap(), [1; 16], "{what}");
        buffer.upload(0, &[3; 16]).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [3; 16], "{what}");
    }
}
