//! Dependent launches: kernels that may begin while earlier ones still run, on both builds.

use simt::{Build, Emulator, FaultKind, Swizzle, TensorMap};

fn emulators() -> [Emulator; 2] {
    [Build::Plain, Build::Check].map(|build| Emulator::open(build).unwrap().dependent())
}

fn upload(emulator: &Emulator, values: &[f32]) -> u64 {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    let address = emulator.allocate(bytes.len()).unwrap();
    emulator.write(address, &bytes).unwrap();
    address
}

#[test]
fn a_kernel_that_waits_may_work_in_shared_memory_before() {
    for emulator in emulators() {
        let x = upload(&emulator, &[1.0; 64]);
        let arguments: [&[u8]; 1] = [&x.to_ne_bytes()];
        // SAFETY: `x` has the 64 floats that the kernel adds to.
        let run = unsafe { emulator.launch("dependent_add", [2, 1, 1], [32, 1, 1], 128, &arguments) };
        run.unwrap_or_else(|fault| panic!("{emulator:?}: {fault}"));
        let mut bytes = [0; 256];
        emulator.read(x, &mut bytes).unwrap();
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|x| f32::from_ne_bytes(x.try_into().unwrap())).collect();
        let wanted: Vec<f32> = (0..64u8).map(|i| 1.0 + f32::from(31 - i % 32)).collect();
        assert_eq!(values, wanted, "{emulator:?}");
        emulator.free(x).unwrap();
    }
}

/// On the plain build too, which sees no accesses.
#[test]
fn a_kernel_that_never_waits_is_refused_though_it_is_right_otherwise() {
    for emulator in emulators() {
        let x = upload(&emulator, &[1.0; 64]);
        let arguments: [&[u8]; 3] = [&x.to_ne_bytes(), &2f32.to_ne_bytes(), &64u32.to_ne_bytes()];
        // SAFETY: `x` has 64 floats.
        let run = unsafe { emulator.launch("scale", [1; 3], [64, 1, 1], 0, &arguments) };
        assert_eq!(run.unwrap_err().kind, FaultKind::Early, "{emulator:?}");
        // SAFETY: likewise.
        let run = unsafe {
            Emulator::open(emulator.build()).unwrap().launch("scale", [1; 3], [64, 1, 1], 0, &arguments)
        };
        run.expect("a launch that is not dependent need not wait");
        emulator.free(x).unwrap();
    }
}

#[test]
fn a_copy_by_a_tensor_map_before_the_wait_is_reported() {
    let [_, emulator] = emulators();
    let x = upload(&emulator, &[1.0; 64]);
    let map = TensorMap::tiled(x, 2, &[8, 16], &[16], &[8, 16], Swizzle::None).unwrap().bytes();
    let raw = emulator.allocate(256).unwrap();
    let zero = 0i32.to_ne_bytes();
    let arguments: [&[u8]; 6] = [&map, &map, &zero, &zero, &256u32.to_ne_bytes(), &raw.to_ne_bytes()];
    // SAFETY: the boxes are those of `x`, and `raw` has their bytes.
    let run = unsafe { emulator.launch("hopper_box_2d", [1; 3], [64, 1, 1], 256, &arguments) };
    let fault = run.unwrap_err();
    assert!(fault.kind == FaultKind::Early && fault.message.contains("a read of 16 bytes"), "{fault}");
    emulator.free(x).unwrap();
    emulator.free(raw).unwrap();
}
