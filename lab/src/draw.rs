//! Seeded draws: one stream of numbers per purpose and key, so that a row more in a file changes nothing that is
//! drawn for the other rows. Everything is computed by `libm`, so that every machine draws the same.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// A stream of random numbers.
#[derive(Debug)]
pub struct Stream(Xoshiro256PlusPlus);

/// The stream of `purpose` for `key`.
pub fn stream(seed: u64, purpose: &str, key: &str) -> Stream {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let bytes = seed.to_le_bytes().into_iter().chain(purpose.bytes()).chain([0]).chain(key.bytes());
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    Stream(Xoshiro256PlusPlus::seed_from_u64(hash))
}

impl Stream {
    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0.random()
    }

    /// Uniform in `0..n`, for `n` above 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    /// 1 with the given probability, else 0.
    pub fn bernoulli(&mut self, probability: f64) -> u8 {
        u8::from(self.uniform() < probability)
    }

    /// Standard normal (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Standard Gumbel: adding it to scores before taking the highest ones draws them by their softmax, without
    /// replacement.
    pub fn gumbel(&mut self) -> f64 {
        -libm::log(-libm::log(self.uniform().max(f64::MIN_POSITIVE)))
    }

    /// Puts `values` in a uniformly random order.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        values.shuffle(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_purpose_and_key() {
        let first = |seed, purpose, key| stream(seed, purpose, key).uniform();
        assert_eq!(first(1, "quality", "7"), first(1, "quality", "7"));
        assert_ne!(first(1, "quality", "7"), first(2, "quality", "7"));
        assert_ne!(first(1, "quality", "7"), first(1, "list", "7"));
        assert_ne!(first(1, "quality", "7"), first(1, "quality", "8"));
    }

    #[test]
    fn gumbel_draws_by_softmax() {
        let mut draws = stream(3, "test", "");
        let wins = (0..20_000).filter(|_| libm::log(3.0) + draws.gumbel() > draws.gumbel()).count();
        assert!((wins as f64 / 20_000.0 - 0.75).abs() < 0.01, "{wins}");
    }
}
