//! Quantiles of latencies.

use std::time::Duration;

/// Latencies of requests, shortest first; at least one.
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Those of some requests, in any order.
    pub fn new(mut all: Vec<Duration>) -> Self {
        assert!(!all.is_empty(), "no request was answered");
        all.sort_unstable();
        Self(all)
    }

    /// The shortest latency that at least `percent` of 100 requests do not exceed: a sample, never between two.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0[rank.saturating_sub(1)]
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.percentile(100)
    }

    /// How many times the median the 99th percentile is.
    pub fn spread(&self) -> f64 {
        self.percentile(99).as_secs_f64() / self.percentile(50).as_secs_f64()
    }

    /// All, shortest first.
    pub fn all(&self) -> &[Duration] {
        &self.0
    }
}
