//! Revenue of a single slot sold to bidders with values uniform on [0, 1], against Myerson 1981.

use std::num::NonZeroU64;

use bidslate::auction::batch::{Auction, AuctionBatch, AuctionRule, Reserves};
use bidslate::auction::standalone::run;
use bidslate::money::Micros;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

const AUCTIONS: usize = 200_000;
const ONE: u64 = 1_000_000_000;

/// Mean revenue and its standard error. The seed is fixed: a bound of four standard errors fails now and then by its
/// nature, and not because of the code.
fn revenue(bidders: usize, reserve: u64) -> (f64, f64) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(bidders as u64);
    let mut batch = AuctionBatch::default();
    for tie_seed in 0..AUCTIONS {
        let bids: Vec<Micros> = (0..bidders).map(|_| Micros(rng.random_range(0..=ONE))).collect();
        let auction = Auction {
            rule: [AuctionRule::Gsp, AuctionRule::Vcg][tie_seed % 2],
            bids: &bids,
            quality: &vec![1.0; bidders],
            reserves: Reserves::Common(Micros(reserve)),
            position_effects: &[1.0],
            squash: 1.0,
            tie_seed: tie_seed as u64,
            ids: None,
        };
        batch.push(&auction).unwrap();
    }
    let payments = run(&batch, NonZeroU64::MIN).payments;
    let each = payments.iter().map(|payment| payment.0 as f64 / ONE as f64);
    let mean = each.clone().sum::<f64>() / AUCTIONS as f64;
    let variance = each.map(|x| (x - mean).powi(2)).sum::<f64>() / (AUCTIONS - 1) as f64;
    (mean, (variance / AUCTIONS as f64).sqrt())
}

#[test]
fn the_reserve_of_one_half_earns_what_myerson_says() {
    for (bidders, expected) in [(1, 0.25), (2, 5.0 / 12.0), (3, 0.53125), (5, 0.671875)] {
        let (mean, error) = revenue(bidders, ONE / 2);
        assert!(
            (mean - expected).abs() < 4.0 * error,
            "{bidders} bidders: {mean} +- {error}, not {expected}"
        );
    }
}

#[test]
fn without_a_reserve_the_second_price_earns_the_second_highest_value() {
    for bidders in [2, 3, 5, 9] {
        let expected = (bidders - 1) as f64 / (bidders + 1) as f64;
        let (mean, error) = revenue(bidders, 0);
        assert!(
            (mean - expected).abs() < 4.0 * error,
            "{bidders} bidders: {mean} +- {error}, not {expected}"
        );
    }
    assert_eq!(revenue(1, 0), (0.0, 0.0));
}
