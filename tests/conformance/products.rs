//! Products and their epilogues.

use bidslate::cpu::{Epilogue, Exec, Linear, Precision, linear};
use bidslate::ops;

use crate::setup::*;

/// (m, in, out): nothing, one, odd, on both sides of a tile and of a panel, and enough to be split over threads.
const SIZES: [(usize, usize, usize); 12] = [
    (0, 3, 5),
    (1, 1, 1),
    (1, 7, 33),
    (2, 64, 31),
    (3, 31, 32),
    (5, 17, 65),
    (11, 16, 16),
    (12, 48, 40),
    (13, 33, 95),
    (25, 130, 17),
    (64, 96, 161),
    (199, 65, 130),
];

fn magnitudes(x: &[f64], m: usize, w: &[f64], in_size: usize) -> Vec<f64> {
    let abs = |x: &[f64]| -> Vec<f64> { x.iter().map(|x| x.abs()).collect() };
    ops::linear::reference(&abs(x), m, &abs(w), in_size)
}

fn run(exec: Exec, x: &[f32], m: usize, w: &Linear, epilogue: Epilogue, y: &[f32]) -> Vec<f32> {
    let mut y = y.to_vec();
    linear(exec, x, m, w, epilogue, &mut y);
    y
}

fn precisions() -> [(Precision, f64); 2] {
    [(Precision::F32, ops::linear::TOLERANCE.f32), (Precision::Bf16, ops::linear::TOLERANCE.bf16)]
}

#[test]
fn a_product_is_near_the_reference() {
    let mut inputs = Inputs::new();
    for (m, in_size, out_size) in SIZES {
        let (x, w) = (inputs.numbers(m * in_size), inputs.numbers(out_size * in_size));
        let want = ops::linear::reference(&wide(&x), m, &wide(&w), in_size);
        let scale = magnitudes(&wide(&x), m, &wide(&w), in_size);
        let want_rounded = ops::linear::reference(&wide(&rounded(&x)), m, &wide(&rounded(&w)), in_size);
        for (precision, tolerance) in precisions() {
            let packed = Linear::pack(&[&w], in_size, precision);
            assert_eq!((packed.in_size(), packed.out_size()), (in_size, out_size));
            for exec in execs() {
                let what = format!("{m} x {in_size} x {out_size} {precision:?} {}", name(exec));
                let y = run(exec, &x, m, &packed, Epilogue::Store, &vec![f32::NAN; m * out_size]);
                assert_near(&y, &want, |i| scale[i], tolerance, &what);
                if precision == Precision::Bf16 {
                    // Against operands rounded before, only the f32 sums are left to differ.
                    let tolerance = ops::linear::TOLERANCE.f32;
                    assert_near(&y, &want_rounded, |i| 1.02 * scale[i], tolerance, &what);
                }
            }
        }
    }
}

#[test]
fn bits_depend_neither_on_the_machine_nor_on_other_rows() {
    let mut inputs = Inputs::new();
    for (m, in_size, out_size) in SIZES {
        let (x, w) = (inputs.numbers(m * in_size), inputs.numbers(out_size * in_size));
        for (precision, _) in precisions() {
            let packed = Linear::pack(&[&w], in_size, precision);
            let y = |exec, x, m| run(exec, x, m, &packed, Epilogue::Store, &vec![0.0; m * out_size]);
            let first = y(execs()[0], &x, m);
            for exec in execs() {
                let what = format!("{m} x {in_size} x {out_size} {precision:?} {}", name(exec));
                assert_same(&y(exec, &x, m), &first, &what);
                for row in [0, m / 2, m.saturating_sub(1)].into_iter().filter(|&row| row < m) {
                    let alone = y(exec, &x[row * in_size..(row + 1) * in_size], 1);
                    assert_same(
                        &alone,
                        &first[row * out_size..(row + 1) * out_size],
                        &format!("{what}, row {row}"),
                    );
                }
            }
        }
    }
}

#[test]
fn an_f32_product_is_one_sequence_of_fused_multiply_adds() {
    let mut inputs = Inputs::new();
    let (m, in_size, out_size) = (14, 300, 37);
    let (x, w) = (inputs.numbers(m * in_size), inputs.numbers(out_size * in_size));
    let mut want = Vec::new();
    for row in x.chunks(in_size) {
        want.extend(
            w.chunks(in_size).map(|w| row.iter().zip(w).fold(0.0f32, |sum, (x, w)| x.mul_add(*w, sum))),
        );
    }
    for exec in execs() {
        let packed = Linear::pack(&[&w], in_size, Precision::F32);
        assert_same(
            &run(exec, &x, m, &packed, Epilogue::Store, &vec![0.0; m * out_size]),
            &want,
            &name(exec),
        );
    }
}

#[test]
fn rows_of_any_length_are_multiplied() {
    // Longer than what a thread can stage, in f32 and in bf16.
    let mut inputs = Inputs::new();
    let (m, in_size, out_size) = (2, 200_003, 3);
    let (x, w) = (inputs.numbers(m * in_size), inputs.numbers(out_size * in_size));
    for (precision, rounded_x, rounded_w) in
        [(Precision::F32, x.clone(), w.clone()), (Precision::Bf16, rounded(&x), rounded(&w))]
    {
        let (rounded_x, rounded_w) = (wide(&rounded_x), wide(&rounded_w));
        let want = ops::linear::reference(&rounded_x, m, &rounded_w, in_size);
        let scale = magnitudes(&rounded_x, m, &rounded_w, in_size);
        let packed = Linear::pack(&[&w], in_size, precision);
        for exec in execs() {
            let y = run(exec, &x, m, &packed, Epilogue::Store, &vec![0.0; m * out_size]);
            assert_near(&y, &want, |i| scale[i], ops::linear::TOLERANCE.f32, &name(exec));
        }
    }
}

#[test]
fn stacked_weights_give_the_columns_side_by_side() {
    let mut inputs = Inputs::new();
    let (m, in_size) = (7, 19);
    let (x, first, second) =
        (inputs.numbers(m * in_size), inputs.numbers(5 * in_size), inputs.numbers(40 * in_size));
    let stacked: Vec<f32> = [first.clone(), second.clone()].concat();
    for (precision, _) in precisions() {
        let apart = Linear::pack(&[&first, &second], in_size, precision);
        let whole = Linear::pack(&[&stacked], in_size, precision);
        let zeros = vec![0.0; m * 45];
        for exec in execs() {
            let want = run(exec, &x, m, &whole, Epilogue::Store, &zeros);
            assert_same(&run(exec, &x, m, &apart, Epilogue::Store, &zeros), &want, &name(exec));
        }
    }
}

#[test]
fn epilogues_finish_the_sums() {
    let mut inputs = Inputs::new();
    for (m, in_size, out_size) in SIZES {
        let (x, w) = (inputs.numbers(m * in_size), inputs.numbers(out_size * in_size));
        let (bias, before) = (inputs.numbers(out_size), inputs.numbers(m * out_size));
        for (precision, _) in precisions() {
            let packed = Linear::pack(&[&w], in_size, precision);
            for exec in execs() {
                let what = format!("{m} x {in_size} x {out_size} {precision:?} {}", name(exec));
                let sums = run(exec, &x, m, &packed, Epilogue::Store, &before);
                let finished = |epilogue| run(exec, &x, m, &packed, epilogue, &before);
                let with = |f: &dyn Fn(usize) -> f32| -> Vec<f32> { (0..sums.len()).map(f).collect() };
                let added = with(&|i| before[i] + sums[i]);
                assert_same(&finished(Epilogue::Add), &added, &what);
                let biased = with(&|i| sums[i] + bias[i % out_size]);
                assert_same(&finished(Epilogue::Bias(&bias)), &biased, &what);
                let clipped = with(&|i| (sums[i] + bias[i % out_size]).max(0.0));
                assert_near(&finished(Epilogue::BiasRelu(&bias)), &wide(&clipped), |_| 0.0, 0.0, &what);
            }
        }
    }
}

#[test]
fn a_gated_product_is_silu_of_one_times_the_other() {
    let mut inputs = Inputs::new();
    for (m, in_size, hidden) in SIZES {
        let x = inputs.numbers(m * in_size);
        let (gate, up) = (inputs.numbers(hidden * in_size), inputs.numbers(hidden * in_size));
        for (precision, _) in precisions() {
            let packed = Linear::pack_gated(&gate, &up, in_size, precision);
            assert_eq!(packed.out_size(), hidden);
            let (gate, up) =
                (Linear::pack(&[&gate], in_size, precision), Linear::pack(&[&up], in_size, precision));
            let plain = execs()[0];
            let zeros = vec![0.0; m * hidden];
            let gate = run(plain, &x, m, &gate, Epilogue::Store, &zeros);
            let up = run(plain, &x, m, &up, Epilogue::Store, &zeros);
            let want: Vec<f32> =
                gate.iter().zip(&up).map(|(&gate, &up)| bidslate::cpu::math::silu(gate) * up).collect();
            for exec in execs() {
                let what = format!("{m} x {in_size} x {hidden} {precision:?} {}", name(exec));
                assert_same(&run(exec, &x, m, &packed, Epilogue::SiluGate, &zeros), &want, &what);
            }
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    let mut inputs = Inputs::new();
    let (m, in_size, out_size) = (13, 20, 34);
    let (mut x, w) = (inputs.numbers(m * in_size), inputs.numbers(out_size * in_size));
    let bias = inputs.numbers(out_size);
    for (precision, _) in precisions() {
        let packed = Linear::pack(&[&w], in_size, precision);
        for bad in [f32::NAN, f32::INFINITY] {
            x[5 * in_size + 3] = bad;
            for exec in execs() {
                let y = run(exec, &x, m, &packed, Epilogue::BiasRelu(&bias), &vec![0.0; m * out_size]);
                for (row, y) in y.chunks(out_size).enumerate() {
                    assert_eq!(y.iter().all(|y| y.is_finite()), row != 5, "{bad} row {row} {}", name(exec));
                }
            }
        }
    }
}
