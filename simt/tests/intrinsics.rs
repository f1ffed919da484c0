//! Intrinsics against Rust's own arithmetic, on random bits and the numbers at the edges.

use std::hash::{BuildHasher, RandomState};

use half::{bf16, f16};
use simt::{Build, Emulator};

const COUNT: usize = 4096;

/// Random words (splitmix64) from a seed that is drawn afresh and printed, which shows when a test fails.
fn random_words() -> Vec<u64> {
    let mut state = RandomState::new().hash_one(0);
    println!("seed {state:#x}");
    let words = (0..COUNT).map(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    words.collect()
}

/// Runs a kernel on `COUNT` elements of `input` and returns the outputs, of the given sizes in bytes.
fn run(kernel: &str, input: &[u8], outputs: &[usize]) -> Vec<Vec<u8>> {
    let emulator = Emulator::open(Build::Check).unwrap();
    let x = emulator.allocate(input.len()).unwrap();
    emulator.write(x, input).unwrap();
    let buffers: Vec<u64> = outputs.iter().map(|&bytes| emulator.allocate(bytes).unwrap()).collect();
    let mut words = vec![x.to_ne_bytes().to_vec(), (COUNT as u32).to_ne_bytes().to_vec()];
    words.extend(buffers.iter().map(|buffer| buffer.to_ne_bytes().to_vec()));
    let arguments: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    // SAFETY: the check build stops what leaves the buffers.
    unsafe { emulator.launch(kernel, [COUNT as u32 / 128, 1, 1], [128, 1, 1], 0, &arguments) }.unwrap();
    let read = |(&buffer, &bytes): (&u64, &usize)| {
        let mut output = vec![0; bytes];
        emulator.read(buffer, &mut output).unwrap();
        emulator.free(buffer).unwrap();
        output
    };
    let result = buffers.iter().zip(outputs).map(read).collect();
    emulator.free(x).unwrap();
    result
}

fn words<const N: usize>(bytes: &[u8]) -> Vec<[u8; N]> {
    bytes.chunks_exact(N).map(|word| word.try_into().unwrap()).collect()
}

#[test]
fn halves() {
    let edges =
        [0.0, -0.0, 1.0, 65504.0, 65519.9, 65520.0, 6e-8, 2e-8, 6.1e-5, f32::MAX, f32::INFINITY, f32::NAN];
    let ordinary = |bits: u64| (bits as u32 as f32 / 1e6).exp() * 1e-3;
    let random = random_words();
    let mut x: Vec<f32> = random.iter().map(|&bits| f32::from_bits(bits as u32)).collect();
    // Half of them of a size that a half can hold.
    x.iter_mut().zip(&random).step_by(2).for_each(|(x, &bits)| *x = ordinary(bits & 0xff_ffff));
    x[..edges.len()].copy_from_slice(&edges);
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let outputs = run("intrinsics_halves", &bytes, &[2 * COUNT, 2 * COUNT, 8 * COUNT]);
    let (b, h, back) = (words(&outputs[0]), words(&outputs[1]), words(&outputs[2]));
    for (i, &x) in x.iter().enumerate() {
        let (b, h) = (bf16::from_ne_bytes(b[i]), f16::from_ne_bytes(h[i]));
        let same =
            |got: f32, wanted: f32| got.to_bits() == wanted.to_bits() || got.is_nan() && wanted.is_nan();
        assert!(same(b.to_f32(), bf16::from_f32(x).to_f32()), "bf16 of {x}: {b}");
        assert!(same(h.to_f32(), f16::from_f32(x).to_f32()), "half of {x}: {h}");
        assert!(same(f32::from_ne_bytes(back[2 * i]), b.to_f32()));
        assert!(same(f32::from_ne_bytes(back[2 * i + 1]), h.to_f32()));
    }
}

#[test]
fn doubles_to_integers() {
    let edges =
        [0.5, 1.5, 2.5, -0.5, -1.5, -1e-300, 4294967295.9, 2147483648.0, -2147483649.0, 1e300, -1e300];
    let mut x: Vec<f64> = random_words().iter().map(|&bits| f64::from_bits(bits)).collect();
    x.iter_mut().for_each(|x| *x = if x.is_nan() { 0.0 } else { *x });
    x.iter_mut().step_by(2).for_each(|x| *x = x.abs().ln() * 1e7);
    x[..edges.len()].copy_from_slice(&edges);
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let outputs = run("intrinsics_doubles", &bytes, &[16 * COUNT, 4 * COUNT, 4 * COUNT]);
    let (long, unsigned, int) = (words(&outputs[0]), words(&outputs[1]), words(&outputs[2]));
    for (i, &x) in x.iter().enumerate() {
        // Rust's casts saturate, as a GPU's do.
        assert_eq!(i64::from_ne_bytes(long[2 * i]), x.floor() as i64, "down {x}");
        assert_eq!(i64::from_ne_bytes(long[2 * i + 1]), x.round_ties_even() as i64, "to nearest {x}");
        assert_eq!(u32::from_ne_bytes(unsigned[i]), x as u32, "unsigned {x}");
        assert_eq!(i32::from_ne_bytes(int[i]), x as i32, "int {x}");
    }
}

#[test]
fn bits() {
    let mut x = random_words();
    x[..4].copy_from_slice(&[0, 1, u64::MAX, 1 << 63]);
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let outputs = run("intrinsics_bits", &bytes, &[40 * COUNT]);
    let got: Vec<u64> = words(&outputs[0]).into_iter().map(u64::from_ne_bytes).collect();
    for (&x, got) in x.iter().zip(got.chunks_exact(5)) {
        let first_one = if x == 0 { 0 } else { u64::from(x.trailing_zeros()) + 1 };
        let high = ((u128::from(x) * 0x9e37_79b9_7f4a_7c15) >> 64) as u64;
        let wanted =
            [u64::from(x.count_ones()), u64::from(x.leading_zeros()), first_one, x.reverse_bits(), high];
        assert_eq!(got, wanted, "{x:#x}");
    }
}
