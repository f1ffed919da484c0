//! Effective bids by position in the ad index, with what allocation asks of ranges of them.

use std::ops::Range;

use crate::money::Micros;

use super::tree::{Entry, Tree};

/// What the eligible ads of a range bid; ads that may not be shown now do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aggregate {
    /// Number of eligible ads.
    pub count: u64,
    /// Sum of their effective bids, in micros.
    pub sum: u128,
    /// Highest of their effective bids; `None` where `count` is 0.
    pub max: Option<Micros>,
}

impl Aggregate {
    /// What one ad bids.
    pub(crate) fn of(bid: Micros) -> Self {
        Self { count: 1, sum: u128::from(bid.0), max: Some(bid) }
    }

    /// Of this range and another.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, sum: self.sum + other.sum, max: self.max.max(other.max) }
    }
}

/// An effective bid in micros, or [`EffectiveBid::NONE`] for an ad that may not be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EffectiveBid(u64);

impl EffectiveBid {
    /// An ad that may not be shown; bids stop at 2^43, so this value is free.
    const NONE: Self = Self(u64::MAX);

    fn get(self) -> Option<u64> {
        (self != Self::NONE).then_some(self.0)
    }
}

impl From<Option<Micros>> for EffectiveBid {
    fn from(bid: Option<Micros>) -> Self {
        bid.map_or(Self::NONE, |micros| Self(micros.0))
    }
}

/// Summary of the bids below one branch: at most 2^19 of at most 2^43 micros, so that 64 bits hold their sum.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BidSummary {
    count: u32,
    max: u64,
    sum: u64,
}

impl Entry for EffectiveBid {
    type Summary = BidSummary;
    const PAD: Self = Self::NONE;

    fn summary(values: &[Self]) -> BidSummary {
        let mut all = BidSummary::default();
        for value in values {
            // Without a branch, so that it vectorizes.
            let eligible = u64::from(*value != Self::NONE);
            let bid = value.0 & eligible.wrapping_neg();
            all.count += eligible as u32;
            all.sum += bid;
            all.max = all.max.max(bid);
        }
        all
    }

    fn join(parts: &[BidSummary]) -> BidSummary {
        let mut all = BidSummary::default();
        for part in parts {
            all.count += part.count;
            all.sum += part.sum;
            all.max = all.max.max(part.max);
        }
        all
    }
}

impl Tree<EffectiveBid> {
    /// The effective bid at a position, if that ad may be shown.
    pub(super) fn bid(&self, position: usize) -> Option<Micros> {
        self.get(position).get().map(Micros)
    }

    /// Count, sum and maximum of the bids of `range`.
    pub(super) fn aggregate(&self, range: Range<usize>) -> Aggregate {
        let (mut count, mut sum, mut max) = (0, 0, 0);
        self.summarize(range, &mut |part: BidSummary| {
            count += u64::from(part.count);
            sum += u128::from(part.sum);
            max = max.max(part.max);
        });
        Aggregate { count, sum, max: (count > 0).then_some(Micros(max)) }
    }

    /// The bids that are not what they were in `before`, a column of the same length, with their positions.
    pub(super) fn changed_since(&self, before: &Self) -> Vec<(u32, Option<Micros>)> {
        let mut changed = Vec::new();
        self.differences(before, |position, value| changed.push((position as u32, value.get().map(Micros))));
        changed
    }

    /// Calls `f` with every position of `range` that bids exactly `bid`, in order.
    pub(super) fn positions_of(&self, range: Range<usize>, bid: Micros, mut f: impl FnMut(usize)) {
        self.visit(
            range,
            |part| part.count > 0 && part.max >= bid.0,
            |position, value| {
                if value.get() == Some(bid.0) {
                    f(position);
                }
            },
        );
    }
}
