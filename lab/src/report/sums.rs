//! What metrics are made of: sums over requests.

use crate::judge::Outcome;

/// A quantity that is summed: fields of outcomes, by their names there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    Impressions,
    Ads,
    Revenue,
    Value,
    ClicksPoi,
    ClicksCreative,
    Conversions,
    PredictedRevenue,
    PredictedClicksPoi,
    PredictedClicksCreative,
    AuditedRequests,
    AuditedAds,
    Utility,
    Regret,
    Ratios,
    WithoutUtility,
}

const COUNT: usize = Sum::WithoutUtility as usize + 1;

/// A sum of each.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums([f64; COUNT]);

impl Sums {
    /// Those of one request.
    pub fn of(outcome: &Outcome) -> Self {
        let mut sums = Self::default();
        let mut set = |sum: Sum, value: f64| sums.0[sum as usize] = value;
        set(Sum::Impressions, f64::from(outcome.impressions));
        set(Sum::Ads, f64::from(outcome.ads));
        set(Sum::Revenue, outcome.revenue);
        set(Sum::Value, outcome.value);
        set(Sum::ClicksPoi, outcome.clicks_poi);
        set(Sum::ClicksCreative, outcome.clicks_creative);
        set(Sum::Conversions, outcome.conversions);
        set(Sum::PredictedRevenue, outcome.predicted.revenue);
        set(Sum::PredictedClicksPoi, outcome.predicted.clicks_poi);
        set(Sum::PredictedClicksCreative, outcome.predicted.clicks_creative);
        if let Some(audit) = &outcome.audit {
            set(Sum::AuditedRequests, 1.0);
            set(Sum::AuditedAds, f64::from(audit.ads));
            set(Sum::Utility, audit.utility);
            set(Sum::Regret, audit.regret);
            set(Sum::Ratios, audit.ratio_sum);
            set(Sum::WithoutUtility, f64::from(audit.without_utility));
        }
        sums
    }

    /// Adds `other` that many times.
    pub fn add(&mut self, times: f64, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, value)| *sum += times * value);
    }

    /// One of them.
    pub fn get(&self, sum: Sum) -> f64 {
        self.0[sum as usize]
    }
}

/// A metric: a ratio of two sums.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// As in a table's head.
    pub name: &'static str,
    /// Above.
    pub numerator: Sum,
    /// Below.
    pub denominator: Sum,
    /// Factor, for per mille and per cent.
    pub factor: f64,
    /// Digits behind the point.
    pub digits: usize,
    /// What follows the number.
    pub unit: &'static str,
}

const fn metric(
    name: &'static str,
    numerator: Sum,
    denominator: Sum,
    (factor, digits, unit): (f64, usize, &'static str),
) -> Metric {
    Metric { name, numerator, denominator, factor, digits, unit }
}

const MILLE: (f64, usize, &str) = (1000.0, 2, "");
const RATE: (f64, usize, &str) = (1.0, 4, "");
const PERCENT: (f64, usize, &str) = (100.0, 1, " %");
const FINE_PERCENT: (f64, usize, &str) = (100.0, 2, " %");

/// Revenue of a thousand impressions.
pub const RPM: Metric = metric("RPM", Sum::Revenue, Sum::Impressions, MILLE);
/// What a thousand impressions are worth to the advertisers: RPM if all paid what a click is worth to them.
pub const VALUE: Metric = metric("Value", Sum::Value, Sum::Impressions, MILLE);
/// The share of that value that is charged.
pub const CHARGED: Metric = metric("Charged", Sum::Revenue, Sum::Value, PERCENT);
/// Clicks on POIs over impressions.
pub const CTR_POI: Metric = metric("CTR-poi", Sum::ClicksPoi, Sum::Impressions, RATE);
/// Clicks on creatives over impressions.
pub const CTR_IMG: Metric = metric("CTR-img", Sum::ClicksCreative, Sum::Impressions, RATE);
/// Conversions over impressions.
pub const CONVERSIONS: Metric = metric("Conversions", Sum::Conversions, Sum::Impressions, RATE);
/// Ads over impressions.
pub const AD_LOAD: Metric = metric("Ad load", Sum::Ads, Sum::Impressions, PERCENT);
/// Regrets over utilities.
pub const PSI: Metric = metric("Ψ, ratio of sums", Sum::Regret, Sum::Utility, FINE_PERCENT);
/// Mean over requests of the sum of regret / utility, which is the paper's formula.
pub const PSI_MEAN: Metric = metric("Ψ, mean of ratios", Sum::Ratios, Sum::AuditedRequests, FINE_PERCENT);
/// Ads without truthful utility over audited ads.
pub const NO_UTILITY: Metric = metric("Without utility", Sum::WithoutUtility, Sum::AuditedAds, FINE_PERCENT);
/// Predicted revenue of a thousand impressions.
pub const PREDICTED_RPM: Metric = metric("RPM", Sum::PredictedRevenue, Sum::Impressions, MILLE);
/// Predicted clicks on POIs over impressions.
pub const PREDICTED_CTR_POI: Metric = metric("CTR-poi", Sum::PredictedClicksPoi, Sum::Impressions, RATE);
/// Predicted clicks on creatives over impressions.
pub const PREDICTED_CTR_IMG: Metric = metric("CTR-img", Sum::PredictedClicksCreative, Sum::Impressions, RATE);

impl Metric {
    /// Its value, factor included; none where there is nothing to relate to.
    pub fn of(&self, sums: &Sums) -> Option<f64> {
        let below = sums.get(self.denominator);
        (below > 0.0).then(|| self.factor * sums.get(self.numerator) / below)
    }
}
