//! What stand-alone auctions promise, over random auctions: who pays what, and that under critical values nobody gains by
//! another bid than the true value.

use std::num::NonZeroU64;

use bidslate::auction::batch::{Auction, AuctionBatch, AuctionRule, Reserves};
use bidslate::auction::standalone::{NO_WINNER, Outcomes, run};
use bidslate::money::Micros;
use proptest::prelude::*;

const RULES: [AuctionRule; 3] = [AuctionRule::Gsp, AuctionRule::Vcg, AuctionRule::FirstPrice];

/// An auction that owns its numbers.
#[derive(Debug, Clone)]
struct Owned {
    rule: AuctionRule,
    bids: Vec<Micros>,
    quality: Vec<f64>,
    reserves: Vec<Micros>,
    effects: Vec<f64>,
    squash: f64,
    tie_seed: u64,
    ids: Vec<u64>,
}

impl Owned {
    fn outcomes(&self) -> Outcomes {
        self.outcomes_in(NonZeroU64::MIN)
    }

    fn outcomes_in(&self, unit: NonZeroU64) -> Outcomes {
        let mut batch = AuctionBatch::default();
        batch
            .push(&Auction {
                rule: self.rule,
                bids: &self.bids,
                quality: &self.quality,
                reserves: Reserves::Each(&self.reserves),
                position_effects: &self.effects,
                squash: self.squash,
                tie_seed: self.tie_seed,
                ids: Some(&self.ids),
            })
            .unwrap();
        run(&batch, unit)
    }

    /// The slot that `bidder` wins and what it pays, under the bid `bid`.
    fn under(&self, bidder: usize, bid: Micros) -> Option<(usize, Micros)> {
        let mut deviating = self.clone();
        deviating.bids[bidder] = bid;
        let outcomes = deviating.outcomes();
        let slot = outcomes.winners.iter().position(|&winner| winner as usize == bidder)?;
        Some((slot, outcomes.payments[slot]))
    }

    /// theta (value - price) of `bidder` under the bid `bid`, in micros.
    fn utility(&self, bidder: usize, value: Micros, bid: Micros) -> f64 {
        let won = self.under(bidder, bid);
        won.map_or(0.0, |(slot, price)| self.effects[slot] * (value.0 as f64 - price.0 as f64))
    }

    fn weight(&self, bidder: usize) -> f64 {
        libm::pow(self.quality[bidder], self.squash)
    }

    /// Bids at which the outcome of `bidder` may change: just below and above every other rank score and the reserve.
    fn breakpoints(&self, bidder: usize) -> Vec<Micros> {
        let weight = self.weight(bidder);
        let others = (0..self.bids.len()).filter(|&other| other != bidder);
        let scores = others.map(|other| self.bids[other].0 as f64 * self.weight(other) / weight);
        scores
            .filter(|bid| *bid < Micros::MAX.0 as f64)
            .map(|bid| bid as u64)
            .chain([self.reserves[bidder].0])
            .flat_map(|bid| [bid.saturating_sub(1), bid, bid + 1])
            .map(|bid| Micros(bid.min(Micros::MAX.0)))
            .collect()
    }
}

/// Random auctions; numbers of few values make ties.
fn auctions() -> impl Strategy<Value = Owned> {
    let sizes = (1usize..9, 1usize..6, 0usize..3, prop_oneof![Just(4u64), Just(40_000_000)]);
    sizes.prop_flat_map(|(bidders, slots, rule, most)| {
        let quality = prop_oneof![1 => Just(0.0), 9 => (1u32..=8).prop_map(|q| f64::from(q) / 8.0)];
        let effect = prop_oneof![1 => Just(0.0), 9 => (1u32..=1000).prop_map(|t| f64::from(t) / 1000.0)];
        (
            proptest::collection::vec((0..=most).prop_map(Micros), bidders),
            proptest::collection::vec(quality, bidders),
            proptest::collection::vec((0..=most / 2).prop_map(Micros), bidders),
            proptest::collection::vec(effect, slots),
            prop_oneof![Just(1.0), Just(0.0), 0.1f64..2.0],
            any::<u64>(),
            proptest::collection::hash_set(any::<u64>(), bidders),
        )
            .prop_map(move |(bids, quality, reserves, mut effects, squash, tie_seed, ids)| {
                effects.sort_by(|a, b| b.total_cmp(a));
                let ids = ids.into_iter().collect();
                Owned { rule: RULES[rule], bids, quality, reserves, effects, squash, tie_seed, ids }
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn winners_pay_between_reserve_and_bid(auction in auctions(), unit in 1u64..3_000) {
        let outcomes = auction.outcomes_in(NonZeroU64::new(unit).unwrap());
        let mut seen = std::collections::HashSet::new();
        for (slot, (&winner, &payment)) in outcomes.winners.iter().zip(&outcomes.payments).enumerate() {
            if winner == NO_WINNER {
                prop_assert_eq!(payment, Micros::ZERO);
                continue;
            }
            let i = winner as usize;
            prop_assert!(seen.insert(winner), "wins twice");
            prop_assert!(auction.effects[slot] > 0.0 && auction.weight(i) > 0.0);
            prop_assert!(auction.reserves[i] <= payment && payment <= auction.bids[i]);
            if auction.rule == AuctionRule::FirstPrice {
                let bid = auction.bids[i].0;
                prop_assert_eq!(payment.0, (bid - bid % unit).max(auction.reserves[i].0));
            }
        }
    }

    #[test]
    fn whoever_is_left_out_ranks_below_every_winner(auction in auctions()) {
        let outcomes = auction.outcomes();
        let score = |i: usize| auction.bids[i].0 as f64 * auction.weight(i);
        let winners: Vec<usize> =
            outcomes.winners.iter().filter(|&&w| w != NO_WINNER).map(|&w| w as usize).collect();
        prop_assert!(winners.windows(2).all(|pair| score(pair[0]) >= score(pair[1])));
        let eligible: Vec<usize> = (0..auction.bids.len())
            .filter(|&i| auction.bids[i] >= auction.reserves[i] && auction.weight(i) > 0.0)
            .collect();
        let for_sale = auction.effects.iter().filter(|&&effect| effect > 0.0).count();
        prop_assert_eq!(winners.len(), for_sale.min(eligible.len()));
        let least = winners.last().map_or(f64::INFINITY, |&i| score(i));
        prop_assert!(eligible.iter().all(|i| winners.contains(i) || score(*i) <= least));
    }

    #[test]
    fn the_order_of_the_bidders_changes_nothing(
        (auction, order) in auctions().prop_flat_map(|auction| {
            let order: Vec<usize> = (0..auction.bids.len()).collect();
            (Just(auction), Just(order).prop_shuffle())
        })
    ) {
        let pick = |values: &[Micros]| order.iter().map(|&i| values[i]).collect::<Vec<_>>();
        let shuffled = Owned {
            bids: pick(&auction.bids),
            reserves: pick(&auction.reserves),
            quality: order.iter().map(|&i| auction.quality[i]).collect(),
            ids: order.iter().map(|&i| auction.ids[i]).collect(),
            ..auction.clone()
        };
        let (outcomes, again) = (auction.outcomes(), shuffled.outcomes());
        prop_assert_eq!(&outcomes.payments, &again.payments);
        for (&winner, &other) in outcomes.winners.iter().zip(&again.winners) {
            let other = if other == NO_WINNER { NO_WINNER } else { order[other as usize] as u32 };
            prop_assert_eq!(winner, other);
        }
    }

    #[test]
    fn critical_values_are_truthful(auction in auctions(), grid in 1u64..100) {
        let auction = Owned { rule: AuctionRule::Vcg, ..auction };
        // A payment is rounded down by less than a micro a click; the rest is the rounding of f64.
        let slack = auction.effects[0] * 1.0 + 1e-6;
        for bidder in (0..auction.bids.len()).filter(|&i| auction.weight(i) > 0.0) {
            let value = auction.bids[bidder];
            let truth = auction.utility(bidder, value, value);
            prop_assert!(truth >= 0.0);
            let grid = (0..=20).map(|step| Micros(value.0 * step / 10 + step * grid));
            for bid in grid.chain(auction.breakpoints(bidder)) {
                let utility = auction.utility(bidder, value, bid);
                prop_assert!(
                    utility <= truth + slack,
                    "bidder {bidder} of value {value} gains {} by bidding {bid}", utility - truth
                );
            }
        }
    }

    #[test]
    fn own_bids_do_not_set_own_prices_while_the_slot_stays(auction in auctions(), more in 1u64..1_000_000) {
        if auction.rule != AuctionRule::FirstPrice {
            for bidder in 0..auction.bids.len() {
                let bid = auction.bids[bidder];
                let higher = Micros(bid.0 + more);
                if let (Some(now), Some(then)) = (auction.under(bidder, bid), auction.under(bidder, higher)) {
                    prop_assert!(then.0 <= now.0, "a higher bid wins a lower slot");
                    // The bid caps a price that the lift took past it by a micro.
                    let capped = now.1 == bid && then.1.0 <= bid.0 + 1;
                    prop_assert!(then.0 < now.0 || now.1 == then.1 || capped);
                }
            }
        }
    }

    #[test]
    fn in_a_single_slot_the_price_is_the_critical_bid(auction in auctions()) {
        let auction = Owned { effects: vec![1.0], rule: AuctionRule::Vcg, ..auction };
        let outcomes = auction.outcomes();
        prop_assert_eq!(&Owned { rule: AuctionRule::Gsp, ..auction.clone() }.outcomes(), &outcomes);
        if outcomes.winners[0] != NO_WINNER {
            let (winner, price) = (outcomes.winners[0] as usize, outcomes.payments[0]);
            prop_assert!(auction.under(winner, Micros(price.0 + 1)).is_some());
            if let Some(below) = price.0.checked_sub(1) {
                prop_assert!(auction.under(winner, Micros(below)).is_none());
            }
        }
    }
}

#[test]
fn auctions_of_a_batch_do_not_see_one_another() {
    let bids: Vec<Micros> = (0..3_000u64).map(|i| Micros(i * 7_919 % 4_001)).collect();
    let quality = vec![0.5; bids.len()];
    let mut together = AuctionBatch::default();
    let mut apart = Outcomes::default();
    for (n, start) in (0..2_900).enumerate() {
        let range = start..start + 1 + n % 90;
        let auction = Auction {
            rule: RULES[n % 3],
            bids: &bids[range.clone()],
            quality: &quality[range],
            reserves: Reserves::Common(Micros(n as u64 % 500)),
            position_effects: &[0.9, 0.4, 0.4, 0.1, 0.0][n % 4..],
            squash: 1.0,
            tie_seed: n as u64,
            ids: None,
        };
        together.push(&auction).unwrap();
        let mut alone = AuctionBatch::default();
        alone.push(&auction).unwrap();
        let outcomes = run(&alone, NonZeroU64::MIN);
        apart.winners.extend(outcomes.winners);
        apart.payments.extend(outcomes.payments);
    }
    assert_eq!(run(&together, NonZeroU64::MIN), apart);
}
