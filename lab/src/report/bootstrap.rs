//! Intervals: a percentile bootstrap that draws whole users with replacement, since the requests of one user are not
//! independent. All variants see the same draws, so differences between them are paired.

use std::collections::BTreeMap;

use super::experiment::Group;
use super::sums::{Metric, Sums};
use crate::draw;

/// Share of the samples outside of an interval, half on each side.
const OUTSIDE: f64 = 0.05;

/// A value and its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Over the requests as they are, the mean over seeds.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How often each user is drawn in each sample.
#[derive(Debug)]
pub struct Bootstrap {
    users: Vec<u64>,
    /// `[samples][users]`; before them one sample in which everyone is there once.
    times: Vec<Vec<f64>>,
}

/// A metric of a group: as it is, then in each sample.
pub type Samples = Vec<Option<f64>>;

impl Bootstrap {
    /// `samples` draws of as many users as there are.
    pub fn new(users: Vec<u64>, samples: usize, seed: u64) -> Self {
        let draw = |sample: usize| {
            let mut draws = draw::stream(seed, "bootstrap", &sample.to_string());
            let mut times = vec![0.0; users.len()];
            (0..users.len()).for_each(|_| times[draws.below(users.len())] += 1.0);
            times
        };
        let times = std::iter::once(vec![1.0; users.len()]).chain((0..samples).map(draw)).collect();
        Self { users, times }
    }

    /// The sums of a group: by sample, by seed.
    pub fn sums(&self, group: &Group) -> Vec<Vec<Sums>> {
        let in_order = |by_user: &BTreeMap<u64, Sums>| -> Vec<Sums> {
            self.users.iter().map(|user| by_user.get(user).copied().unwrap_or_default()).collect()
        };
        let seeds: Vec<Vec<Sums>> = group.seeds.values().map(in_order).collect();
        let sum = |times: &Vec<f64>, seed: &Vec<Sums>| {
            let mut sum = Sums::default();
            times.iter().zip(seed).filter(|(times, _)| **times > 0.0).for_each(|(&n, user)| sum.add(n, user));
            sum
        };
        self.times.iter().map(|times| seeds.iter().map(|seed| sum(times, seed)).collect()).collect()
    }
}

/// A metric in each sample: the mean over seeds.
pub fn samples(sums: &[Vec<Sums>], metric: &Metric) -> Samples {
    let mean = |seeds: &Vec<Sums>| {
        let values: Option<Vec<f64>> = seeds.iter().map(|sums| metric.of(sums)).collect();
        values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
    };
    sums.iter().map(mean).collect()
}

/// The estimate of samples; none where the value itself is none. Samples without a value are left out.
pub fn estimate(samples: &Samples) -> Option<Estimate> {
    let (first, rest) = samples.split_first()?;
    let value = (*first)?;
    let mut sorted: Vec<f64> = rest.iter().flatten().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let last = sorted.len().checked_sub(1)?;
        Some(sorted[(share * last as f64).round() as usize])
    };
    let (low, high) = (quantile(OUTSIDE / 2.0), quantile(1.0 - OUTSIDE / 2.0));
    Some(Estimate { value, low: low.unwrap_or(value), high: high.unwrap_or(value) })
}

/// `of(a, b)` in each sample, where both have a value.
pub fn paired(a: &Samples, b: &Samples, of: impl Fn(f64, f64) -> f64) -> Samples {
    a.iter().zip(b).map(|(a, b)| Some(of((*a)?, (*b)?)).filter(|x| x.is_finite())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Id;
    use crate::judge::{Outcome, Predicted};
    use crate::report::experiment::Table;
    use crate::report::sums::{CTR_POI, PSI};

    /// A group of two seeds in which each user has its own click rate, and three requests that share it.
    fn group(key: &str) -> (Group, Vec<u64>) {
        let users: Vec<u64> = (0..60).collect();
        let seed = |seed: u64| {
            let mut draws = draw::stream(seed, "test", key);
            let user = |&user: &u64| {
                let rate = 0.05 + 0.02 * draws.normal();
                let mut sums = Sums::default();
                (0..3).for_each(|_| sums.add(1.0, &Sums::of(&outcome(user, 10.0 * rate))));
                (user, sums)
            };
            users.iter().map(user).collect::<BTreeMap<u64, Sums>>()
        };
        let seeds = (0..2).map(|number| (number, seed(number))).collect();
        let variant = "EGA".to_owned();
        (Group { table: Table::Competitors, variant, x: None, tier: None, seeds, requests: 180 }, users)
    }

    fn outcome(user: u64, clicks_poi: f64) -> Outcome {
        Outcome {
            id: Id::Number(0),
            user,
            impressions: 10,
            ads: 2,
            revenue: 0.0,
            value: 0.0,
            clicks_poi,
            clicks_creative: 0.0,
            conversions: 0.0,
            predicted: Predicted::default(),
            audit: None,
        }
    }

    #[test]
    fn intervals_cover_the_truth() {
        let covered = (0..200).filter(|trial| {
            let (group, users) = group(&trial.to_string());
            let bootstrap = Bootstrap::new(users, 300, *trial);
            let estimate = estimate(&samples(&bootstrap.sums(&group), &CTR_POI)).unwrap();
            (estimate.low..=estimate.high).contains(&0.05)
        });
        // 95 % of 200 is 190, with a standard deviation of 3; the percentile bootstrap of 60 users falls a little short.
        let covered = covered.count();
        assert!((178..=199).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn a_group_never_differs_from_itself() {
        let (group, users) = group("");
        let sums = Bootstrap::new(users, 50, 1).sums(&group);
        let ctr = samples(&sums, &CTR_POI);
        let difference = estimate(&paired(&ctr, &ctr, |a, b| a / b - 1.0)).unwrap();
        assert_eq!((difference.value, difference.low, difference.high), (0.0, 0.0, 0.0));
        assert_eq!(estimate(&samples(&sums, &PSI)), None, "no audit, no Psi");
    }
}
