//! The helpers of `kernels/ptx.cuh`, each against what its comment says.

use std::sync::Arc;

use bidslate::cuda::launch::{Buffer, Element, LaunchShape, Stream};
use half::bf16;

use crate::setup::*;
use crate::streams::streams;

bidslate::kernels! {
    in "ptx_check";

    /// Copies of 16, 8 and 4 bytes per thread.
    fn ptx_cp_async(from: Ptr<u8>, to: PtrMut<u8>, valid: u32);
    /// Fragments by every form of `ldmatrix`.
    fn ptx_ldmatrix(tiles: Ptr<u16>, fragments: PtrMut<u32>);
    /// Tiles of fragments.
    fn ptx_stmatrix(fragments: Ptr<u32>, tiles: PtrMut<u16>);
    /// a b + c.
    fn ptx_mma(
        a: Ptr<bf16>, a_columns: Ptr<bf16>, b_rows: Ptr<bf16>, b_columns: Ptr<bf16>,
        c: Ptr<f32>, d: PtrMut<f32>,
    );
    /// (a b) b.
    fn ptx_mma_chain(a: Ptr<bf16>, b_rows: Ptr<bf16>, d: PtrMut<f32>);
    /// Rounding to bf16, back, and powers of two.
    fn ptx_numbers(x: Ptr<f32>, pairs: u32, packed: PtrMut<u32>, unpacked: PtrMut<f32>, powers: PtrMut<f32>);
    /// A copy past L1.
    fn ptx_stream_copy(from: Ptr<u8>, to: PtrMut<u8>, rows: u32);
    /// A copy from warp to warp by named barriers.
    fn ptx_named_barriers(values: Ptr<u32>, copied: PtrMut<u32>, rounds: u32);
    /// A copy from warp to warp by barriers in shared memory.
    fn ptx_mbarrier(values: Ptr<u32>, copied: PtrMut<u32>, rounds: u32);
}

/// Side of the matrices that the product kernels take.
const SIDE: usize = 16;

fn device<T: Element>(stream: &Arc<dyn Stream>, values: &[T]) -> Buffer<T> {
    Buffer::from_slice(stream, values).unwrap()
}

fn one_block(threads: u32) -> LaunchShape {
    LaunchShape::new([1, 1, 1], threads)
}

fn bytes(inputs: &mut Inputs, count: usize) -> Vec<u8> {
    inputs.indices(count, 256).into_iter().map(|byte| byte as u8).collect()
}

fn transposed<T: Copy>(matrix: &[T]) -> Vec<T> {
    (0..SIDE * SIDE).map(|i| matrix[i % SIDE * SIDE + i / SIDE]).collect()
}

/// Whole numbers between -`bound` and `bound`.
fn whole(inputs: &mut Inputs, bound: usize) -> Vec<f32> {
    let indices = inputs.indices(SIDE * SIDE, 2 * bound + 1);
    indices.into_iter().map(|index| index as f32 - bound as f32).collect()
}

fn narrow(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

#[test]
fn asynchronous_copies_fill_with_zeros() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for valid in [0, 1, 31, 100, 128] {
            let rows = bytes(&mut inputs, 128 * 16);
            let expected: Vec<u8> = [16, 8, 4]
                .into_iter()
                .flat_map(|size| {
                    let row = |(i, row): (usize, &[u8])| {
                        if i < valid { row[..size].to_vec() } else { vec![0; size] }
                    };
                    rows.chunks(16).enumerate().flat_map(row).collect::<Vec<u8>>()
                })
                .collect();
            let from = device(&stream, &rows);
            let mut to = Buffer::new(&stream, expected.len()).unwrap();
            ptx_cp_async(&*stream, one_block(128).shared(128 * 28), from.ptr(), to.ptr_mut(), valid as u32)
                .unwrap();
            assert!(to.to_vec().unwrap() == expected, "{} of 128 rows, {}", valid, stream.describe());
        }
    }
}

/// What a lane holds of tile `tile`.
fn fragment(tiles: &[u16], tile: usize, lane: usize, transposed: bool) -> u32 {
    let (g, t) = (lane / 4, lane % 4 * 2);
    let at = |row: usize, column: usize| u32::from(tiles[tile * 64 + row * 8 + column]);
    match transposed {
        false => at(g, t) | at(g, t + 1) << 16,
        true => at(t, g) | at(t + 1, g) << 16,
    }
}

fn tiles(inputs: &mut Inputs) -> Vec<u16> {
    inputs.indices(4 * 64, 1 << 16).into_iter().map(|value| value as u16).collect()
}

#[test]
fn fragments_hold_the_documented_elements() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        let values = tiles(&mut inputs);
        let from = device(&stream, &values);
        let mut to = Buffer::new(&stream, 32 * 14).unwrap();
        ptx_ldmatrix(&*stream, one_block(32).shared(512), from.ptr(), to.ptr_mut()).unwrap();
        let fragments = to.to_vec().unwrap();
        for lane in 0..32 {
            let forms = [(1, false), (1, true), (2, false), (2, true), (4, false), (4, true)];
            let expected: Vec<u32> = forms
                .into_iter()
                .flat_map(|(count, transposed)| (0..count).map(move |tile| (tile, transposed)))
                .map(|(tile, transposed)| fragment(&values, tile, lane, transposed))
                .collect();
            assert_eq!(fragments[lane * 14..][..14], expected, "lane {lane}, {}", stream.describe());
        }
    }
}

#[test]
fn stored_fragments_are_the_tiles_again() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        let values = tiles(&mut inputs);
        // The kernel gives the rows of the tiles in falling order.
        let fragments: Vec<u32> = (0..32 * 4).map(|i| fragment(&values, 3 - i % 4, i / 4, false)).collect();
        let from = device(&stream, &fragments);
        let mut to = Buffer::new(&stream, values.len()).unwrap();
        ptx_stmatrix(&*stream, one_block(32).shared(512), from.ptr(), to.ptr_mut()).unwrap();
        assert!(to.to_vec().unwrap() == values, "{}", stream.describe());
    }
}

/// a b + c, each `[SIDE][SIDE]`, and what its error is measured by: the sum of the terms' magnitudes.
fn product(a: &[f32], b: &[f32], c: &[f32]) -> Vec<(f64, f64)> {
    let element = |i: usize| {
        let terms = (0..SIDE).map(|k| f64::from(a[i / SIDE * SIDE + k]) * f64::from(b[k * SIDE + i % SIDE]));
        terms.chain([f64::from(c[i])]).fold((0.0, 0.0), |(sum, scale), term| (sum + term, scale + term.abs()))
    };
    (0..SIDE * SIDE).map(element).collect()
}

/// Runs `ptx_mma` and holds every way of loading the operands to `tolerance` times the scale.
fn check_product(stream: &Arc<dyn Stream>, a: &[f32], b: &[f32], c: &[f32], tolerance: f64) {
    let (wide_a, wide_b) = (narrow(a), narrow(b));
    let operands = [wide_a.clone(), transposed(&wide_a), wide_b.clone(), transposed(&wide_b)];
    let [rows_a, columns_a, rows_b, columns_b] = operands.map(|operand| device(stream, &operand));
    let addend = device(stream, c);
    let mut d = Buffer::new(stream, 8 * SIDE * SIDE).unwrap();
    let (a_rows, a_columns) = (rows_a.ptr(), columns_a.ptr());
    let (b_rows, b_columns) = (rows_b.ptr(), columns_b.ptr());
    ptx_mma(
        &**stream,
        one_block(32).shared(4 * 512),
        a_rows,
        a_columns,
        b_rows,
        b_columns,
        addend.ptr(),
        d.ptr_mut(),
    )
    .unwrap();
    let expected = product(&rounded(a), &rounded(b), c);
    for (way, found) in d.to_vec().unwrap().chunks(SIDE * SIDE).enumerate() {
        for (i, (&found, &(sum, scale))) in found.iter().zip(&expected).enumerate() {
            let error = (f64::from(found) - sum).abs();
            assert!(
                error <= tolerance * scale,
                "way {way}, element {i}: {found}, expected {sum}, {}",
                stream.describe()
            );
        }
    }
}

#[test]
fn products_of_whole_numbers_are_exact() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        let [a, b, c] = [200, 200, 100_000].map(|bound| whole(&mut inputs, bound));
        check_product(&stream, &a, &b, &c, 0.0);
    }
}

#[test]
fn products_are_near_the_exact_sum() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        let [a, b, c] = [(); 3].map(|()| inputs.numbers(SIDE * SIDE));
        // Each of 17 terms may be truncated at the 23rd bit of the largest.
        check_product(&stream, &a, &b, &c, 17.0 * f64::powi(2.0, -23));
    }
}

#[test]
fn a_product_feeds_the_next_in_registers() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        // |a b| <= 16 * 4 * 4 is exact in bf16.
        let [a, b] = [(); 2].map(|()| whole(&mut inputs, 4));
        let zeros = [0.0; SIDE * SIDE];
        let sums =
            |terms: Vec<(f64, f64)>| terms.into_iter().map(|(sum, _)| sum as f32).collect::<Vec<f32>>();
        let expected = sums(product(&sums(product(&a, &b, &zeros)), &b, &zeros));
        let (left, right) = (device(&stream, &narrow(&a)), device(&stream, &narrow(&b)));
        let mut d = Buffer::new(&stream, SIDE * SIDE).unwrap();
        ptx_mma_chain(&*stream, one_block(32).shared(2 * 512), left.ptr(), right.ptr(), d.ptr_mut()).unwrap();
        assert_eq!(d.to_vec().unwrap(), expected, "{}", stream.describe());
    }
}

/// Bits of `ptx_numbers`: (packed, unpacked, powers).
fn numbers(stream: &Arc<dyn Stream>, x: &[f32]) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
    let pairs = x.len() / 2;
    let from = device(stream, x);
    let mut packed = Buffer::new(stream, pairs).unwrap();
    let mut unpacked = Buffer::new(stream, x.len()).unwrap();
    let mut powers = Buffer::new(stream, x.len()).unwrap();
    let shape = LaunchShape::new([(pairs as u32).div_ceil(128), 1, 1], 128);
    let (to_packed, to_unpacked) = (packed.ptr_mut(), unpacked.ptr_mut());
    ptx_numbers(&**stream, shape, from.ptr(), pairs as u32, to_packed, to_unpacked, powers.ptr_mut())
        .unwrap();
    (packed.to_vec().unwrap(), unpacked.to_vec().unwrap(), powers.to_vec().unwrap())
}

#[test]
fn floats_round_to_the_nearest_even_bf16() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        // Any float, and ties in both directions; a NaN need not keep its bits.
        let mut x: Vec<f32> =
            inputs.indices(1000, u32::MAX as usize).into_iter().map(f32::from_bits).collect();
        x.extend([0x3f80_8000, 0x3f81_8000, 0x7f7f_8000, 0x8000_0000, 0x7f80_0000, 1].map(f32::from_bits));
        x.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = 0.5);
        let (packed, unpacked, _) = numbers(&stream, &x);
        let expected = narrow(&x);
        for (i, expected) in expected.into_iter().enumerate() {
            assert_eq!(
                (packed[i / 2] >> (i % 2 * 16)) as u16,
                expected.to_bits(),
                "{} of {}",
                x[i],
                stream.describe()
            );
            assert_eq!(
                unpacked[i].to_bits(),
                expected.to_f32().to_bits(),
                "{} of {}",
                x[i],
                stream.describe()
            );
        }
    }
}

#[test]
fn powers_of_two_are_near() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        let mut x: Vec<f32> = inputs.numbers(1000).into_iter().map(|x| 125.0 * x).collect();
        x.extend([0.0, -0.0, 1e-40, f32::NEG_INFINITY, -130.0, -149.0, 127.5, 1.0]);
        let (_, _, powers) = numbers(&stream, &x);
        for (&x, power) in x.iter().zip(powers) {
            let exact = if x < -126.0 { 0.0 } else { f64::from(x).exp2() };
            let error = (f64::from(power) - exact).abs();
            assert!(
                error <= f64::powi(2.0, -22) * exact,
                "2^{x} is {power}, expected {exact}, {}",
                stream.describe()
            );
        }
        let (_, _, powers) = numbers(&stream, &[128.0, f32::INFINITY]);
        assert_eq!(powers, [f32::INFINITY; 2], "{}", stream.describe());
    }
}

#[test]
fn copies_past_the_cache_are_copies() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for rows in [1, 127, 129] {
            let values = bytes(&mut inputs, rows * 16);
            let from = device(&stream, &values);
            let mut to = Buffer::new(&stream, values.len()).unwrap();
            let shape = LaunchShape::new([(rows as u32).div_ceil(128), 1, 1], 128);
            ptx_stream_copy(&*stream, shape, from.ptr(), to.ptr_mut(), rows as u32).unwrap();
            assert!(to.to_vec().unwrap() == values, "{rows} rows, {}", stream.describe());
        }
    }
}

#[test]
fn barriers_hand_rows_from_warp_to_warp() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for rounds in [0, 1, 2, 5, 8] {
            let values = inputs.indices(rounds as usize * 32, 1 << 30);
            let from = device(&stream, &values);
            let mut to = Buffer::new(&stream, values.len()).unwrap();
            ptx_named_barriers(&*stream, one_block(96).shared(128), from.ptr(), to.ptr_mut(), rounds)
                .unwrap();
            assert!(to.to_vec().unwrap() == values, "named barriers, {rounds} rounds, {}", stream.describe());
            let mut to = Buffer::new(&stream, values.len()).unwrap();
            ptx_mbarrier(&*stream, one_block(64).shared(2 * 128 + 4 * 8), from.ptr(), to.ptr_mut(), rounds)
                .unwrap();
            assert!(to.to_vec().unwrap() == values, "mbarriers, {rounds} rounds, {}", stream.describe());
        }
    }
}
