//! Seeded draws: one stream of numbers per purpose and key.
//!
//! Streams are keyed rather than shared so that a row more in the source does not change what is made up for
//! all the rows after it.

use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// The stream of `purpose` for `key`.
pub fn stream(seed: u64, purpose: &str, key: &str) -> Stream {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let bytes = seed.to_le_bytes().into_iter().chain(purpose.bytes()).chain([0]).chain(key.bytes());
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    Stream(Xoshiro256PlusPlus::seed_from_u64(hash))
}

/// A stream of random numbers.
pub struct Stream(Xoshiro256PlusPlus);

impl Stream {
    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0.random()
    }

    /// Uniform in `low..=high`.
    pub fn integer(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// Standard normal (Box-Muller; `libm` so that every machine draws the same).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Standard Gumbel: adding it to scores before an arg-max draws from their softmax.
    pub fn gumbel(&mut self) -> f64 {
        -libm::log(-libm::log(self.uniform().max(f64::MIN_POSITIVE)))
    }

    /// `N` standard normals.
    pub fn normals<const N: usize>(&mut self) -> [f64; N] {
        std::array::from_fn(|_| self.normal())
    }
}

/// The numbers `0..n` in an order that only `seed` and `purpose` decide.
pub fn shuffled(seed: u64, purpose: &str, n: usize) -> Vec<usize> {
    use rand::seq::SliceRandom;
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut stream(seed, purpose, "").0);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_purpose_and_key() {
        let first = |seed, purpose, key| stream(seed, purpose, key).uniform();
        assert_eq!(first(1, "bid", "7"), first(1, "bid", "7"));
        assert_ne!(first(1, "bid", "7"), first(2, "bid", "7"));
        assert_ne!(first(1, "bid", "7"), first(1, "id", "7"));
        assert_ne!(first(1, "bid", "7"), first(1, "bid", "8"));
        assert_ne!(first(1, "ab", "c"), first(1, "a", "bc"));
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let mut stream = stream(3, "test", "");
        let draws: Vec<f64> = (0..20_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn shuffled_is_a_permutation() {
        let mut order = shuffled(5, "ids", 100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
