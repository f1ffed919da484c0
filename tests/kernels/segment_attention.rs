//! Attention inside lists against the CPU's, bit for bit.

use bidslate::cpu::segment_attention::segment_attention as cpu_segment_attention;
use bidslate::cpu::{Exec, Isa};
use bidslate::cuda::launch::Buffer;
use bidslate::cuda::lists::{Lists, NO_LIST};
use bidslate::cuda::segment_attention;

use crate::setup::{Inputs, assert_same};
use crate::streams::streams;

/// The CPU's result in the rows of the device: zeros in slots that are not filled.
fn on_the_cpu(qkv: &[f32], lengths: &[i32], slots: usize, heads: usize, head_size: usize) -> Vec<f32> {
    let exec = Exec { isa: Isa::Scalar, team: None };
    let d = heads * head_size;
    let mut out = vec![0.0; lengths.len() * slots * d];
    for ((qkv, out), &length) in qkv.chunks(slots * 3 * d).zip(out.chunks_mut(slots * d)).zip(lengths) {
        let rows = length.max(0) as usize;
        let (qkv, out) = (&qkv[..rows * 3 * d], &mut out[..rows * d]);
        cpu_segment_attention(exec, qkv, &[0, rows], heads, head_size, out);
    }
    out
}

#[test]
fn has_the_bits_of_the_cpu() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for (slots, heads, head_size) in [
            (1, 1, 1),
            (3, 2, 16),
            (10, 4, 64),
            (10, 1, 33),
            (16, 3, 32),
            (17, 1, 48),
            (31, 2, 128),
            (32, 1, 128),
        ] {
            let full = slots as i32;
            let lengths = [full, 0, 1, NO_LIST, full.min(5), full - 1];
            let d = heads * head_size;
            let rows = lengths.len() * slots;
            let qkv: Vec<f32> = inputs.numbers(rows * 3 * d).iter().map(|x| 3.0 * x).collect();
            let device = Buffer::from_slice(&stream, &qkv).unwrap();
            let device_lengths = Buffer::from_slice(&stream, &lengths).unwrap();
            let lists = Lists::new(lengths.len(), slots, &device_lengths);
            let mut out = Buffer::new(&stream, rows * d).unwrap();
            segment_attention::run(&*stream, &device, lists, heads, head_size, &mut out).unwrap();
            let want = on_the_cpu(&qkv, &lengths, slots, heads, head_size);
            let what = format!("{slots} slots, {heads} heads of {head_size}");
            assert_same(&out.to_vec().unwrap(), &want, &what);
        }
    }
}

#[test]
fn a_list_that_is_not_finite_stays_by_itself() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        let (slots, d) = (4, 32);
        let lengths = Buffer::from_slice(&stream, &[3, 4]).unwrap();
        let mut qkv = inputs.numbers(2 * slots * 3 * d);
        let run = |qkv: &[f32]| {
            let qkv = Buffer::from_slice(&stream, qkv).unwrap();
            let mut out = Buffer::new(&stream, 2 * slots * d).unwrap();
            segment_attention::run(&*stream, &qkv, Lists::new(2, slots, &lengths), 1, d, &mut out).unwrap();
            out.to_vec().unwrap()
        };
        let finite = run(&qkv);
        // A key of the first list, and a whole row past its end.
        qkv[d + 1] = f32::NAN;
        qkv[3 * 3 * d..4 * 3 * d].fill(f32::NAN);
        let other = run(&qkv);
        assert!(other[..3 * d].iter().all(|x| x.is_nan()));
        assert_same(&other[3 * d..], &finite[3 * d..], "the other rows");
    }
}
