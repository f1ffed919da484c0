//! What a core can do at most: multiply-adds that never leave the registers. The yardstick of the benchmarks.

use crate::cpu::bf16::Pair;
use crate::cpu::isa::{Kernel, Machine};
use crate::cpu::tile::{self, Factors, Operand, PANEL, Sums};
use crate::cpu::{Exec, Precision};

const ROWS: usize = 6;

/// Operations (a multiplication and an addition are two) that [`run`] does per step.
pub fn flops_per_step(precision: Precision) -> u64 {
    let numbers = match precision {
        Precision::F32 => 1,
        Precision::Bf16 => 2,
    };
    2 * (ROWS * PANEL * numbers * DEPTH) as u64
}

/// Steps along the sum in one step, on operands that stay in the first-level cache.
const DEPTH: usize = 256;

/// Runs `steps` steps of independent sums on the calling thread, and returns one of them.
pub fn run(exec: Exec, precision: Precision, steps: usize) -> f32 {
    match precision {
        Precision::F32 => exec.isa.run(Peak::<f32> { steps, one: 1.0 }),
        Precision::Bf16 => exec.isa.run(Peak::<Pair> { steps, one: Pair::new(1.0, 1.0) }),
    }
}

struct Peak<E> {
    steps: usize,
    one: E,
}

impl<E: Operand> Kernel for Peak<E> {
    type Output = f32;

    #[inline(always)]
    fn run<M: Machine>(self) -> f32 {
        let (a, b) = ([self.one; ROWS * DEPTH], [self.one; PANEL]);
        let mut sums = [[0.0; PANEL]; ROWS];
        for _ in 0..self.steps {
            let factors = Factors { a: &a, lda: DEPTH, b: &b, ldb: 0, depth: DEPTH };
            let to = Sums { rows: sums.as_flattened_mut(), stride: PANEL, fresh: false };
            tile::multiply::<M, E>(ROWS, factors, to);
        }
        sums.as_flattened().iter().sum()
    }
}
