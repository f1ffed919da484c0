//! What holds in every stand-alone auction, over more than a million random ones.

mod auctions;
mod world;

use std::num::NonZeroU64;

use auctions::{Drawn, SMALL, Sizes, Sold, each_batch, outcomes, split};
use bidslate::auction::batch::{AuctionBatch, AuctionRule};
use bidslate::auction::regret::{GammaGrid, sweep};
use bidslate::auction::standalone::{run, run_as};
use bidslate::cpu::Isa;
use bidslate::decode::bidding::splitmix64;
use rand::RngExt;
use rand::seq::SliceRandom;

/// Auctions with what each sells.
fn sold<'a>(auctions: &'a [Drawn]) -> impl Iterator<Item = (&'a Drawn, Sold)> + use<'a> {
    auctions.iter().zip(outcomes(auctions, 1))
}

#[test]
fn winners_pay_at_least_the_reserve_and_at_most_the_bid() {
    each_batch(
        "winners_pay_at_least_the_reserve_and_at_most_the_bid",
        200_000,
        &SMALL,
        false,
        |auctions, rng| {
            let unit = [1, 1_000, rng.random_range(1..1 << 29)][rng.random_range(0..3)];
            for (auction, sold) in auctions.iter().zip(outcomes(auctions, unit)) {
                let mut won = vec![false; auction.bids.len()];
                for (slot, &(winner, payment)) in sold.iter().enumerate() {
                    let (bid, reserve) = (auction.bids[winner], auction.reserves[winner]);
                    assert!(!std::mem::replace(&mut won[winner], true), "wins twice: {auction:?}");
                    assert!(reserve <= payment && payment <= bid, "{payment}: {auction:?}");
                    assert!(
                        payment % unit == 0 || payment == bid || payment == reserve,
                        "{payment}: {auction:?}"
                    );
                    assert!(auction.effects[slot] > 0.0 && auction.weight(winner) > 0.0, "{auction:?}");
                }
            }
        },
    );
}

/// Written again without any cleverness: all bidders sorted, prices by the formulas.
fn by_the_book(auction: &Drawn, unit: u64) -> Sold {
    let score = |i: usize| auction.bids[i] as f64 * auction.weight(i);
    let mut ranks: Vec<usize> = (0..auction.bids.len())
        .filter(|&i| auction.bids[i] >= auction.reserves[i] && auction.weight(i) > 0.0)
        .collect();
    let hash = |i: usize| splitmix64(auction.tie_seed ^ auction.ids[i]);
    ranks.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(hash(b).cmp(&hash(a))));
    let for_sale = auction.effects.iter().filter(|&&effect| effect > 0.0).count();
    let effect = |slot: usize| auction.effects.get(slot).copied().unwrap_or(0.0);
    let price = |slot: usize, winner: usize| {
        let least = |rank: usize| {
            let next = ranks.get(rank + 1).map_or(0.0, |&next| score(next));
            (next / auction.weight(winner)).max(auction.reserves[winner] as f64)
        };
        match auction.rule {
            AuctionRule::Gsp => least(slot),
            AuctionRule::Vcg => {
                let steps = (slot..for_sale).map(|rank| (effect(rank) - effect(rank + 1)) * least(rank));
                steps.fold(0.0, |sum, step| sum + step) / effect(slot)
            }
            AuctionRule::FirstPrice => auction.bids[winner] as f64,
        }
    };
    let winners = ranks.iter().copied().take(for_sale).enumerate();
    winners
        .map(|(slot, winner)| {
            let micros = (price(slot, winner) * (1.0 + 0.5f64.powi(44))).floor() as u64;
            (winner, (micros / unit * unit).max(auction.reserves[winner]).min(auction.bids[winner]))
        })
        .collect()
}

#[test]
fn every_size_is_ranked_and_priced_by_the_book_on_every_instruction_set() {
    let large = Sizes { bidders: 1..200, slots: 1..40, bids: 1 << 43 };
    let check = |auctions: &[Drawn], unit: u64| {
        let mut batch = AuctionBatch::default();
        auctions.iter().for_each(|auction| auction.push(&mut batch));
        let found = run(&batch, NonZeroU64::new(unit).unwrap());
        for isa in Isa::available() {
            assert_eq!(run_as(isa, &batch, NonZeroU64::new(unit).unwrap()), found, "{isa:?}");
        }
        for (auction, sold) in auctions.iter().zip(split(&batch, &found)) {
            assert_eq!(sold, by_the_book(auction, unit), "{auction:?}");
        }
    };
    let test = "every_size_is_ranked_and_priced_by_the_book_on_every_instruction_set";
    each_batch(test, 100_000, &SMALL, false, |auctions, rng| check(auctions, rng.random_range(1..5)));
    each_batch(test, 15_000, &large, false, |auctions, rng| check(auctions, rng.random_range(1..5)));
    let ten_slots = Sizes { bidders: 30..130, slots: 8..16, bids: 1 << 43 };
    each_batch(test, 20_000, &ten_slots, false, |auctions, _| check(auctions, 1));
}

#[test]
fn the_order_of_the_bidders_changes_nothing() {
    each_batch("the_order_of_the_bidders_changes_nothing", 150_000, &SMALL, false, |auctions, rng| {
        let orders: Vec<Vec<usize>> = auctions
            .iter()
            .map(|auction| {
                let mut order: Vec<usize> = (0..auction.bids.len()).collect();
                order.shuffle(rng);
                order
            })
            .collect();
        let shuffled: Vec<Drawn> =
            auctions.iter().zip(&orders).map(|(a, order)| a.reordered(order)).collect();
        for (((auction, sold), again), order) in sold(auctions).zip(outcomes(&shuffled, 1)).zip(&orders) {
            let again: Sold = again.into_iter().map(|(winner, payment)| (order[winner], payment)).collect();
            assert_eq!(sold, again, "{auction:?} in the order {order:?}");
        }
    });
}

#[test]
fn without_a_loser_the_winners_are_the_same() {
    each_batch("without_a_loser_the_winners_are_the_same", 150_000, &SMALL, false, |auctions, rng| {
        let mut cases = Vec::new();
        for (auction, sold) in sold(auctions) {
            let losers: Vec<usize> =
                (0..auction.bids.len()).filter(|i| sold.iter().all(|(winner, _)| winner != i)).collect();
            if !losers.is_empty() && auction.bids.len() > 1 {
                let loser = losers[rng.random_range(0..losers.len())];
                let others: Vec<usize> = (0..auction.bids.len()).filter(|&i| i != loser).collect();
                cases.push((auction.reordered(&others), others, sold));
            }
        }
        assert!(cases.len() > auctions.len() / 4);
        let without: Vec<Drawn> = cases.iter().map(|(auction, ..)| auction.clone()).collect();
        for ((auction, others, before), after) in cases.iter().zip(outcomes(&without, 1)) {
            let winners = |sold: &Sold| sold.iter().map(|(winner, _)| *winner).collect::<Vec<_>>();
            let after: Vec<usize> = winners(&after).into_iter().map(|i| others[i]).collect();
            assert_eq!(after, winners(before), "{auction:?}");
        }
    });
}

#[test]
fn prices_scale_with_bids_and_reserves() {
    each_batch("prices_scale_with_bids_and_reserves", 150_000, &SMALL, true, |auctions, rng| {
        let factor = rng.random_range(2..1000u64);
        let scaled: Vec<Drawn> = auctions
            .iter()
            .map(|auction| Drawn {
                bids: auction.bids.iter().map(|bid| bid * factor).collect(),
                reserves: auction.reserves.iter().map(|reserve| reserve * factor).collect(),
                ..auction.clone()
            })
            .collect();
        for ((auction, sold), scaled) in sold(auctions).zip(outcomes(&scaled, 1)) {
            assert_eq!(sold.len(), scaled.len());
            for ((winner, payment), (same, scaled)) in sold.into_iter().zip(scaled) {
                // The payment lost less than a micro to rounding, and the scaled one not all of that times the factor.
                let range = (payment * factor).saturating_sub(1)..=(payment + 1) * factor;
                assert_eq!(winner, same, "{auction:?}");
                assert!(range.contains(&scaled), "{payment} x {factor} is {scaled}: {auction:?}");
            }
        }
    });
}

#[test]
fn at_equal_quality_a_higher_common_reserve_lowers_no_price() {
    each_batch("at_equal_quality_a_higher_common_reserve", 150_000, &SMALL, false, |auctions, rng| {
        let alike: Vec<Drawn> = auctions
            .iter()
            .map(|auction| Drawn {
                quality: vec![auction.quality[0].max(0.125); auction.bids.len()],
                reserves: vec![auction.reserves[0]; auction.bids.len()],
                ..auction.clone()
            })
            .collect();
        let raised: Vec<Drawn> = alike
            .iter()
            .map(|auction| {
                let reserve = auction.reserves[0] + rng.random_range(0..=1 + auction.bids[0]);
                Drawn { reserves: vec![reserve; auction.bids.len()], ..auction.clone() }
            })
            .collect();
        for ((auction, low), high) in sold(&alike).zip(outcomes(&raised, 1)) {
            assert!(high.len() <= low.len());
            for ((winner, before), (same, after)) in low.into_iter().zip(high) {
                assert_eq!(winner, same, "{auction:?}");
                assert!(after >= before, "{before} falls to {after}: {auction:?}");
            }
        }
    });
}

#[test]
fn in_a_single_slot_the_payment_is_the_critical_bid() {
    let single = Sizes { slots: 1..2, ..SMALL };
    each_batch("in_a_single_slot_the_payment_is_the_critical_bid", 150_000, &single, false, |auctions, _| {
        let with = |rule| auctions.iter().map(|a| Drawn { rule, ..a.clone() }).collect::<Vec<_>>();
        let (gsp, vcg) = (with(AuctionRule::Gsp), with(AuctionRule::Vcg));
        let sold = outcomes(&vcg, 1);
        assert_eq!(outcomes(&gsp, 1), sold);
        let (mut higher, mut lower, mut winners) = (Vec::new(), Vec::new(), Vec::new());
        for (auction, sold) in vcg.iter().zip(&sold) {
            if let Some(&(winner, payment)) = sold.first().filter(|(_, payment)| *payment > 0) {
                let bidding = |bid: u64| {
                    let mut auction = auction.clone();
                    auction.bids[winner] = bid;
                    auction
                };
                higher.push(bidding(payment + 1));
                lower.push(bidding(payment - 1));
                winners.push(winner);
            }
        }
        let wins = |sold: &Sold, winner: usize| sold.iter().any(|(other, _)| *other == winner);
        let (above, below) = (outcomes(&higher, 1), outcomes(&lower, 1));
        for (i, &winner) in winners.iter().enumerate() {
            assert!(wins(&above[i], winner), "loses a micro above the payment: {:?}", higher[i]);
            assert!(!wins(&below[i], winner), "wins a micro below the payment: {:?}", lower[i]);
        }
    });
}

#[test]
fn a_bid_does_not_set_its_own_price_while_the_rank_holds() {
    each_batch(
        "a_bid_does_not_set_its_own_price_while_the_rank_holds",
        150_000,
        &SMALL,
        false,
        |auctions, rng| {
            let bidders: Vec<usize> = auctions.iter().map(|a| rng.random_range(0..a.bids.len())).collect();
            let changed: Vec<Drawn> = auctions
                .iter()
                .zip(&bidders)
                .map(|(auction, &bidder)| {
                    let mut auction = auction.clone();
                    auction.bids[bidder] += rng.random_range(0..=1 + auction.bids[bidder] / 4);
                    auction
                })
                .collect();
            for (((auction, now), then), &bidder) in sold(auctions).zip(outcomes(&changed, 1)).zip(&bidders) {
                let slot = now.iter().position(|(winner, _)| *winner == bidder);
                let same = then.iter().position(|(winner, _)| *winner == bidder);
                let Some(slot) = slot.filter(|_| slot == same && auction.rule != AuctionRule::FirstPrice)
                else {
                    continue;
                };
                let (now, then) = (now[slot].1, then[slot].1);
                // The bid caps a price that the lift took past it by a micro.
                let capped = now == auction.bids[bidder] && then <= now + 1;
                assert!(now == then || capped, "{now} becomes {then} for {bidder}: {auction:?}");
            }
        },
    );
}

#[test]
fn the_truth_gains_nothing_and_the_breakpoints_miss_no_bid_of_a_grid() {
    each_batch("the_truth_gains_nothing_and_the_breakpoints", 50_000, &SMALL, false, |auctions, rng| {
        let mut batch = AuctionBatch::default();
        auctions.iter().for_each(|auction| auction.push(&mut batch));
        let unit = NonZeroU64::new([1, 1_000][rng.random_range(0..2)]).unwrap();
        let truth = sweep(&batch, &GammaGrid::new(vec![1.0]).unwrap(), unit).regrets(&batch);
        assert!(truth.iter().all(|regret| regret.grid == 0.0));
        let gammas: Vec<f64> = (0..6).map(|_| rng.random_range(0.0..3.0)).collect();
        let swept = sweep(&batch, &GammaGrid::new(gammas).unwrap(), unit);
        let bidders = auctions.iter().flat_map(|a| a.quality.iter().map(move |quality| (a, quality)));
        for (regret, (auction, quality)) in swept.regrets(&batch).into_iter().zip(bidders) {
            assert!(regret.utility >= 0.0 && regret.grid >= 0.0 && regret.exact >= regret.grid, "{regret:?}");
            // Under critical values all that can be gained is what the truth loses to rounding: less than a unit a click.
            let lost = quality * auction.effects[0] * unit.get() as f64 + 1e-6;
            assert!(auction.rule != AuctionRule::Vcg || regret.exact <= lost, "{regret:?}: {auction:?}");
        }
    });
}

#[test]
fn auctions_of_a_batch_do_not_see_one_another() {
    each_batch("auctions_of_a_batch_do_not_see_one_another", 5_000, &SMALL, false, |auctions, _| {
        for (auction, together) in sold(auctions) {
            assert_eq!(outcomes(std::slice::from_ref(auction), 1), [together], "{auction:?}");
        }
    });
}

/// With bids of few micros and weights of 1/2 and 1 every bid that can make a difference can be tried.
#[test]
fn the_exact_regret_is_that_of_the_best_of_all_bids() {
    const MOST: u64 = 12;
    let tiny = Sizes { bidders: 1..5, slots: 1..4, bids: MOST };
    let mut gains = 0;
    each_batch("the_exact_regret_is_that_of_the_best_of_all_bids", 5_000, &tiny, true, |auctions, rng| {
        let unit = rng.random_range(1..4);
        let mut auctions = auctions.to_vec();
        auctions.iter_mut().flat_map(|a| &mut a.quality).for_each(|q| *q = if *q < 0.5 { 0.5 } else { 1.0 });
        let mut batch = AuctionBatch::default();
        auctions.iter().for_each(|auction| auction.push(&mut batch));
        let swept = sweep(&batch, &GammaGrid::default(), NonZeroU64::new(unit).unwrap());
        let mut regrets = swept.regrets(&batch).into_iter();
        for auction in &auctions {
            for bidder in 0..auction.bids.len() {
                let bidding = |bid: u64| {
                    let mut auction = auction.clone();
                    auction.bids[bidder] = bid;
                    auction
                };
                let worth = |sold: &Sold| {
                    let slot = sold.iter().position(|(winner, _)| *winner == bidder);
                    let gain = |slot: usize| auction.bids[bidder] as f64 - sold[slot].1 as f64;
                    slot.map_or(0.0, |slot| auction.quality[bidder] * auction.effects[slot] * gain(slot))
                };
                let all: Vec<Drawn> = (0..=2 * MOST + 2).map(bidding).collect();
                let utilities: Vec<f64> = outcomes(&all, unit).iter().map(worth).collect();
                let truth = utilities[auction.bids[bidder] as usize];
                let best = utilities.iter().copied().fold(0.0, f64::max);
                let found = regrets.next().unwrap();
                assert_eq!((found.utility, found.exact), (truth, best - truth), "{bidder} of {auction:?}");
                gains += usize::from(found.exact > 0.0);
            }
        }
    });
    assert!(gains > 1_000, "only {gains} bidders gain anything");
}
