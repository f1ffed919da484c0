//! Norms, the rotary embedding and the elementwise functions.

use bidslate::cpu::{Exec, Rotary, math, rms_norm, rotate};
use bidslate::ops;

use crate::setup::*;

/// Random numbers of every exponent, with the edges of the functions' ranges.
fn arguments(inputs: &mut Inputs) -> Vec<f32> {
    let mut x: Vec<f32> = vec![0.0, -0.0, f32::MIN_POSITIVE, f32::MAX, f32::MIN, 1e-45];
    x.extend((-3000..3000).map(|i| i as f32 / 25.0));
    for edge in [87.3365f32, 88.0, 88.72283, 88.72284, 103.9, 103.97, 104.0, 105.0] {
        x.extend([edge, -edge]);
    }
    for exponent in -30..8 {
        x.extend(inputs.numbers(97).iter().map(|x| x * 2f32.powi(exponent)));
    }
    x
}

fn check(apply: fn(Exec, &mut [f32]), reference: fn(f64) -> f64, smallest: f64) {
    let x = arguments(&mut Inputs::new());
    let want: Vec<f64> = x.iter().map(|&x| reference(f64::from(x))).collect();
    let mut first = x.clone();
    apply(execs()[0], &mut first);
    for exec in execs() {
        let mut y = x.clone();
        apply(exec, &mut y);
        assert_same(&y, &first, &name(exec));
        for ((x, y), want) in x.iter().zip(&y).zip(&want) {
            let what = format!("of {x:e}, {}", name(exec));
            if *want > f64::from(f32::MAX) * (1.0 + 3e-8) {
                assert_eq!(*y, f32::INFINITY, "{what}");
            } else if !(*y == 0.0 && want.abs() < smallest) {
                let scale = |_| want.abs().max(f64::from(f32::MIN_POSITIVE));
                assert_near(&[*y], &[*want], scale, ops::math::TOLERANCE.f32, &what);
            }
        }
    }
}

#[test]
fn exp_sigmoid_and_silu_are_near_the_reference() {
    check(math::exp_in_place, f64::exp, 0.0);
    check(math::sigmoid_in_place, ops::math::sigmoid, 4e-39);
    check(math::silu_in_place, ops::math::silu, 4e-37);
}

#[test]
fn exp_sigmoid_and_silu_have_their_limits() {
    let limits = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    type Apply = fn(Exec, &mut [f32]);
    let cases: [(Apply, [f32; 2]); 3] = [
        (math::exp_in_place, [f32::INFINITY, 0.0]),
        (math::sigmoid_in_place, [1.0, 0.0]),
        (math::silu_in_place, [f32::INFINITY, 0.0]),
    ];
    for (apply, want) in cases {
        for exec in execs() {
            let mut x = limits.repeat(7);
            apply(exec, &mut x);
            for x in x.chunks(3) {
                assert_eq!(x[..2], want, "{}", name(exec));
                assert!(x[2].is_nan());
            }
        }
    }
}

#[test]
fn rms_norm_is_near_the_reference_and_the_same_everywhere() {
    let mut inputs = Inputs::new();
    for (m, d) in [(0, 4), (1, 1), (2, 15), (3, 16), (3, 17), (5, 64), (7, 130), (2100, 257)] {
        let (x, weight) = (inputs.numbers(m * d), inputs.numbers(d));
        let want = ops::rms_norm::reference(&wide(&x), &wide(&weight), f64::from(1e-6f32));
        let run = |exec, x: &[f32]| {
            let mut y = vec![f32::NAN; x.len()];
            rms_norm(exec, x, x.len() / d, &weight, 1e-6, &mut y);
            y
        };
        let first = run(execs()[0], &x);
        for exec in execs() {
            let what = format!("{m} x {d} {}", name(exec));
            let y = run(exec, &x);
            assert_near(&y, &want, |i| want[i].abs(), ops::rms_norm::TOLERANCE.f32, &what);
            assert_same(&y, &first, &what);
            if m > 0 {
                assert_same(&run(exec, &x[(m - 1) * d..]), &first[(m - 1) * d..], &what);
            }
        }
    }
}

#[test]
fn rotation_is_near_the_reference_and_leaves_other_columns_alone() {
    let mut inputs = Inputs::new();
    for (m, heads, head_size) in [(0, 1, 32), (1, 1, 2), (3, 2, 6), (5, 3, 64), (2000, 2, 128)] {
        let (before, after) = (3, 2);
        let columns = before..before + heads * head_size;
        let stride = columns.end + after;
        let rotary = Rotary::new(10_000.0, head_size, 1800);
        assert_eq!(rotary.max_positions(), 1800);
        let (x, positions) = (inputs.numbers(m * stride), inputs.indices(m, 1800));
        let mut want = wide(&x);
        let mut scale = vec![0.0; x.len()];
        for (row, &position) in positions.iter().enumerate() {
            for head in 0..heads {
                let start = row * stride + before + head * head_size;
                let half = head_size / 2;
                for i in start..start + half {
                    scale[i] = want[i].abs() + want[i + half].abs();
                    scale[i + half] = scale[i];
                }
                let head = &mut want[start..start + head_size];
                ops::rotary::reference(10_000.0, head, position as usize);
            }
        }
        let run = |exec| {
            let mut y = x.clone();
            rotate(exec, &rotary, &mut y, stride, columns.clone(), |row| positions[row] as usize);
            y
        };
        let first = run(execs()[0]);
        for exec in execs() {
            let what = format!("{m} rows, {heads} heads of {head_size}, {}", name(exec));
            let y = run(exec);
            assert_near(&y, &want, |i| scale[i], ops::rotary::TOLERANCE.f32, &what);
            assert_same(&y, &first, &what);
        }
    }
}
