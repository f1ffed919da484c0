//! When requests arrive: a schedule that is fixed before the first of them is sent.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// How arrivals are spread at a given rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// Each as long after the one before: what varies is the engine's own.
    Even,
    /// A Poisson process: users who know nothing of each other.
    Poisson,
}

impl Arrivals {
    /// The times of `count` arrivals at `rate` requests a second, in order; the same for the same seed.
    pub fn schedule(self, rate: f64, count: usize, seed: u64) -> Vec<Duration> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut gap = || match self {
            Self::Even => 1.0,
            // 1 - u is in (0, 1], so that its logarithm is finite.
            Self::Poisson => -(1.0 - rng.random::<f64>()).ln(),
        };
        let mut seconds = 0.0;
        (0..count)
            .map(|_| {
                seconds += gap() / rate;
                Duration::from_secs_f64(seconds)
            })
            .collect()
    }
}
