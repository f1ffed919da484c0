//! Launches and device memory, on both builds.

use std::thread;

use simt::{Build, Emulator, Fault, FaultKind, MemoryError};

fn emulators() -> [Emulator; 2] {
    [Build::Plain, Build::Check].map(|build| Emulator::open(build).unwrap())
}

fn upload(emulator: &Emulator, values: &[f32]) -> u64 {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    let address = emulator.allocate(bytes.len()).unwrap();
    emulator.write(address, &bytes).unwrap();
    address
}

fn download(emulator: &Emulator, address: u64, count: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * count];
    emulator.read(address, &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|value| f32::from_ne_bytes(value.try_into().unwrap())).collect()
}

#[test]
fn a_kernel_runs() {
    for emulator in emulators() {
        let values: Vec<f32> = (0..1000u16).map(f32::from).collect();
        let x = upload(&emulator, &values);
        let arguments: [&[u8]; 3] = [&x.to_ne_bytes(), &2.5f32.to_ne_bytes(), &1000u32.to_ne_bytes()];
        // SAFETY: `x` has 1000 floats.
        let stats = unsafe { emulator.launch("scale", [8, 1, 1], [128, 1, 1], 0, &arguments) }.unwrap();
        assert_eq!(stats.blocks, 8);
        let wanted: Vec<f32> = values.iter().map(|value| value * 2.5).collect();
        assert_eq!(download(&emulator, x, 1000), wanted);
        emulator.free(x).unwrap();
    }
}

#[test]
fn signatures_are_those_of_the_source() {
    for emulator in emulators() {
        let kernels = emulator.kernels();
        let scale = kernels.iter().find(|kernel| kernel.name == "scale").unwrap();
        assert_eq!(scale.file, "simt/tests/kernels/scale.cu");
        let arguments: Vec<_> =
            scale.arguments.iter().map(|a| (a.size, a.pointer, a.type_name.as_str())).collect();
        assert_eq!(arguments, [(8, true, "float*"), (4, false, "float"), (4, false, "unsigned int")]);
    }
}

fn launch(
    emulator: &Emulator,
    name: &str,
    block: [u32; 3],
    shared: u32,
    arguments: &[&[u8]],
) -> Result<(), Fault> {
    // SAFETY: these launches are refused before the kernel runs, or have an empty range to work on.
    unsafe { emulator.launch(name, [1; 3], block, shared, arguments) }.map(drop)
}

#[test]
fn wrong_launches_are_refused() {
    let good: [&[u8]; 3] = [&[0; 8], &[0; 4], &[0; 4]];
    let wide: [&[u8]; 3] = [&[0; 8], &[0; 8], &[0; 4]];
    for emulator in emulators() {
        let refused = |name, block, shared, arguments: &[&[u8]], message| {
            let fault = launch(&emulator, name, block, shared, arguments).unwrap_err();
            assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::Launch, message));
            assert_eq!(&*fault.kernel, name);
        };
        refused("no_such_kernel", [1; 3], 0, &good, "there is no kernel of this name");
        refused("scale", [1; 3], 0, &good[..2], "it takes 3 arguments, not 2");
        refused("scale", [1; 3], 0, &wide, "argument 1 is a float of 4 bytes, not of 8");
        refused("scale", [1025, 1, 1], 0, &good, "a block of more than 1024 threads");
        refused("scale", [33, 32, 1], 0, &good, "a block of more than 1024 threads");
        refused("scale", [32, 0, 1], 0, &good, "a block without threads");
        refused("scale", [1; 3], 232449, &good, "more than 232448 bytes of dynamic shared memory");
        launch(&emulator, "scale", [1024, 1, 1], 232448, &good).unwrap();
    }
}

#[test]
fn device_memory_is_checked() {
    for emulator in emulators() {
        let x = emulator.allocate(10).unwrap();
        assert_eq!(x % 256, 0);
        assert!(emulator.write(x, &[1; 11]).is_err());
        assert!(emulator.write(x + 8, &[1; 3]).is_err());
        assert!(emulator.write(x - 1, &[1]).is_err());
        assert!(emulator.read(x + 11, &mut []).is_err());
        assert!(emulator.fill(x, 11, 0).is_err());
        assert!(emulator.copy(x, x + 5, 6).is_err());
        assert!(emulator.free(x + 1).is_err());
        emulator.free(x).unwrap();
        assert!(emulator.free(x).is_err());
        assert!(emulator.read(x, &mut [0]).is_err());
        assert!(matches!(emulator.allocate(usize::MAX), Err(MemoryError::OutOfMemory { .. })));
    }
}

#[test]
fn device_memory_keeps_what_is_written() {
    for emulator in emulators() {
        let (a, b) = (emulator.allocate(100).unwrap(), emulator.allocate(100).unwrap());
        emulator.fill(a, 100, 7).unwrap();
        emulator.write(a + 10, &[1, 2, 3]).unwrap();
        emulator.copy(b + 20, a + 9, 5).unwrap();
        let mut got = [0; 5];
        emulator.read(b + 20, &mut got).unwrap();
        assert_eq!(got, [7, 1, 2, 3, 7]);
        // Bytes of `b` around the copy were never written.
        let unwritten = emulator.read(b + 20, &mut [0; 6]);
        assert_eq!(unwritten.is_err(), emulator.build() == Build::Check);
        emulator.free(a).unwrap();
        emulator.free(b).unwrap();
    }
}

/// A late use of freed memory must meet freed memory, not somebody else's.
#[test]
fn freed_memory_is_not_given_out_soon() {
    for emulator in emulators() {
        let freed = emulator.allocate(1000).unwrap();
        emulator.free(freed).unwrap();
        for _ in 0..100 {
            let next = emulator.allocate(1000).unwrap();
            assert_ne!(next, freed);
            emulator.free(next).unwrap();
        }
    }
}

#[test]
fn threads_launch_at_once() {
    for emulator in emulators() {
        thread::scope(|scope| {
            for thread in 0..4u8 {
                let emulator = &emulator;
                scope.spawn(move || {
                    for round in 1..20u8 {
                        let x = upload(emulator, &[f32::from(thread); 300]);
                        let factor = f32::from(round);
                        let arguments: [&[u8]; 3] =
                            [&x.to_ne_bytes(), &factor.to_ne_bytes(), &300u32.to_ne_bytes()];
                        // SAFETY: `x` has 300 floats.
                        unsafe { emulator.launch("scale", [3, 1, 1], [128, 1, 1], 0, &arguments) }.unwrap();
                        let wanted = [f32::from(thread) * factor; 300];
                        assert_eq!(download(emulator, x, 300), wanted);
                        emulator.free(x).unwrap();
                    }
                });
            }
        });
    }
}
