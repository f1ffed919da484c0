//! Bid landscapes: what a bidder of a stand-alone auction would get for gamma times its bid.

use super::batch::AuctionBatch;
use super::regret::{Sale, Sweep, each_bidder};

/// What a bidder gets for one bid, expected per impression.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// Clicks: theta q of the slot that it wins.
    pub clicks: f64,
    /// What they cost, in micros.
    pub cost: f64,
    /// What is left of their value, in micros.
    pub utility: f64,
}

/// The landscape of every bidder of the batch, [bidders, gammas], from the sweep of a grid of gammas.
pub fn landscapes(batch: &AuctionBatch, sweep: &Sweep) -> Vec<Point> {
    let point = |bidder: usize, first_slot: usize, sale: Sale| {
        let clicks = batch.position_effects[first_slot + sale.slot as usize] * batch.quality[bidder];
        let (value, payment) = (batch.bids[bidder] as f64, sale.payment.0 as f64);
        Point { clicks, cost: clicks * payment, utility: clicks * (value - payment) }
    };
    let of_bidder = |(bidder, slots): (usize, std::ops::Range<usize>)| {
        let sales = sweep.of_bidder(bidder).iter();
        sales.map(move |sale| sale.map_or(Point::default(), |sale| point(bidder, slots.start, sale)))
    };
    each_bidder(batch).flat_map(of_bidder).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::super::batch::{Auction, AuctionRule, Reserves};
    use super::super::regret::{GammaGrid, sweep};
    use super::*;
    use crate::money::Micros;

    #[test]
    fn higher_bids_buy_more_clicks() {
        let mut batch = AuctionBatch::default();
        let auction = Auction {
            rule: AuctionRule::Gsp,
            bids: &[Micros(1_000), Micros(400), Micros(200)],
            quality: &[0.5, 0.5, 0.5],
            reserves: Reserves::Common(Micros(150)),
            position_effects: &[1.0, 0.5],
            squash: 1.0,
            tie_seed: 0,
            ids: None,
        };
        batch.push(&auction).unwrap();
        let grid = GammaGrid::new(vec![0.1, 0.3, 1.0]).unwrap();
        let points = landscapes(&batch, &sweep(&batch, &grid, NonZeroU64::MIN));
        let second = Point { clicks: 0.25, cost: 50.0, utility: 200.0 };
        let first = Point { clicks: 0.5, cost: 200.0, utility: 300.0 };
        assert_eq!(points[..3], [Point::default(), second, first]);
        assert_eq!(points.len(), 9);
    }
}
