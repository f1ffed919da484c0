//! Launches and device memory, on both builds.

use simt::{Build, Emulator};

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
