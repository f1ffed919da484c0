//! What a regret audit found (Eq. 6-7).

use serde::Serialize;

use crate::auction::psi::AdRegret;
use crate::money::Micros;
use crate::request::Audit;

/// The audit of one request: every ad of its list, and what other bids would have brought it.
///
/// Utilities, regrets and costs are expected micros per impression: per click, times the probability of a click on the
/// POI.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegretAudit {
    /// What was computed again for another bid.
    pub tier: Audit,
    /// The ads of the list, by slot.
    pub ads: Vec<AuditedAd>,
    /// What the decoder ran for it; of `redecode` alone, on a device whose searches share rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<SharedRows>,
}

impl RegretAudit {
    /// Utility and regret of each ad, for [`Audits`](crate::auction::psi::Audits).
    pub fn regrets(&self) -> impl Iterator<Item = AdRegret> {
        self.ads.iter().map(|ad| AdRegret { utility: ad.utility_micros, regret: ad.regret_micros })
    }
}

/// An ad of the list, and its sweep over other bids.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditedAd {
    /// Its slot.
    pub slot: usize,
    /// Id of the item.
    pub item: u64,
    /// Id of its advertiser.
    pub advertiser: Option<u64>,
    /// Its value v of a click: the bid that allocation and payment saw.
    pub value_micros: Micros,
    /// (v - payment) times the probability of a click, by the truth.
    pub utility_micros: f64,
    /// What the best bid of the sweep gains over the truth; 0 where none does.
    pub regret_micros: f64,
    /// What the best of all bids gains, where that can be told: of `reselect`, where the payment is not the network's.
    pub exact_regret_micros: Option<f64>,
    /// What regret / utility is at least, because no payment is above its bid; of `fixed` alone, and none where the ad
    /// pays its bid.
    pub least_ratio: Option<f64>,
    /// One point for each gamma, in the order of the grid.
    pub sweep: Vec<SweepPoint>,
}

/// What an ad gets if it bids gamma v: a point of its bid landscape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepPoint {
    /// Factor on the value.
    pub gamma: f64,
    /// gamma v, rounded down to a micro and at most [`Micros::MAX`].
    pub bid_micros: Micros,
    /// Slot of the list that it is shown in; none where it is not shown, and everything that follows is 0 then.
    pub slot: Option<usize>,
    /// What a click costs it.
    pub payment_micros: Micros,
    /// Expected clicks: the probability of a click on the POI.
    pub clicks: f64,
    /// Expected cost.
    pub cost_micros: f64,
    /// (v - payment) times clicks.
    pub utility_micros: f64,
    /// Probability of the item under token-level bidding; none where it was not needed.
    pub z: Option<f64>,
    /// What the payment network read (Eq. 25), [d_r + K]: the slot's feature f, ln(1 + bid) of the other slots, z times
    /// pctr_poi; where asked for. Not part of the JSON.
    #[serde(skip)]
    pub rate_input: Option<Vec<f32>>,
}

/// How much of the decoder's work the searches of an audit shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SharedRows {
    /// Searches: one for each ad and gamma whose bid is not below the reserve.
    pub searches: usize,
    /// Distinct code prefixes over all of them and the request's own.
    pub unique_prefixes: usize,
    /// Decoder rows that were run. Less than the prefixes by those that the request itself had run; more where rows
    /// had to be forgotten for want of memory.
    pub rows: usize,
    /// Decoder rows that the searches would have run each on its own.
    pub rows_alone: usize,
}
