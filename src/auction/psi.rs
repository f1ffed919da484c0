//! Psi, the metric of incentive compatibility (Eq. 7): what advertisers could gain by other bids than their values,
//! relative to what the truth brings them.
//!
//! Every ad of a request has a truthful utility u and a regret r. A ratio r / u says nothing where u is next to
//! nothing, so the metric is given in two ways, with the number of ads whose u is at most [`NO_UTILITY`]:
//!
//! ```text
//! ratio of sums    sum of r over all ads of all requests / sum of u
//! mean of ratios   mean over requests of the sum over its ads of r / u, ads without utility left out
//! ```
//!
//! The confidence intervals are percentile bootstraps that draw whole requests: ads of one list are not independent.
//! Tiers of the audit measure different things, so each needs an [`Audits`] of its own.

use serde::Serialize;

use crate::decode::bidding::splitmix64;

/// Truthful utilities up to this count as none.
pub const NO_UTILITY: f64 = 1e-9;

/// Share of the bootstrap's samples that lies outside of an interval, half on each side.
const OUTSIDE: f64 = 0.05;

/// What one ad of a request has by the truth, and what it could gain; both in the same unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdRegret {
    /// Utility of the truthful bid, not negative.
    pub utility: f64,
    /// Gain of the best other bid; 0 where none gains.
    pub regret: f64,
}

/// The audits of many requests, of one tier and one payment rule.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audits {
    requests: Vec<Sums>,
    ads: usize,
    without_utility: usize,
}

/// What Psi needs of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    utility: f64,
    regret: f64,
    ratios: f64,
}

/// How the bootstrap draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Samples, each of as many requests as there are.
    pub samples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { samples: 1000, seed: 0 }
    }
}

/// A 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// An estimate and its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Over the requests as they are.
    pub value: f64,
    /// Of the bootstrap; none where no sample has a value.
    pub interval: Option<Interval>,
}

/// Psi of many requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Psi {
    /// Requests, those without ads included.
    pub requests: usize,
    /// Ads.
    pub ads: usize,
    /// Ads whose truthful utility is at most [`NO_UTILITY`].
    pub without_utility: usize,
    /// Sum of regrets / sum of utilities; none where nobody has any utility.
    pub ratio_of_sums: Option<Estimate>,
    /// Mean over requests of the sum of regret / utility; none where there are no requests.
    pub mean_of_ratios: Option<Estimate>,
}

impl Audits {
    /// Adds a request with these ads.
    pub fn push(&mut self, ads: impl IntoIterator<Item = AdRegret>) {
        let mut sums = Sums::default();
        for AdRegret { utility, regret } in ads {
            self.ads += 1;
            sums.utility += utility;
            sums.regret += regret;
            if utility > NO_UTILITY {
                sums.ratios += regret / utility;
            } else {
                self.without_utility += 1;
            }
        }
        self.requests.push(sums);
    }

    /// Psi of the requests so far. The same requests in the same order give the same bits.
    pub fn psi(&self, bootstrap: Bootstrap) -> Psi {
        let all = || 0..self.requests.len();
        let (mut ratios, mut means) = (Vec::new(), Vec::new());
        for sample in 0..bootstrap.samples {
            let sums = self.sum(self.draw(bootstrap.seed, sample));
            ratios.extend(ratio_of_sums(sums));
            means.extend(self.mean_of_ratios(sums));
        }
        let whole = self.sum(all());
        let estimate = |value: Option<f64>, samples: Vec<f64>| {
            value.map(|value| Estimate { value, interval: interval(samples) })
        };
        Psi {
            requests: self.requests.len(),
            ads: self.ads,
            without_utility: self.without_utility,
            ratio_of_sums: estimate(ratio_of_sums(whole), ratios),
            mean_of_ratios: estimate(self.mean_of_ratios(whole), means),
        }
    }

    fn sum(&self, requests: impl Iterator<Item = usize>) -> Sums {
        requests.map(|request| self.requests[request]).fold(Sums::default(), |sum, one| Sums {
            utility: sum.utility + one.utility,
            regret: sum.regret + one.regret,
            ratios: sum.ratios + one.ratios,
        })
    }

    /// As many requests as there are, drawn with replacement.
    fn draw(&self, seed: u64, sample: usize) -> impl Iterator<Item = usize> {
        let count = self.requests.len();
        let stream = splitmix64(splitmix64(seed) ^ sample as u64);
        // The high half of a product of 128 bits: uniform up to 2^-64 of the count.
        let below = move |bits: u64| ((u128::from(bits) * count as u128) >> 64) as usize;
        (0..count).map(move |draw| below(splitmix64(stream.wrapping_add(draw as u64))))
    }

    fn mean_of_ratios(&self, sums: Sums) -> Option<f64> {
        (!self.requests.is_empty()).then(|| sums.ratios / self.requests.len() as f64)
    }
}

fn ratio_of_sums(sums: Sums) -> Option<f64> {
    (sums.utility > 0.0).then(|| sums.regret / sums.utility)
}

/// The samples' percentiles, by nearest rank.
fn interval(mut samples: Vec<f64>) -> Option<Interval> {
    samples.sort_unstable_by(f64::total_cmp);
    let outside = (samples.len() as f64 * (OUTSIDE / 2.0)) as usize;
    let low = *samples.get(outside)?;
    let high = *samples.get(samples.len().checked_sub(outside + 1)?)?;
    Some(Interval { low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ad(utility: f64, regret: f64) -> AdRegret {
        AdRegret { utility, regret }
    }

    #[test]
    fn psi_three_ways() {
        let mut audits = Audits::default();
        audits.push([ad(4.0, 1.0), ad(2.0, 0.0)]);
        audits.push([]);
        audits.push([ad(1.0, 2.0), ad(0.0, 0.25), ad(NO_UTILITY, 0.75)]);
        let psi = audits.psi(Bootstrap::default());
        assert_eq!((psi.requests, psi.ads, psi.without_utility), (3, 5, 2));
        assert_eq!(psi.ratio_of_sums.unwrap().value, 4.0 / (7.0 + NO_UTILITY));
        assert_eq!(psi.mean_of_ratios.unwrap().value, (0.25 + 2.0) / 3.0);
    }

    #[test]
    fn nothing_to_relate_to_is_no_figure() {
        let psi = Audits::default().psi(Bootstrap::default());
        assert_eq!((psi.ratio_of_sums, psi.mean_of_ratios), (None, None));
        let mut audits = Audits::default();
        audits.push([ad(0.0, 3.0)]);
        let psi = audits.psi(Bootstrap { samples: 0, seed: 0 });
        assert_eq!(psi.ratio_of_sums, None);
        assert_eq!(psi.mean_of_ratios, Some(Estimate { value: 0.0, interval: None }));
    }

    /// Requests with ratio 0 or 1, half of each: the mean of n of them has a standard error of 1 / (2 sqrt n).
    #[test]
    fn the_interval_has_the_width_that_the_central_limit_theorem_says() {
        let mut audits = Audits::default();
        (0..400).for_each(|request| audits.push([ad(1.0, f64::from(request % 2))]));
        for seed in 0..5 {
            let bootstrap = Bootstrap { samples: 4000, seed };
            let psi = audits.psi(bootstrap);
            for estimate in [psi.ratio_of_sums.unwrap(), psi.mean_of_ratios.unwrap()] {
                let Interval { low, high } = estimate.interval.unwrap();
                let half = 1.96 * 0.5 / 400f64.sqrt();
                // The ends of 4,000 samples are themselves uncertain by some 4 % of the width, and steps of 1 / 400.
                assert!((0.5 - low - half).abs() < 0.2 * half, "{low}");
                assert!((high - 0.5 - half).abs() < 0.2 * half, "{high}");
            }
            assert_eq!(psi, audits.psi(bootstrap), "the same seed draws the same");
        }
        assert_ne!(
            audits.psi(Bootstrap { samples: 10, seed: 1 }),
            audits.psi(Bootstrap { samples: 10, seed: 2 })
        );
    }

    #[test]
    fn every_request_is_drawn_about_as_often() {
        let mut audits = Audits::default();
        (0..10).for_each(|_| audits.push([]));
        let mut counts = [0u32; 10];
        (0..10_000).flat_map(|sample| audits.draw(7, sample)).for_each(|request| counts[request] += 1);
        // 100,000 draws: 10,000 each, with a standard deviation of 95.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 500), "{counts:?}");
    }
}
