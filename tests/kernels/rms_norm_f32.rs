//! The f32 norm against the CPU's, bit for bit.

use bidslate::cpu::norm::rms_norm as cpu_rms_norm;
use bidslate::cpu::{Exec, Isa};
use bidslate::cuda::launch::Buffer;
use bidslate::cuda::rms_norm_f32::rms_norm;

use crate::setup::{Inputs, assert_same};
use crate::streams::streams;

#[test]
fn has_the_bits_of_the_cpu() {
    let exec = Exec { isa: Isa::Scalar, team: None };
    let mut inputs = Inputs::new();
    for stream in streams() {
        for (rows, d) in [(0, 8), (1, 1), (1, 64), (2, 15), (15, 16), (16, 17), (17, 100), (33, 256)] {
            let (x, weight) = (inputs.numbers(rows * d), inputs.numbers(d));
            let mut want = vec![0.0; rows * d];
            cpu_rms_norm(exec, &x, rows, &weight, 1e-6, &mut want);
            let upload = |values: &[f32]| Buffer::from_slice(&stream, values).unwrap();
            let mut y = Buffer::new(&stream, rows * d).unwrap();
            rms_norm(&*stream, &upload(&x), rows, &upload(&weight), 1e-6, &mut y).unwrap();
            assert_same(&y.to_vec().unwrap(), &want, &format!("{rows} rows of {d}"));
        }
    }
}
