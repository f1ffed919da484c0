//! The record of a stand-alone auction.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::ENGINE;
use super::compare::{Difference, differences};
use crate::auction::batch::AuctionBatch;
use crate::auction::request::AuctionRequest;
use crate::auction::standalone::{NO_WINNER, run};
use crate::error::RequestError;
use crate::money::Micros;

/// A stand-alone auction, and who won it at which payments. The outcome does not depend on the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuctionRecord {
    /// Version of the engine.
    pub engine: String,
    /// Payments are multiples of this, reserves and bids excepted.
    pub billable_unit_micros: NonZeroU64,
    /// The auction, with its defaults filled in.
    pub auction: AuctionRequest,
    /// Index of each slot's winner among the bidders; none where the slot is not sold.
    pub winners: Vec<Option<u32>>,
    /// Payment per click of each slot; 0 where it is not sold.
    pub payments_micros: Vec<Micros>,
}

impl AuctionRecord {
    /// The record of an outcome: the winners and payments of the auction's slots, as in
    /// [`Outcomes`](crate::auction::standalone::Outcomes).
    pub fn new(unit: NonZeroU64, auction: AuctionRequest, winners: &[u32], payments: &[Micros]) -> Self {
        Self {
            engine: ENGINE.into(),
            billable_unit_micros: unit,
            auction,
            winners: winners.iter().map(|&winner| (winner != NO_WINNER).then_some(winner)).collect(),
            payments_micros: payments.to_vec(),
        }
    }

    /// Runs the auction again; every field that is not the same.
    ///
    /// # Errors
    /// [`RequestError`] where it is refused.
    pub fn replay(&self) -> Result<Vec<Difference>, RequestError> {
        let mut batch = AuctionBatch::default();
        self.auction.push_to(&mut batch)?;
        let outcomes = run(&batch, self.billable_unit_micros);
        let auction = self.auction.clone();
        let now = Self {
            engine: self.engine.clone(),
            ..Self::new(self.billable_unit_micros, auction, &outcomes.winners, &outcomes.payments)
        };
        Ok(differences(self, &now))
    }
}
