//! The inner loop of every product: a few rows against one panel of columns, the sums in registers.

use crate::cpu::bf16;
use crate::cpu::isa::Machine;

/// Columns of a panel.
pub(crate) const PANEL: usize = 32;

/// Most rows of a tile.
pub(crate) const ROWS: usize = 12;

/// What a product multiplies: one step of `depth` is one element.
pub(crate) trait Operand: Copy + Send + Sync {
    /// How many numbers one element holds.
    const NUMBERS: usize;

    /// `sums[r][c] += sum over k of a[r * lda + k] * b[k * ldb + c]`, in order of k, without rounding in between.
    fn accumulate<M: Machine, const R: usize, const C: usize>(
        a: &[Self],
        lda: usize,
        b: &[Self],
        ldb: usize,
        depth: usize,
        sums: &mut [[f32; C]; R],
    );

    /// Rounds [`Operand::NUMBERS`] numbers to one element.
    fn from_numbers(numbers: &[f32]) -> Self;

    /// Writes the rounded numbers of a row, the last element filled up with zeros.
    fn convert<M: Machine>(row: &[f32], to: &mut [Self]);
}

impl Operand for f32 {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn accumulate<M: Machine, const R: usize, const C: usize>(
        a: &[f32],
        lda: usize,
        b: &[f32],
        ldb: usize,
        depth: usize,
        sums: &mut [[f32; C]; R],
    ) {
        let rows: [&[f32]; R] = std::array::from_fn(|r| &a[r * lda..r * lda + depth]);
        let b = &b[..depth.saturating_sub(1) * ldb + C];
        let mut registers = *sums;
        for k in 0..depth {
            let b: &[f32; C] = b[k * ldb..k * ldb + C].try_into().expect("C columns");
            for r in 0..R {
                let a = rows[r][k];
                for c in 0..C {
                    registers[r][c] = a.mul_add(b[c], registers[r][c]);
                }
            }
        }
        *sums = registers;
    }

    #[inline(always)]
    fn from_numbers(numbers: &[f32]) -> Self {
        numbers[0]
    }

    #[inline(always)]
    fn convert<M: Machine>(row: &[f32], to: &mut [f32]) {
        to[..row.len()].copy_from_slice(row);
    }
}

impl Operand for bf16::Pair {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn accumulate<M: Machine, const R: usize, const C: usize>(
        a: &[bf16::Pair],
        lda: usize,
        b: &[bf16::Pair],
        ldb: usize,
        depth: usize,
        sums: &mut [[f32; C]; R],
    ) {
        bf16::accumulate::<M, R, C>(a, lda, b, ldb, depth, sums);
    }

    #[inline(always)]
    fn from_numbers(numbers: &[f32]) -> Self {
        Self::new(numbers[0], numbers[1])
    }

    #[inline(always)]
    fn convert<M: Machine>(row: &[f32], to: &mut [bf16::Pair]) {
        bf16::convert::<M>(row, to);
    }
}

/// `sums[r] += a[r] . panel` for any number of rows: `a` holds rows `lda` apart, `b` rows of the panel `ldb` apart.
#[inline(always)]
pub(crate) fn multiply<M: Machine, E: Operand>(
    a: &[E],
    lda: usize,
    b: &[E],
    ldb: usize,
    depth: usize,
    sums: &mut [[f32; PANEL]],
) {
    let mut row = 0;
    macro_rules! rows {
        ($($count:literal)*) => {$(
            while sums.len() - row >= $count {
                let sums: &mut [[f32; PANEL]; $count] =
                    (&mut sums[row..row + $count]).try_into().expect("that many rows");
                tile::<M, E, $count>(&a[row * lda..], lda, b, ldb, depth, sums);
                row += $count;
            }
        )*};
    }
    if M::WIDE {
        rows!(12 8 4 2 1);
    } else {
        rows!(6 4 2 1);
    }
}

#[inline(always)]
fn tile<M: Machine, E: Operand, const R: usize>(
    a: &[E],
    lda: usize,
    b: &[E],
    ldb: usize,
    depth: usize,
    sums: &mut [[f32; PANEL]; R],
) {
    if M::WIDE {
        return E::accumulate::<M, R, PANEL>(a, lda, b, ldb, depth, sums);
    }
    const HALF: usize = PANEL / 2;
    for start in [0, HALF] {
        let mut half = [[0.0; HALF]; R];
        for (half, sums) in half.iter_mut().zip(&*sums) {
            half.copy_from_slice(&sums[start..start + HALF]);
        }
        E::accumulate::<M, R, HALF>(a, lda, &b[start..], ldb, depth, &mut half);
        for (half, sums) in half.iter().zip(&mut *sums) {
            sums[start..start + HALF].copy_from_slice(half);
        }
    }
}
