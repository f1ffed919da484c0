//! What comes out: the list, and what each ad pays.

pub mod audit;

use serde::{Deserialize, Serialize};

use crate::catalog::{ItemKind, Rejection};
use crate::money::Micros;
use crate::request::RequestId;
use audit::RegretAudit;

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Response {
    /// Name of the request.
    pub id: RequestId,
    /// Version of the catalog snapshot that the whole request saw.
    pub catalog_version: u64,
    /// The list, slot by slot; shorter than asked for where nothing more could be shown.
    pub slots: Vec<Slot>,
    /// Reward of the list, in bid units where the objective is revenue.
    pub reward: f64,
    /// Sum of ln z over the list's codes: the score of its beam.
    pub log_prob: f64,
    /// Index of the list among the candidate lists.
    pub beam: usize,
    /// Number of candidate lists.
    pub lists: usize,
    /// Candidates and organic items that could not take part, and why. Where the candidates were all ads of
    /// the catalog, at most [`MAX_REJECTED_OF_ALL`] of the ads, in catalog order.
    pub rejected: Vec<RejectedItem>,
    /// What the ads could gain by other bids; where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<RegretAudit>,
    /// Per slot, what each pricing rule would charge; where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quotes: Option<Vec<Quote>>,
    /// Where the time went; where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// Per slot, what an ad's place and price rest on, none for organic items; where asked for. Not part of the JSON.
    #[serde(skip)]
    pub grounds: Option<Vec<Option<Grounds>>>,
    /// Intermediate tensors; where asked for. Not part of the JSON.
    #[serde(skip)]
    pub trace: Option<Box<Trace>>,
}

/// Most rejected ads that a response lists where the candidates were all ads of the catalog.
pub const MAX_REJECTED_OF_ALL: usize = 1000;

/// One slot of the list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slot {
    /// Id of the item.
    pub item: u64,
    /// Ad or organic.
    pub kind: ItemKind,
    /// Id of the creative.
    pub creative: u64,
    /// The bid per click that allocation and payment saw (after pacing); 0 for organic items.
    pub bid_micros: Micros,
    /// What a click costs the advertiser; 0 for organic items.
    pub payment_micros: Micros,
    /// The payment network's rate, or payment / bid for the other rules; 0 for organic items.
    pub rate: f64,
    /// Probability of a click on the POI.
    pub pctr_poi: f64,
    /// Probability of a click on the creative.
    pub pctr_creative: f64,
    /// Probability of a conversion.
    pub pcvr: f64,
    /// Probability of the item under token-level bidding: the product of z over its codes.
    pub z: f64,
    /// Marginal contribution of the item (Eq. 31) in bid units; none where it was not asked
    /// for, and where there is no list without the item.
    pub marginal: Option<f64>,
}

/// A candidate or organic item that could not take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectedItem {
    /// Id of the item.
    pub item: u64,
    /// Why.
    pub reason: Rejection,
}

/// What each pricing rule would charge for one slot; organic items 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quote {
    /// By the payment network.
    pub network_micros: Micros,
    /// By GSP along the list.
    pub gsp_micros: Micros,
    /// By the Clarke pivot over the candidate lists; none where revenue has no weight in the objective.
    pub vcg_micros: Option<Micros>,
}

/// What an ad's place in the list and its price rest on; [`crate::record`] keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Grounds {
    /// Reserve price, which the bid had to reach.
    pub reserve: Micros,
    /// What a click costs before rounding, in micros.
    pub price: f64,
    /// The least bid in micros with which a list that shows the ad would still have the highest reward, were the
    /// candidate lists, their probabilities and the other bids what they are; at least the reserve. None where no bid
    /// would change the winner: revenue has no weight in the objective, or no click is expected.
    pub critical_bid: Option<f64>,
    /// The list that would win without the ad; none where every list shows it.
    pub runner_up: Option<RunnerUp>,
}

/// The list of the highest reward among those that do not show an ad.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerUp {
    /// Its index among the candidate lists.
    pub beam: usize,
    /// Its reward.
    pub reward: f64,
    /// Id of the item that it shows in the ad's slot; none where it is too short.
    pub item: Option<u64>,
}

/// Wall time of each stage of one request, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Timings {
    /// Request to tokens and candidates.
    pub resolve_us: u64,
    /// Encoder, and the keys and values that the POI decoder reads.
    pub encode_us: u64,
    /// Beam search: POI decoder and selection.
    pub search_us: u64,
    /// Creative decoder, with the POI decoder's position after the last code, which serves it alone.
    pub creative_us: u64,
    /// Reward model and list choice.
    pub reward_us: u64,
    /// Payments and counterfactuals.
    pub payment_us: u64,
    /// Regret audit.
    pub audit_us: u64,
}

/// Intermediate tensors of one request, row-major, for comparing implementations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// Encoder output S_e, [n, d].
    pub encoder: Vec<f32>,
    /// Item ids of the lists, [N_S, K], -1 where empty.
    pub items: Vec<i64>,
    /// Creative ids of the lists, [N_S, K], -1 where empty.
    pub creatives: Vec<i64>,
    /// Scores of the lists, `[N_S]`.
    pub log_prob: Vec<f64>,
    /// Rewards of the lists, `[N_S]`.
    pub reward: Vec<f64>,
    /// POI logits along the winning list, [K C_p, W], before bids and masks.
    pub poi_logits: Vec<f32>,
    /// ln w of every code along the winning list's items (Eq. 21), [K C_p, W]; -infinity where masked, and after its
    /// last item.
    pub ln_w: Vec<f32>,
    /// Creative logits along the winning list's creatives (Eq. 16), [K, C_c, W].
    pub creative_logits: Vec<f32>,
    /// Reward features f of the winning list, [K, d_r].
    pub reward_features: Vec<f32>,
    /// Rates of the winning list as in its slots, `[K]`.
    pub rate: Vec<f64>,
}
