//! Lists as the engine answers with them (`docs/formats.md`): read from anyone, written for the bounding policies.

use serde::{Deserialize, Serialize};

use crate::data::Id;

/// One answer, as far as it is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Name of the request.
    pub id: Id,
    /// The list.
    pub slots: Vec<Slot>,
    /// What the ads could gain by other bids; where it was audited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
}

/// A slot of the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Id of the item.
    pub item: u64,
    /// Ad or organic.
    pub kind: Kind,
    /// Id of the creative.
    pub creative: u64,
    /// The ad's bid; 0 if organic.
    pub bid_micros: u64,
    /// What a click costs; 0 if organic.
    pub payment_micros: u64,
    /// Predicted probability of a click on the POI.
    pub pctr_poi: f64,
    /// Predicted probability of a click on the creative.
    pub pctr_creative: f64,
    /// Predicted probability of a conversion.
    pub pcvr: f64,
}

/// Kind of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An ad.
    Ad,
    /// An organic item.
    Organic,
}

/// A regret audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// What was computed again for another bid: `fixed`, `reselect` or `redecode`.
    pub tier: String,
    /// The ads of the list.
    pub ads: Vec<AuditedAd>,
}

/// An audited ad.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AuditedAd {
    /// (value - payment) times predicted clicks, in micros.
    pub utility_micros: f64,
    /// What the best other bid gains, in micros.
    pub regret_micros: f64,
}
