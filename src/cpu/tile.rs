//! The inner loop of every product: a few rows against one panel of columns, the sums in registers.

use crate::cpu::bf16::{self, Pair};
use crate::cpu::isa::Machine;
#[cfg(target_arch = "x86_64")]
use crate::cpu::x86;

/// Columns of a panel.
pub(crate) const PANEL: usize = 32;

/// Most rows of a tile.
pub(crate) const ROWS: usize = 12;

/// What is multiplied: `a` holds rows `lda` elements apart, `b` the rows of a panel `ldb` apart, both `depth` long along
/// the sum, one step at least.
#[derive(Clone, Copy)]
pub(crate) struct Factors<'a, E> {
    pub(crate) a: &'a [E],
    pub(crate) lda: usize,
    pub(crate) b: &'a [E],
    pub(crate) ldb: usize,
    pub(crate) depth: usize,
}

impl<'a, E> Factors<'a, E> {
    /// The rows of `a` and the panel, cut to what a tile of `R` x `C` reads.
    #[inline(always)]
    pub(crate) fn cut<const R: usize, const C: usize>(self) -> ([&'a [E]; R], &'a [E]) {
        let Self { a, lda, b, ldb, depth } = self;
        (std::array::from_fn(|r| &a[r * lda..r * lda + depth]), &b[..depth.saturating_sub(1) * ldb + C])
    }
}

/// Where sums go: rows `stride` numbers apart. Fresh sums start at zero, others go on from what is there.
pub(crate) struct Sums<'a> {
    pub(crate) rows: &'a mut [f32],
    pub(crate) stride: usize,
    pub(crate) fresh: bool,
}

impl Sums<'_> {
    /// The first `C` columns of row `r`.
    #[inline(always)]
    pub(crate) fn row<const C: usize>(&mut self, r: usize) -> &mut [f32; C] {
        self.rows[r * self.stride..].first_chunk_mut().expect("C columns")
    }
}

/// What a product multiplies: one step of the sum is one element.
pub(crate) trait Operand: Copy + Send + Sync {
    /// How many numbers one element holds.
    const NUMBERS: usize;

    /// `sums[r][c] += sum over k of a[r][k] * b[k][c]` for `R` rows and `C` columns, in order of k, one fused
    /// multiply-add per number.
    fn accumulate<M: Machine, const R: usize, const C: usize>(factors: Factors<Self>, sums: Sums);

    /// Rounds [`Operand::NUMBERS`] numbers to one element.
    fn from_numbers(numbers: &[f32]) -> Self;

    /// Writes the rounded numbers of a row, the last element filled up with zeros.
    fn convert<M: Machine>(row: &[f32], to: &mut [Self]);

    /// The rounded numbers, in `room` where they are not what they were.
    fn rounded<'a, M: Machine>(numbers: &'a [f32], room: &'a mut [Self]) -> &'a [Self];
}

impl Operand for f32 {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn accumulate<M: Machine, const R: usize, const C: usize>(factors: Factors<f32>, mut sums: Sums) {
        #[cfg(target_arch = "x86_64")]
        if M::WIDE && C == 32 {
            // SAFETY: wide code runs only where AVX-512 was detected.
            return unsafe { x86::wide::<R>(factors, sums) };
        }
        #[cfg(target_arch = "x86_64")]
        if M::FMA && C == 16 {
            // SAFETY: such code runs only where AVX2 and FMA were detected.
            return unsafe { x86::narrow::<R>(factors, sums) };
        }
        let (rows, b) = factors.cut::<R, C>();
        let mut registers = load::<R, C>(&mut sums);
        for k in 0..factors.depth {
            let b: &[f32; C] = b[k * factors.ldb..].first_chunk().expect("C columns");
            for r in 0..R {
                for c in 0..C {
                    registers[r][c] = rows[r][k].mul_add(b[c], registers[r][c]);
                }
            }
        }
        store(&registers, &mut sums);
    }

    #[inline(always)]
    fn from_numbers(numbers: &[f32]) -> Self {
        numbers[0]
    }

    #[inline(always)]
    fn convert<M: Machine>(row: &[f32], to: &mut [f32]) {
        to[..row.len()].copy_from_slice(row);
    }

    #[inline(always)]
    fn rounded<'a, M: Machine>(numbers: &'a [f32], _: &'a mut [f32]) -> &'a [f32] {
        numbers
    }
}

impl Operand for Pair {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn accumulate<M: Machine, const R: usize, const C: usize>(factors: Factors<Pair>, mut sums: Sums) {
        #[cfg(target_arch = "x86_64")]
        if M::BF16 && C == 32 {
            // SAFETY: such code runs only where AVX512-BF16 was detected.
            return unsafe { x86::wide_bf16::<R>(factors, sums) };
        }
        let (rows, b) = factors.cut::<R, C>();
        let mut registers = load::<R, C>(&mut sums);
        for k in 0..factors.depth {
            let b: &[Pair; C] = b[k * factors.ldb..].first_chunk().expect("C columns");
            for r in 0..R {
                for c in 0..C {
                    registers[r][c] = bf16::multiply_add(rows[r][k], b[c], registers[r][c]);
                }
            }
        }
        store(&registers, &mut sums);
    }

    #[inline(always)]
    fn from_numbers(numbers: &[f32]) -> Self {
        Self::new(numbers[0], numbers[1])
    }

    #[inline(always)]
    fn convert<M: Machine>(row: &[f32], to: &mut [Pair]) {
        #[cfg(target_arch = "x86_64")]
        if M::BF16 {
            // SAFETY: such code runs only where AVX512-BF16 was detected.
            return unsafe { x86::round(row, to) };
        }
        bf16::round(row, to);
    }

    #[inline(always)]
    fn rounded<'a, M: Machine>(numbers: &'a [f32], room: &'a mut [Pair]) -> &'a [Pair] {
        Self::convert::<M>(numbers, room);
        room
    }
}

#[inline(always)]
fn load<const R: usize, const C: usize>(sums: &mut Sums) -> [[f32; C]; R] {
    let mut registers = [[0.0; C]; R];
    if !sums.fresh {
        for (r, register) in registers.iter_mut().enumerate() {
            *register = *sums.row(r);
        }
    }
    registers
}

#[inline(always)]
fn store<const R: usize, const C: usize>(registers: &[[f32; C]; R], sums: &mut Sums) {
    for (r, register) in registers.iter().enumerate() {
        *sums.row(r) = *register;
    }
}

/// The sums of `rows` rows, any number of them, and one panel.
#[inline(always)]
pub(crate) fn multiply<M: Machine, E: Operand>(rows: usize, factors: Factors<E>, sums: Sums) {
    let mut row = 0;
    macro_rules! rows {
        ($($count:literal)*) => {$(
            while rows - row >= $count {
                let factors = Factors { a: &factors.a[row * factors.lda..], ..factors };
                let sums = Sums { rows: &mut sums.rows[row * sums.stride..], ..sums };
                tile::<M, E, $count>(factors, sums);
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
fn tile<M: Machine, E: Operand, const R: usize>(factors: Factors<E>, sums: Sums) {
    if M::WIDE {
        return E::accumulate::<M, R, PANEL>(factors, sums);
    }
    const HALF: usize = PANEL / 2;
    // Both halves of a stretch of the sum, so that the second finds its operands in the first-level cache.
    const STRETCH: usize = 128;
    let Factors { lda, ldb, .. } = factors;
    for k in (0..factors.depth).step_by(STRETCH) {
        let depth = STRETCH.min(factors.depth - k);
        for start in [0, HALF] {
            let factors = Factors { a: &factors.a[k..], b: &factors.b[k * ldb + start..], lda, ldb, depth };
            let sums = Sums { rows: &mut sums.rows[start..], fresh: sums.fresh && k == 0, ..sums };
            E::accumulate::<M, R, HALF>(factors, sums);
        }
    }
}
