//! The truthful rules in exact arithmetic: written a second time in rationals, where nobody gains anything by a bid that
//! is not the true value, and compared with what the engine charges.

mod auctions;
mod world;

use auctions::{Drawn, Sizes, outcomes};
use bidslate::auction::batch::AuctionRule;
use bidslate::auction::pricing::{PricedAd, clarke_pivot};
use bidslate::decode::bidding::splitmix64;
use bidslate::money::Micros;
use num_bigint::BigInt;
use num_rational::BigRational;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

type Q = BigRational;

fn int(n: u64) -> Q {
    Q::from_integer(BigInt::from(n))
}

/// A float as the rational that it is.
fn exact(x: f64) -> Q {
    Q::from_float(x).unwrap()
}

fn zero() -> Q {
    int(0)
}

/// A stand-alone auction under critical values, in rationals.
struct Market {
    bids: Vec<Q>,
    weights: Vec<Q>,
    reserves: Vec<Q>,
    /// Those above 0.
    effects: Vec<Q>,
    hashes: Vec<u64>,
}

impl Market {
    fn of(auction: &Drawn) -> Self {
        let effects = auction.effects.iter().filter(|&&effect| effect > 0.0);
        Self {
            bids: auction.bids.iter().map(|&bid| int(bid)).collect(),
            weights: (0..auction.bids.len()).map(|i| exact(auction.weight(i))).collect(),
            reserves: auction.reserves.iter().map(|&reserve| int(reserve)).collect(),
            effects: effects.map(|&effect| exact(effect)).collect(),
            hashes: auction.ids.iter().map(|id| splitmix64(auction.tie_seed ^ id)).collect(),
        }
    }

    fn score(&self, bidder: usize) -> Q {
        &self.bids[bidder] * &self.weights[bidder]
    }

    /// All who take part, best first.
    fn ranks(&self) -> Vec<usize> {
        let takes_part = |&i: &usize| self.bids[i] >= self.reserves[i] && self.weights[i] > zero();
        let mut ranks: Vec<usize> = (0..self.bids.len()).filter(takes_part).collect();
        ranks.sort_by(|&a, &b| self.score(b).cmp(&self.score(a)).then(self.hashes[b].cmp(&self.hashes[a])));
        ranks
    }

    /// Slot and price of each winner.
    fn sold(&self) -> Vec<(usize, Q)> {
        let ranks = self.ranks();
        let price = |slot: usize, winner: usize| {
            let mut sum = zero();
            for rank in slot..self.effects.len() {
                let next = ranks.get(rank + 1).map_or(zero(), |&next| self.score(next));
                let below = self.effects.get(rank + 1).cloned().unwrap_or(zero());
                let least = (next / &self.weights[winner]).max(self.reserves[winner].clone());
                sum += (&self.effects[rank] - below) * least;
            }
            sum / &self.effects[slot]
        };
        let winners = ranks.iter().copied().take(self.effects.len()).enumerate();
        winners.map(|(slot, winner)| (winner, price(slot, winner))).collect()
    }

    /// theta (value - price) of a bidder.
    fn utility(&self, bidder: usize, value: &Q) -> Q {
        let sold = self.sold();
        let slot = sold.iter().position(|(winner, _)| *winner == bidder);
        slot.map_or(zero(), |slot| &self.effects[slot] * (value - &sold[slot].1))
    }

    /// The same market where `bidder` bids `bid`.
    fn bidding(&self, bidder: usize, bid: Q) -> Self {
        let mut bids = self.bids.clone();
        bids[bidder] = bid;
        Self {
            bids,
            weights: self.weights.clone(),
            reserves: self.reserves.clone(),
            effects: self.effects.clone(),
            hashes: self.hashes.clone(),
        }
    }

    /// Every bid that stands for a slot: at, between and beyond the bids that reach the others' scores.
    fn deviations(&self, bidder: usize) -> Vec<Q> {
        let others = (0..self.bids.len()).filter(|&other| other != bidder);
        let mut points: Vec<Q> = others.map(|other| self.score(other) / &self.weights[bidder]).collect();
        points.extend([self.reserves[bidder].clone(), zero()]);
        points.sort();
        let between = points.windows(2).map(|pair| (&pair[0] + &pair[1]) / int(2)).collect::<Vec<_>>();
        let beyond = points.last().unwrap() * int(2) + int(1);
        points.into_iter().chain(between).chain([beyond]).collect()
    }
}

fn drawn(count: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<Drawn> {
    let sizes = Sizes { bidders: 1..7, slots: 1..5, bids: 1 << 40 };
    let vcg = |auction: Drawn| Drawn { rule: AuctionRule::Vcg, ..auction };
    (0..count).map(|_| vcg(Drawn::new(&sizes, false, rng))).collect()
}

#[test]
fn nobody_regrets_the_truth_under_critical_values() {
    let mut rng = world::rng("nobody_regrets_the_truth_under_critical_values");
    let mut wins = 0;
    for auction in drawn(400, &mut rng) {
        let market = Market::of(&auction);
        for bidder in (0..auction.bids.len()).filter(|&i| market.weights[i] > zero()) {
            let value = &market.bids[bidder];
            let truth = market.utility(bidder, value);
            assert!(truth >= zero(), "{auction:?}");
            wins += usize::from(truth > zero());
            for bid in market.deviations(bidder) {
                let utility = market.bidding(bidder, bid.clone()).utility(bidder, value);
                assert!(utility <= truth, "{bidder} gains {} by {bid}: {auction:?}", utility - &truth);
            }
        }
    }
    assert!(wins > 100, "only {wins} winners had anything to lose");
}

/// What is charged for an exact price: rounded down, unless f64 could not tell it from the next micro.
fn settled(price: &Q, reserve: u64, bid: u64) -> [u64; 2] {
    let micros = |price: Q| u64::try_from(price.floor().to_integer()).unwrap().max(reserve).min(bid);
    let lift = int(1) + Q::new(BigInt::from(1), BigInt::from(1u64 << 43));
    [micros(price.clone()), micros(price * lift)]
}

#[test]
fn the_engine_charges_the_rational_price_rounded_down_once() {
    let mut rng = world::rng("the_engine_charges_the_rational_price_rounded_down_once");
    let auctions = drawn(3_000, &mut rng);
    for (auction, sold) in auctions.iter().zip(outcomes(&auctions, 1)) {
        let expected = Market::of(auction).sold();
        assert_eq!(sold.len(), expected.len(), "{auction:?}");
        for ((winner, payment), (same, price)) in sold.into_iter().zip(expected) {
            let [low, high] = settled(&price, auction.reserves[winner], auction.bids[winner]);
            assert_eq!(winner, same, "{auction:?}");
            assert!((low..=high).contains(&payment), "{payment} for {price}: {auction:?}");
        }
    }
}

/// Candidate lists that do not depend on bids: of every list and ad the click probability, 0 where it does not show the
/// ad, and what else the list is worth.
struct Lists {
    revenue: Q,
    clicks: Vec<Vec<Q>>,
    rest: Vec<Q>,
}

impl Lists {
    fn draw(rng: &mut Xoshiro256PlusPlus) -> Self {
        let (lists, ads) = (rng.random_range(1..8), rng.random_range(1..5));
        let mut share = |most: u64, of: u64| Q::new(rng.random_range(0..=most).into(), of.into());
        let mut click = || {
            let shown = share(2, 3) > zero();
            if shown { share(1 << 20, 1 << 20) } else { zero() }
        };
        let clicks = (0..lists).map(|_| (0..ads).map(|_| click()).collect()).collect();
        Self {
            clicks,
            rest: (0..lists).map(|_| share(1 << 10, 1 << 10)).collect(),
            revenue: share(30, 7) + int(1),
        }
    }

    /// Reward of a list without what `ad` brings; with all where there is none such.
    fn others(&self, list: usize, ad: Option<usize>, bids: &[Q]) -> Q {
        let worth = (0..bids.len())
            .filter(|&i| Some(i) != ad)
            .map(|i| &self.revenue * &bids[i] * &self.clicks[list][i]);
        worth.fold(self.rest[list].clone(), |sum, worth| sum + worth)
    }

    /// The list of the highest reward, the first of equals.
    fn winner(&self, bids: &[Q]) -> usize {
        let rewards: Vec<Q> = (0..self.rest.len()).map(|list| self.others(list, None, bids)).collect();
        let most = rewards.iter().max().unwrap();
        rewards.iter().position(|reward| reward == most).unwrap()
    }

    /// Price of a click on `ad` in the winning list by the Clarke pivot; none where no click is expected.
    fn price(&self, ad: usize, bids: &[Q]) -> Option<Q> {
        let winner = self.winner(bids);
        let weight = &self.revenue * &self.clicks[winner][ad];
        let most = (0..self.rest.len()).map(|list| self.others(list, Some(ad), bids)).max().unwrap();
        (weight > zero()).then(|| (most - self.others(winner, Some(ad), bids)) / weight)
    }

    /// Clicks times (value - price).
    fn utility(&self, ad: usize, value: &Q, bids: &[Q]) -> Q {
        let clicks = &self.clicks[self.winner(bids)][ad];
        self.price(ad, bids).map_or(zero(), |price| clicks * (value - price))
    }
}

#[test]
fn the_clarke_pivot_over_fixed_lists_is_truthful() {
    let mut rng = world::rng("the_clarke_pivot_over_fixed_lists_is_truthful");
    let mut changed = 0;
    for _ in 0..500 {
        let lists = Lists::draw(&mut rng);
        let ads = lists.clicks[0].len();
        let values: Vec<Q> =
            (0..ads).map(|_| Q::new(rng.random_range(0..5_000_000u64).into(), 1_000_000.into())).collect();
        let winner = lists.winner(&values);
        for ad in 0..ads {
            let truth = lists.utility(ad, &values[ad], &values);
            assert!(truth >= zero(), "a price above the bid");
            for _ in 0..20 {
                let mut bids = values.clone();
                bids[ad] = Q::new(rng.random_range(0..15_000_000u64).into(), 1_000_000.into());
                let utility = lists.utility(ad, &values[ad], &bids);
                assert!(utility <= truth, "ad {ad} gains {} by {}", utility - &truth, bids[ad]);
                changed += usize::from(lists.winner(&bids) != winner);
            }
        }
    }
    assert!(changed > 1_000, "only {changed} bids changed the list");
}

#[test]
fn the_engine_prices_by_the_rational_pivot() {
    const UNIT: u64 = 1_000_000;
    let mut rng = world::rng("the_engine_prices_by_the_rational_pivot");
    let near =
        |q: &Q| q.numer().to_string().parse::<f64>().unwrap() / q.denom().to_string().parse::<f64>().unwrap();
    for _ in 0..2_000 {
        let lists = Lists::draw(&mut rng);
        let ads = lists.clicks[0].len();
        let micros: Vec<u64> = (0..ads).map(|_| rng.random_range(0..5 * UNIT)).collect();
        let bids: Vec<Q> = micros.iter().map(|&bid| int(bid) / int(UNIT)).collect();
        let winner = lists.winner(&bids);
        for (ad, &bid) in micros.iter().enumerate() {
            let quality = near(&lists.clicks[winner][ad]);
            let others: Vec<f64> =
                (0..lists.rest.len()).map(|list| near(&lists.others(list, Some(ad), &bids))).collect();
            let priced = PricedAd { bid: Micros(bid), reserve: Micros(7), quality };
            let revenue = near(&lists.revenue);
            let found = clarke_pivot(&priced, revenue, UNIT, &others, winner);
            match lists.price(ad, &bids) {
                None => assert_eq!(found, 7.0),
                Some(price) => {
                    let expected = near(&(price * int(UNIT)));
                    // The difference of two rewards loses digits that the quotient brings forward.
                    let slack = 1e-14 * others.iter().copied().fold(0.0, f64::max) / (revenue * quality)
                        * UNIT as f64;
                    assert!((found - expected).abs() <= slack + 1e-12 * expected, "{found} and {expected}");
                }
            }
        }
    }
}
