//! Attention over one request's keys.

use bidslate::cpu::{AttentionScratch, Exec, KeyValues, Precision, attention};
use bidslate::ops;

use crate::setup::*;

/// (queries, keys, heads, head size): none, one, on both sides of a panel, a tile and a block, and enough to be split.
const SIZES: [(usize, usize, usize, usize); 11] = [
    (0, 5, 2, 32),
    (3, 0, 2, 32),
    (1, 1, 1, 64),
    (2, 31, 2, 32),
    (5, 32, 1, 128),
    (11, 33, 3, 64),
    (12, 127, 1, 32),
    (13, 128, 1, 64),
    (65, 129, 2, 64),
    (70, 300, 2, 128),
    (130, 257, 3, 32),
];

const PRECISIONS: [(Precision, f64); 2] =
    [(Precision::F32, ops::attention::TOLERANCE.f32), (Precision::Bf16, ops::attention::TOLERANCE.bf16)];

/// Queries, keys and values with columns of something else around and between them.
struct Case {
    m: usize,
    n: usize,
    heads: usize,
    head_size: usize,
    q: Vec<f32>,
    rows: Vec<f32>,
}

impl Case {
    fn new(inputs: &mut Inputs, (m, n, heads, head_size): (usize, usize, usize, usize), spread: f32) -> Self {
        let d = heads * head_size;
        let q = inputs.numbers(m * (d + 7)).into_iter().map(|q| q * spread).collect();
        Self { m, n, heads, head_size, q, rows: inputs.numbers(n * (2 * d + 3)) }
    }

    fn d(&self) -> usize {
        self.heads * self.head_size
    }

    fn keys(&self, exec: Exec, precision: Precision) -> KeyValues {
        let mut kv = KeyValues::with_capacity(self.n.max(40), self.heads, self.head_size, precision);
        // Something longer before, none of which may be left.
        let junk = vec![1e30; 40 * (2 * self.d() + 3)];
        kv.fill(exec, &junk, 40, 2 * self.d() + 3, 0, self.d());
        kv.fill(exec, &self.rows, self.n, 2 * self.d() + 3, 1, self.d() + 2);
        assert_eq!(kv.len(), self.n);
        kv
    }

    fn run(&self, exec: Exec, kv: &KeyValues, rows: std::ops::Range<usize>) -> Vec<f32> {
        let stride = self.d() + 7;
        let mut scratch = AttentionScratch::new(2, self.head_size);
        let mut out = vec![f32::NAN; rows.len() * self.d()];
        let q = &self.q[rows.start * stride..rows.end * stride];
        attention(exec, q, rows.len(), stride, 4, kv, &mut scratch, &mut out);
        out
    }

    fn reference(&self) -> Vec<f64> {
        let (q, rows, d) = (wide(&self.q), wide(&self.rows), self.d());
        let mut out = Vec::new();
        for row in 0..self.m {
            for head in 0..self.heads {
                let columns = |offset: usize| -> Vec<&[f64]> {
                    let start = offset + head * self.head_size;
                    rows.chunks(2 * d + 3).map(|row| &row[start..start + self.head_size]).collect()
                };
                let start = row * (d + 7) + 4 + head * self.head_size;
                out.extend(ops::attention::reference(
                    &q[start..start + self.head_size],
                    &columns(1),
                    &columns(d + 2),
                ));
            }
        }
        out
    }
}

#[test]
fn attention_is_near_the_reference() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        // The second makes scores of about +-16: weights far from even, maxima that move from tile to tile.
        for spread in [1.0, 4.0] {
            let case = Case::new(&mut inputs, size, spread);
            let want = case.reference();
            for (precision, tolerance) in PRECISIONS {
                for exec in execs() {
                    let what = format!("{size:?} spread {spread} {precision:?} {}", name(exec));
                    let got = case.run(exec, &case.keys(exec, precision), 0..case.m);
                    assert_near(&got, &want, |_| 1.0, tolerance, &what);
                }
            }
        }
    }
}

#[test]
fn bits_depend_neither_on_the_machine_nor_on_other_rows() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        let case = Case::new(&mut inputs, size, 2.0);
        for (precision, _) in PRECISIONS {
            let plain = execs()[0];
            let first = case.run(plain, &case.keys(plain, precision), 0..case.m);
            for exec in execs() {
                let what = format!("{size:?} {precision:?} {}", name(exec));
                let kv = case.keys(exec, precision);
                assert_same(&case.run(exec, &kv, 0..case.m), &first, &what);
                for row in [0, case.m / 2, case.m.saturating_sub(1)].into_iter().filter(|&row| row < case.m) {
                    let alone = case.run(exec, &kv, row..row + 1);
                    let d = case.d();
                    assert_same(&alone, &first[row * d..(row + 1) * d], &format!("{what}, row {row}"));
                }
            }
        }
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (9, 150, 1, 64), 1e4);
    for (precision, _) in PRECISIONS {
        for exec in execs() {
            let got = case.run(exec, &case.keys(exec, precision), 0..case.m);
            assert!(got.iter().all(|x| x.abs() <= 1.01), "{precision:?} {}", name(exec));
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    let mut inputs = Inputs::new();
    let mut case = Case::new(&mut inputs, (14, 40, 1, 32), 1.0);
    let stride = case.d() + 7;
    case.q[5 * stride + 6] = f32::NAN;
    for (precision, _) in PRECISIONS {
        for exec in execs() {
            let got = case.run(exec, &case.keys(exec, precision), 0..case.m);
            for (row, out) in got.chunks(case.d()).enumerate() {
                assert_eq!(
                    out.iter().all(|x| x.is_finite()),
                    row != 5,
                    "row {row} {precision:?} {}",
                    name(exec)
                );
                assert_eq!(
                    out.iter().all(|x| x.is_nan()),
                    row == 5,
                    "row {row} {precision:?} {}",
                    name(exec)
                );
            }
        }
    }
}
