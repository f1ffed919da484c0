//! The f32 product against the CPU's, bit for bit.

use bidslate::cpu::linear::{Epilogue as Cpu, Linear, linear as cpu_linear};
use bidslate::cpu::{Exec, Isa, Precision};
use bidslate::cuda::launch::Buffer;
use bidslate::cuda::linear_f32::{Epilogue, Matrix, linear, swiglu};

use crate::setup::{Inputs, assert_same};
use crate::streams::streams;

const EXEC: Exec = Exec { isa: Isa::Scalar, team: None };

/// (rows, out, in): one element, less than a tile, whole tiles, just past them.
const SIZES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (3, 5, 7), (64, 64, 16), (64, 64, 32), (65, 65, 17), (63, 130, 49), (129, 4, 100)];

#[test]
fn every_epilogue_has_the_bits_of_the_cpu() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for (rows, out, depth) in SIZES {
            let what = format!("{rows} x {out} x {depth} on {}", stream.describe());
            let period = 3.min(rows);
            let (x, w) = (inputs.numbers(rows * depth), inputs.numbers(out * depth));
            let (bias, table) = (inputs.numbers(out), inputs.numbers(period * out));
            let residual = inputs.numbers(rows * out);
            let upload = |values: &[f32]| Buffer::from_slice(&stream, values).unwrap();
            let (device_x, device_bias, device_table) = (upload(&x), upload(&bias), upload(&table));
            let matrix = Matrix::new(&stream, &w, depth).unwrap();
            let packed = Linear::pack(&[&w], depth, Precision::F32);
            let check = |epilogue: Epilogue, cpu: Cpu, add_table: bool| {
                let mut want = residual.clone();
                cpu_linear(EXEC, &x, rows, &packed, cpu, &mut want);
                if add_table {
                    let table = table.chunks(out).cycle();
                    want.chunks_mut(out)
                        .zip(table)
                        .for_each(|(y, t)| y.iter_mut().zip(t).for_each(|(y, t)| *y += t));
                }
                let mut y = upload(&residual);
                linear(&*stream, &device_x, rows, &matrix, epilogue, &mut y).unwrap();
                assert_same(&y.to_vec().unwrap(), &want, &format!("{epilogue:?}, {what}"));
            };
            check(Epilogue::Store, Cpu::Store, false);
            check(Epilogue::Add, Cpu::Add, false);
            check(Epilogue::Bias(&device_bias), Cpu::Bias(&bias), false);
            check(Epilogue::BiasRelu(&device_bias), Cpu::BiasRelu(&bias), false);
            check(Epilogue::Position(&device_bias, &device_table, period), Cpu::Bias(&bias), true);
        }
    }
}

#[test]
fn swiglu_has_the_bits_of_the_cpu() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for (rows, out, depth) in SIZES {
            // Gates far to both sides, where the exponential over- and underflows.
            let x: Vec<f32> = inputs.numbers(rows * depth).iter().map(|x| x * 60.0).collect();
            let (gate, up) = (inputs.numbers(out * depth), inputs.numbers(out * depth));
            let mut want = vec![0.0; rows * out];
            let packed = Linear::pack_gated(&gate, &up, depth, Precision::F32);
            cpu_linear(EXEC, &x, rows, &packed, Cpu::SiluGate, &mut want);
            let matrix = |values: &[f32]| Matrix::new(&stream, values, depth).unwrap();
            let (gate, up) = (matrix(&gate), matrix(&up));
            let mut y = Buffer::new(&stream, rows * out).unwrap();
            let x = Buffer::from_slice(&stream, &x).unwrap();
            swiglu(&*stream, &x, rows, &gate, &up, &mut y).unwrap();
            assert_same(&y.to_vec().unwrap(), &want, &format!("{rows} x {out} x {depth}"));
        }
    }
}

#[test]
fn rows_do_not_see_one_another() {
    let mut inputs = Inputs::new();
    let (rows, out, depth) = (70, 66, 20);
    for stream in streams() {
        let mut x = inputs.numbers(rows * depth);
        let matrix = Matrix::new(&stream, &inputs.numbers(out * depth), depth).unwrap();
        let run = |x: &[f32], rows: usize| {
            let mut y = Buffer::new(&stream, rows * out).unwrap();
            let x = Buffer::from_slice(&stream, x).unwrap();
            linear(&*stream, &x, rows, &matrix, Epilogue::Store, &mut y).unwrap();
            y.to_vec().unwrap()
        };
        let together = run(&x, rows);
        for row in [0, 33, 69] {
            let alone = run(&x[row * depth..(row + 1) * depth], 1);
            assert_same(&alone, &together[row * out..(row + 1) * out], "alone");
        }
        // A row that is not a number stays by itself.
        x[5 * depth] = f32::NAN;
        let beside = run(&x, rows);
        assert!(beside[5 * out..6 * out].iter().all(|y| y.is_nan()));
        assert_same(&beside[6 * out..], &together[6 * out..], "beside a NaN");
        assert_same(&run(&[], 0), &[], "no rows");
    }
}
