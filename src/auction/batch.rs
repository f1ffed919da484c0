//! Many stand-alone auctions side by side in flat arrays, checked once: what [`super::standalone`] and the GPU run.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::money::Micros;

/// Which price a winner pays; see [`super::standalone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum AuctionRule {
    /// Generalised second price.
    Gsp = 0,
    /// Critical values: VCG with reserves.
    Vcg = 1,
    /// The bid.
    FirstPrice = 2,
}

/// Reserve prices of an auction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reserves<'a> {
    /// One for every bidder.
    Common(Micros),
    /// Each bidder's own.
    Each(&'a [Micros]),
}

/// One auction: n bidders compete for S slots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Auction<'a> {
    /// Which price the winners pay.
    pub rule: AuctionRule,
    /// Bids per click, `[n]`, up to [`Micros::MAX`].
    pub bids: &'a [Micros],
    /// Quality q of each bidder, `[n]`, finite and not negative.
    pub quality: &'a [f64],
    /// Reserve prices, up to [`Micros::MAX`].
    pub reserves: Reserves<'a>,
    /// theta of each slot, `[S]`, finite, not negative and never rising.
    pub position_effects: &'a [f64],
    /// Bidders are weighed by q^squash; finite and not negative.
    pub squash: f64,
    /// Seed of the hash that breaks ties.
    pub tie_seed: u64,
    /// Ids of the bidders, `[n]`, each once; their indices where not given. Ties are broken by them.
    pub ids: Option<&'a [u64]>,
}

/// An auction that was refused; the others of its batch are not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("auction {auction}: `{field}`: {message}")]
pub struct AuctionError {
    /// How many auctions the batch held: the index that this one would have had.
    pub auction: usize,
    /// The field.
    pub field: &'static str,
    /// The value and what was expected.
    pub message: String,
}

/// Largest weight and position effect. Up to here no product with a bid overflows.
pub const MAX_FACTOR: f64 = 1e200;

/// Auctions side by side. Those of auction a are at [`AuctionBatch::bidders`] and [`AuctionBatch::slots`] of the flat
/// arrays.
#[derive(Debug, Clone, PartialEq)]
pub struct AuctionBatch {
    pub(crate) rules: Vec<u8>,
    pub(crate) tie_seeds: Vec<u64>,
    /// `[auctions + 1]`
    pub(crate) bidder_offsets: Vec<u32>,
    /// `[auctions + 1]`
    pub(crate) slot_offsets: Vec<u32>,
    pub(crate) bids: Vec<u64>,
    pub(crate) reserves: Vec<u64>,
    pub(crate) quality: Vec<f64>,
    /// q^squash.
    pub(crate) weights: Vec<f64>,
    /// Of all bidders; empty as long as every auction takes the indices.
    pub(crate) ids: Vec<u64>,
    pub(crate) position_effects: Vec<f64>,
}

impl Default for AuctionBatch {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            tie_seeds: Vec::new(),
            bidder_offsets: vec![0],
            slot_offsets: vec![0],
            bids: Vec::new(),
            reserves: Vec::new(),
            quality: Vec::new(),
            weights: Vec::new(),
            ids: Vec::new(),
            position_effects: Vec::new(),
        }
    }
}

impl AuctionBatch {
    /// Number of auctions.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Where the bidders of an auction are among those of all auctions.
    pub fn bidders(&self, auction: usize) -> Range<usize> {
        self.bidder_offsets[auction] as usize..self.bidder_offsets[auction + 1] as usize
    }

    /// Where the slots of an auction are among those of all auctions.
    pub fn slots(&self, auction: usize) -> Range<usize> {
        self.slot_offsets[auction] as usize..self.slot_offsets[auction + 1] as usize
    }

    /// Adds an auction and returns its index.
    ///
    /// # Errors
    /// [`AuctionError`] naming the field that is out of range. The batch is then as it was.
    pub fn push(&mut self, auction: &Auction) -> Result<usize, AuctionError> {
        let index = self.len();
        let refuse = |(field, message)| AuctionError { auction: index, field, message };
        check(auction).map_err(refuse)?;
        let weights = weights(auction).map_err(refuse)?;
        let bidders = offset(self.bids.len() + auction.bids.len(), "bids_micros").map_err(refuse)?;
        let slots = self.position_effects.len() + auction.position_effects.len();
        let slots = offset(slots, "position_effects").map_err(refuse)?;
        self.push_ids(auction);
        self.rules.push(auction.rule as u8);
        self.tie_seeds.push(auction.tie_seed);
        self.bidder_offsets.push(bidders);
        self.slot_offsets.push(slots);
        self.bids.extend(auction.bids.iter().map(|bid| bid.0));
        match auction.reserves {
            Reserves::Common(reserve) => self.reserves.resize(self.bids.len(), reserve.0),
            Reserves::Each(reserves) => self.reserves.extend(reserves.iter().map(|reserve| reserve.0)),
        }
        self.quality.extend_from_slice(auction.quality);
        self.weights.extend(weights);
        self.position_effects.extend_from_slice(auction.position_effects);
        Ok(index)
    }

    /// Adds the ids of an auction that is about to be added.
    fn push_ids(&mut self, auction: &Auction) {
        if auction.ids.is_some() && self.ids.is_empty() {
            self.ids = (0..self.len()).flat_map(|a| 0..self.bidders(a).len() as u64).collect();
        }
        match auction.ids {
            Some(ids) => self.ids.extend_from_slice(ids),
            None if self.ids.is_empty() => {}
            None => self.ids.extend(0..auction.bids.len() as u64),
        }
    }
}

type Fault = (&'static str, String);

fn check(auction: &Auction) -> Result<(), Fault> {
    let n = auction.bids.len();
    if n == 0 {
        return Err(("bids_micros", "is empty, expected a bidder or more".into()));
    }
    if auction.position_effects.is_empty() {
        return Err(("position_effects", "is empty, expected a slot or more".into()));
    }
    check_length("quality", auction.quality.len(), n)?;
    check_amounts("bids_micros", auction.bids)?;
    match &auction.reserves {
        Reserves::Common(reserve) => check_amounts("reserve_micros", std::slice::from_ref(reserve))?,
        Reserves::Each(reserves) => {
            check_length("reserve_micros", reserves.len(), n)?;
            check_amounts("reserve_micros", reserves)?;
        }
    }
    check_numbers("quality", auction.quality, f64::MAX)?;
    check_numbers("position_effects", auction.position_effects, MAX_FACTOR)?;
    check_numbers("squash", &[auction.squash], f64::MAX)?;
    if let Some(i) = auction.position_effects.windows(2).position(|pair| pair[1] > pair[0]) {
        let (before, after) = (auction.position_effects[i], auction.position_effects[i + 1]);
        let message = format!("rises from {before} to {after} at slot {}, expected never to rise", i + 1);
        return Err(("position_effects", message));
    }
    auction.ids.map_or(Ok(()), |ids| check_ids(ids, n))
}

fn check_length(field: &'static str, length: usize, bidders: usize) -> Result<(), Fault> {
    let fits = length == bidders;
    fits.then_some(()).ok_or_else(|| (field, format!("has {length} values for {bidders} bidders")))
}

fn check_amounts(field: &'static str, amounts: &[Micros]) -> Result<(), Fault> {
    let Some(i) = amounts.iter().position(|&amount| amount > Micros::MAX) else { return Ok(()) };
    Err((field, format!("is {} micros at {i}, expected at most {}", amounts[i].0, Micros::MAX.0)))
}

fn check_numbers(field: &'static str, numbers: &[f64], most: f64) -> Result<(), Fault> {
    let Some(i) = numbers.iter().position(|x| !(0.0..=most).contains(x)) else { return Ok(()) };
    Err((field, format!("is {} at {i}, expected 0 to {most:e}", numbers[i])))
}

fn check_ids(ids: &[u64], bidders: usize) -> Result<(), Fault> {
    check_length("ids", ids.len(), bidders)?;
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) else { return Ok(()) };
    Err(("ids", format!("{} twice, expected each id once", twice[0])))
}

/// q^squash of every bidder.
fn weights(auction: &Auction) -> Result<Vec<f64>, Fault> {
    let weigh = |(i, &quality): (usize, &f64)| {
        let weight = libm::pow(quality, auction.squash);
        let fits = weight <= MAX_FACTOR;
        fits.then_some(weight).ok_or_else(|| {
            let squash = auction.squash;
            ("quality", format!("{quality} at {i} to the power of {squash} is above {MAX_FACTOR:e}"))
        })
    };
    auction.quality.iter().enumerate().map(weigh).collect()
}

fn offset(length: usize, field: &'static str) -> Result<u32, Fault> {
    u32::try_from(length).map_err(|_| (field, "the batch would hold more than 2^32 - 1".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUCTION: Auction = Auction {
        rule: AuctionRule::Gsp,
        bids: &[Micros(3), Micros(5)],
        quality: &[1.0, 4.0],
        reserves: Reserves::Common(Micros(1)),
        position_effects: &[1.0, 0.5],
        squash: 0.5,
        tie_seed: 0,
        ids: None,
    };

    #[test]
    fn each_fault_is_refused_by_its_field_and_leaves_the_batch_alone() {
        let big = [Micros(u64::MAX), Micros(1)];
        let faulty = [
            ("bids_micros", Auction { bids: &[], ..AUCTION }),
            ("bids_micros", Auction { bids: &big, ..AUCTION }),
            ("quality", Auction { quality: &[1.0], ..AUCTION }),
            ("quality", Auction { quality: &[1.0, f64::NAN], ..AUCTION }),
            ("quality", Auction { quality: &[-0.5, 1.0], ..AUCTION }),
            ("quality", Auction { quality: &[f64::INFINITY, 1.0], ..AUCTION }),
            ("quality", Auction { quality: &[1e300, 1.0], squash: 3.0, ..AUCTION }),
            ("reserve_micros", Auction { reserves: Reserves::Common(big[0]), ..AUCTION }),
            ("reserve_micros", Auction { reserves: Reserves::Each(&big), ..AUCTION }),
            ("reserve_micros", Auction { reserves: Reserves::Each(&big[1..]), ..AUCTION }),
            ("position_effects", Auction { position_effects: &[], ..AUCTION }),
            ("position_effects", Auction { position_effects: &[0.5, 0.75], ..AUCTION }),
            ("position_effects", Auction { position_effects: &[f64::NAN], ..AUCTION }),
            ("position_effects", Auction { position_effects: &[1.0, -0.5], ..AUCTION }),
            ("position_effects", Auction { position_effects: &[1e250], ..AUCTION }),
            ("squash", Auction { squash: f64::INFINITY, ..AUCTION }),
            ("squash", Auction { squash: -1.0, ..AUCTION }),
            ("ids", Auction { ids: Some(&[7]), ..AUCTION }),
            ("ids", Auction { ids: Some(&[7, 7]), ..AUCTION }),
        ];
        let mut batch = AuctionBatch::default();
        batch.push(&AUCTION).unwrap();
        let before = batch.clone();
        for (field, auction) in faulty {
            let error = batch.push(&auction).unwrap_err();
            assert_eq!((error.auction, error.field), (1, field), "{error}");
            assert_eq!(batch, before);
        }
        assert_eq!(batch.push(&AUCTION), Ok(1));
    }

    #[test]
    fn weights_and_reserves_are_spread_over_the_bidders() {
        let mut batch = AuctionBatch::default();
        batch.push(&AUCTION).unwrap();
        assert_eq!((&batch.weights[..], &batch.reserves[..]), (&[1.0, 2.0][..], &[1, 1][..]));
    }

    #[test]
    fn ids_given_once_are_there_for_every_auction() {
        let mut batch = AuctionBatch::default();
        batch.push(&AUCTION).unwrap();
        assert!(batch.ids.is_empty());
        batch.push(&Auction { ids: Some(&[9, 4]), ..AUCTION }).unwrap();
        batch.push(&AUCTION).unwrap();
        assert_eq!(batch.ids, [0, 1, 9, 4, 0, 1]);
        assert_eq!((batch.bidders(2), batch.slots(1)), (4..6, 2..4));
    }
}
