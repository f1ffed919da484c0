//! What bidders of stand-alone auctions could gain by other bids than their true values (Eq. 6-7).
//!
//! The bids of a batch are taken for the true values v. The utility of a bid is theta_s (v - p) for the slot s that it
//! wins and the payment p per click, 0 where it wins none; times the bidder's quality it is that of an impression. The
//! others keep their bids. The regret is what the best bid gains over the truth: the best of a grid gamma v, and the best
//! of all bids. The latter is exact: a bidder's payment changes only with its slot, and within a slot never falls as its
//! bid grows, so that of all bids only the least for each slot count.

use std::num::NonZeroU64;
use std::ops::Range;

use rayon::prelude::*;

use super::batch::AuctionBatch;
use super::misreport::Misreports;
pub use super::misreport::Sale;
use super::view::View;
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

    /// The bids of a bidder of this true value.
    fn bids(&self, value: u64) -> impl Iterator<Item = u64> {
        self.0.iter().map(move |&gamma| misreport(gamma, value))
    }
}

/// gamma v, rounded down to a micro and at most [`Micros::MAX`].
pub(crate) fn misreport(gamma: f64, value: u64) -> u64 {
    // The cast saturates.
    ((gamma * value as f64) as u64).min(Micros::MAX.0)
}

/// What every bidder of a batch wins by other bids than its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// By the truth, `[bidders]`.
    pub truth: Vec<Option<Sale>>,
    /// By each gamma of the grid, [bidders, gammas].
    pub grid: Vec<Option<Sale>>,
    /// By the best of all bids, found at the breakpoints where the slot changes, `[bidders]`; none where no bid brings
    /// anything.
    pub best: Vec<Option<Sale>>,
    gammas: usize,
}

/// What a bidder has by the truth, and what it could gain. In micros, theta q (v - p): of an impression, where theta q is
/// the probability of a click.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regret {
    /// Utility of the truth.
    pub utility: f64,
    /// What the best bid of the grid gains; never negative.
    pub grid: f64,
    /// What the best of all bids gains; never below `grid`.
    pub exact: f64,
}

/// Lets every bidder of the batch misreport, in the threads of the current rayon pool.
///
/// gamma v is rounded down to a micro and is at most [`Micros::MAX`].
pub fn sweep(batch: &AuctionBatch, grid: &GammaGrid, unit: NonZeroU64) -> Sweep {
    let mut sweep = Sweep { truth: vec![], grid: vec![], best: vec![], gammas: grid.0.len() };
    let auctions: Vec<Sweep> =
        (0..batch.len()).into_par_iter().map(|auction| sweep_one(batch, auction, grid, unit)).collect();
    for mut one in auctions {
        sweep.truth.append(&mut one.truth);
        sweep.grid.append(&mut one.grid);
        sweep.best.append(&mut one.best);
    }
    sweep
}

fn sweep_one(batch: &AuctionBatch, auction: usize, grid: &GammaGrid, unit: NonZeroU64) -> Sweep {
    let mut misreports = Misreports::new(View::new(batch, auction), unit.get());
    let mut sweep = Sweep { truth: vec![], grid: vec![], best: vec![], gammas: grid.0.len() };
    for bidder in 0..batch.bidders(auction).len() {
        misreports.face(bidder);
        let value = misreports.value();
        sweep.truth.push(misreports.sale(value));
        sweep.grid.extend(grid.bids(value).map(|bid| misreports.sale(bid)));
        sweep.best.push(misreports.best());
    }
    sweep
}

impl Sweep {
    /// The sales of a bidder under the gammas.
    pub fn of_bidder(&self, bidder: usize) -> &[Option<Sale>] {
        &self.grid[bidder * self.gammas..(bidder + 1) * self.gammas]
    }

    /// theta (v - p) of every bidder under every gamma, [bidders, gammas], in micros; 0 where it wins nothing.
    pub fn utilities(&self, batch: &AuctionBatch) -> Vec<f64> {
        let of_bidder = |bidder: usize, slots: Range<usize>| {
            self.of_bidder(bidder).iter().map(move |sale| utility(batch, bidder, &slots, *sale))
        };
        each_bidder(batch).flat_map(|(bidder, slots)| of_bidder(bidder, slots)).collect()
    }

    /// What every bidder of the batch regrets, `[bidders]`.
    pub fn regrets(&self, batch: &AuctionBatch) -> Vec<Regret> {
        let of_bidder = |(bidder, slots): (usize, Range<usize>)| {
            let worth = |sale: Option<Sale>| batch.quality[bidder] * utility(batch, bidder, &slots, sale);
            let truth = worth(self.truth[bidder]);
            let gain = |best: f64| (best - truth).max(0.0);
            Regret {
                utility: truth,
                grid: gain(self.of_bidder(bidder).iter().copied().map(worth).fold(truth, f64::max)),
                exact: gain(worth(self.best[bidder])),
            }
        };
        each_bidder(batch).map(of_bidder).collect()
    }
}

/// Every bidder of the batch, with the slots of its auction.
pub(super) fn each_bidder(batch: &AuctionBatch) -> impl Iterator<Item = (usize, Range<usize>)> {
    let of_auction =
        move |auction: usize| batch.bidders(auction).map(move |bidder| (bidder, batch.slots(auction)));
    (0..batch.len()).flat_map(of_auction)
}

/// theta (v - p) in micros of a sale to `bidder`, whose auction has `slots`; 0 for none.
fn utility(batch: &AuctionBatch, bidder: usize, slots: &Range<usize>, sale: Option<Sale>) -> f64 {
    sale.map_or(0.0, |sale| {
        let effect = batch.position_effects[slots.start + sale.slot as usize];
        effect * (batch.bids[bidder] as f64 - sale.payment.0 as f64)
    })
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
        let batch = batch(AuctionRule::Gsp);
        let sweep = sweep(&batch, &grid, NonZeroU64::MIN);
        assert_eq!(sweep.utilities(&batch)[..3], [1200e6, 1592e6, 0.0]);
        assert_eq!(sweep.regrets(&batch)[0], Regret { utility: 1200e6, grid: 392e6, exact: 392e6 });
        assert_eq!(sweep.best[0], Some(Sale { slot: 1, payment: Micros(2_000_000) }));
    }

    /// A grid that passes over every bid for the second slot sees no regret; the breakpoints do.
    #[test]
    fn breakpoints_see_what_the_grid_passes_over() {
        let batch = batch(AuctionRule::Gsp);
        let grid = GammaGrid::new(vec![1.0, 0.5, 0.1]).unwrap();
        let regret = sweep(&batch, &grid, NonZeroU64::MIN).regrets(&batch)[0];
        assert_eq!((regret.grid, regret.exact), (0.0, 392e6));
    }

    #[test]
    fn nobody_regrets_the_truth_under_critical_values() {
        let batch = batch(AuctionRule::Vcg);
        let regrets = sweep(&batch, &GammaGrid::default(), NonZeroU64::MIN).regrets(&batch);
        // Payments are rounded down by less than a micro a click.
        assert!(regrets.iter().all(|regret| regret.grid <= regret.exact && regret.exact < 200.0));
    }

    /// First price: the least bid for the second slot, a micro above the third or its bid where the tie is won.
    #[test]
    fn under_first_price_the_best_bid_is_the_least_for_a_slot() {
        let batch = batch(AuctionRule::FirstPrice);
        let sweep = sweep(&batch, &GammaGrid::default(), NonZeroU64::MIN);
        let best = sweep.best[0].unwrap();
        assert_eq!(best.slot, 1);
        assert!((2_000_000..=2_000_001).contains(&best.payment.0), "{best:?}");
        assert_eq!(sweep.truth[0].unwrap().payment, Micros(10_000_000));
    }

    #[test]
    fn a_gamma_that_is_no_factor_is_named() {
        let error = GammaGrid::new(vec![1.0, -0.5]).unwrap_err();
        assert_eq!((error.index, error.value), (1, -0.5));
        assert!(GammaGrid::new(vec![f64::NAN]).is_err() && GammaGrid::new(vec![f64::INFINITY]).is_err());
        assert_eq!(GammaGrid::default().gammas().len(), 10);
    }
}
