//! What bidders of stand-alone auctions could gain by other bids than their true values (Eq. 6-7).
//!
//! The bids of a batch are taken for the true values v. The utility of bidding gamma v is theta_s (v - p) in micros,
//! for the slot s that it wins and the price p per click; 0 where it wins none. Multiplied by the bidder's quality it is
//! the gain per impression. The others keep their bids. The regret is what the best bid of a grid gains over the truth.

use std::num::NonZeroU64;

use rayon::prelude::*;

use super::batch::AuctionBatch;
use super::standalone::View;
use crate::money::Micros;

/// Factors by which bids are misreported.
#[derive(Debug, Clone, PartialEq)]
pub struct GammaGrid(Vec<f64>);

/// A factor of a grid that is out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("gamma {value} at {index}, expected a finite number that is not negative")]
pub struct GammaError {
    /// Its index.
    pub index: usize,
    /// Its value.
    pub value: f64,
}

impl Default for GammaGrid {
    /// 0.2, 0.4, .. 2.0.
    fn default() -> Self {
        Self((1..=10).map(|step| f64::from(step) / 5.0).collect())
    }
}

impl GammaGrid {
    /// A grid of these factors.
    ///
    /// # Errors
    /// [`GammaError`] for the first that is negative or not finite.
    pub fn new(gammas: Vec<f64>) -> Result<Self, GammaError> {
        match gammas.iter().position(|gamma| !(0.0..=f64::MAX).contains(gamma)) {
            Some(index) => Err(GammaError { index, value: gammas[index] }),
            None => Ok(Self(gammas)),
        }
    }

    /// The factors.
    pub fn gammas(&self) -> &[f64] {
        &self.0
    }
}

/// The utility of every bidder of the batch under every gamma, [bidders, gammas], in micros.
///
/// gamma v is rounded down to a micro and is at most [`Micros::MAX`].
pub fn utilities(batch: &AuctionBatch, grid: &GammaGrid, unit: NonZeroU64) -> Vec<f64> {
    let of_auction = |auction: usize| {
        let values = &batch.bids[batch.bidders(auction)];
        let mut bids = values.to_vec();
        let mut ranking = Vec::new();
        let mut utilities = Vec::with_capacity(values.len() * grid.0.len());
        for (bidder, &value) in values.iter().enumerate() {
            for gamma in &grid.0 {
                // The cast saturates.
                bids[bidder] = ((gamma * value as f64) as u64).min(Micros::MAX.0);
                let view = View::new(batch, auction).with_bids(&bids);
                utilities.push(view.utility(bidder, value, &mut ranking, unit));
            }
            bids[bidder] = value;
        }
        utilities
    };
    (0..batch.len()).into_par_iter().flat_map_iter(of_auction).collect()
}

/// The regret of every bidder: what the best of its utilities [bidders, gammas] under a grid gains over the utility of
/// the truth, `truths` `[bidders]`; never negative.
pub fn regrets(utilities: &[f64], truths: &[f64]) -> Vec<f64> {
    let gammas = utilities.len() / truths.len().max(1);
    let best = |utilities: &[f64]| utilities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let gain = |(bidder, truth): (usize, &f64)| {
        (best(&utilities[bidder * gammas..(bidder + 1) * gammas]) - truth).max(0.0)
    };
    truths.iter().enumerate().map(gain).collect()
}

#[cfg(test)]
mod tests {
    use super::super::batch::{Auction, AuctionRule, Reserves};
    use super::*;

    fn batch(rule: AuctionRule) -> AuctionBatch {
        let mut batch = AuctionBatch::default();
        let auction = Auction {
            rule,
            bids: &[Micros(10_000_000), Micros(4_000_000), Micros(2_000_000)],
            quality: &[1.0; 3],
            reserves: Reserves::Common(Micros(0)),
            position_effects: &[200.0, 199.0],
            squash: 1.0,
            tie_seed: 0,
            ids: None,
        };
        batch.push(&auction).unwrap();
        batch
    }

    /// Edelman, Ostrovsky and Schwarz 2007: with 200 and 199 clicks the first bidder has 1200 under GSP by the truth
    /// and 1592 by a bid for the second slot.
    #[test]
    fn the_first_of_a_gsp_regrets_the_truth() {
        let grid = GammaGrid::new(vec![1.0, 0.3, 0.1]).unwrap();
        let utilities = utilities(&batch(AuctionRule::Gsp), &grid, NonZeroU64::MIN);
        assert_eq!(utilities[..3], [1200e6, 1592e6, 0.0]);
        let truths: Vec<f64> = utilities.chunks(3).map(|of_bidder| of_bidder[0]).collect();
        assert_eq!(regrets(&utilities, &truths)[0], 392e6);
    }

    #[test]
    fn nobody_regrets_the_truth_under_critical_values() {
        let batch = batch(AuctionRule::Vcg);
        let all = utilities(&batch, &GammaGrid::default(), NonZeroU64::MIN);
        let truths = utilities(&batch, &GammaGrid::new(vec![1.0]).unwrap(), NonZeroU64::MIN);
        // Payments are rounded down by less than a micro a click.
        assert!(regrets(&all, &truths).iter().all(|&regret| regret < 200.0));
    }

    #[test]
    fn a_gamma_that_is_no_factor_is_named() {
        let error = GammaGrid::new(vec![1.0, -0.5]).unwrap_err();
        assert_eq!((error.index, error.value), (1, -0.5));
        assert!(GammaGrid::new(vec![f64::NAN]).is_err() && GammaGrid::new(vec![f64::INFINITY]).is_err());
        assert_eq!(GammaGrid::default().gammas().len(), 10);
    }
}
