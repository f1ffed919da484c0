//! How an operation runs: on which instruction set and on which threads.

use crate::cpu::shared::Shared;
use crate::cpu::{Isa, Team};

/// The type of the operands of the products. Sums are f32 either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// Operands as they are.
    F32,
    /// Operands rounded to bf16, to the nearest, ties to even.
    Bf16,
}

/// How an operation runs. The bits of the results do not depend on it in [`Precision::F32`], and never on the team.
#[derive(Clone, Copy)]
pub struct Exec<'t> {
    /// The instruction set.
    pub isa: Isa,
    /// Threads to split the work over; without a team it runs on the calling thread, with one that is its leader.
    pub team: Option<&'t Team>,
}

impl Exec<'_> {
    /// Into how many pieces to split work of `flops` operations: one per thread of the team, one in all where handing
    /// out the work would cost more than it brings.
    pub(crate) fn pieces(self, flops: usize) -> usize {
        const WORTH_A_THREAD: usize = 1 << 17;
        self.team.map_or(1, |team| team.threads().min(flops / WORTH_A_THREAD)).max(1)
    }

    /// Runs `piece(0)` .. `piece(pieces - 1)`, in the team where there is one.
    pub(crate) fn each(self, pieces: usize, piece: impl Fn(usize) + Sync) {
        match self.team {
            Some(team) if pieces > 1 => team.share(pieces, &piece),
            _ => (0..pieces).for_each(piece),
        }
    }

    /// Like [`Exec::each`], with `scratch[i]` for piece `i`: there must be one for each piece.
    pub(crate) fn each_with<S: Send>(self, scratch: &mut [S], piece: impl Fn(usize, &mut S) + Sync) {
        let pieces = scratch.len();
        let scratch = Shared::new(scratch);
        self.each(pieces, |index| {
            // SAFETY: each piece has an element of its own.
            let own = unsafe { scratch.slice_mut(index..index + 1) };
            own.iter_mut().for_each(|own| piece(index, own));
        });
    }
}

/// The `index`-th of `pieces` nearly equal parts of `0..count`.
pub(crate) fn part(count: usize, pieces: usize, index: usize) -> std::ops::Range<usize> {
    count * index / pieces..count * (index + 1) / pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn parts_cover_everything_once() {
        for count in [0, 1, 2, 7, 64] {
            for pieces in 1..9 {
                let all: Vec<usize> = (0..pieces).flat_map(|piece| part(count, pieces, piece)).collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn every_piece_runs_once_with_its_own_scratch() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let check = |team: Option<&Team>| {
            let exec = Exec { isa: Isa::Scalar, team };
            for pieces in [0, 1, 2, 5] {
                let counts: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                exec.each(pieces, |piece| _ = counts[piece].fetch_add(1, Ordering::Relaxed));
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                let mut scratch = vec![usize::MAX; pieces];
                exec.each_with(&mut scratch, |piece, scratch| *scratch = piece);
                assert_eq!(scratch, (0..pieces).collect::<Vec<_>>());
            }
        };
        check(None);
        pool.install(|| Team::assemble(&pool, |team| check(Some(team))));
    }
}
