//! The record of a request that was answered.

use serde::{Deserialize, Serialize};

use super::ENGINE;
use super::state::CatalogState;
use crate::catalog::ItemKind;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::money::Micros;
use crate::request::{Request, RequestId};
use crate::response::{Grounds, RejectedItem, Response, RunnerUp, Slot};

/// A request, what it was answered from, and the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocationRecord {
    /// Version of the engine.
    pub engine: String,
    /// Digest of the model's weights.
    pub weights: Digest,
    /// What computed: [`Engine::backend`].
    pub backend: String,
    /// Payments are multiples of this, reserves and bids excepted.
    pub billable_unit_micros: u64,
    /// What the request saw of bids, reserves, budgets and pacing.
    pub catalog: CatalogState,
    /// The request, with the model's alpha, beta, list length and beam width where it named none.
    pub request: Request,
    /// Reward of the list.
    pub reward: f64,
    /// Sum of ln z over the list's codes.
    pub log_prob: f64,
    /// Index of the list among the candidate lists.
    pub beam: usize,
    /// Number of candidate lists.
    pub lists: usize,
    /// The list.
    pub slots: Vec<SlotRecord>,
    /// Items that could not take part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedItem>,
}

/// One slot of a recorded list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotRecord {
    /// Id of the item.
    pub item: u64,
    /// Ad or organic.
    pub kind: ItemKind,
    /// Id of the creative.
    pub creative: u64,
    /// Probability of the item under token-level bidding.
    pub z: f64,
    /// Probability of a click on the POI.
    pub pctr_poi: f64,
    /// Probability of a click on the creative.
    pub pctr_creative: f64,
    /// Probability of a conversion.
    pub pcvr: f64,
    /// Marginal contribution in bid units, where it was asked for and there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marginal: Option<f64>,
    /// What is charged, and why; of ads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ad: Option<AdRecord>,
}

/// What an ad is charged, and what that rests on. Amounts are per click.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdRecord {
    /// Under which a click on this slot of this request is charged once: [`charge_key`].
    pub key: String,
    /// The bid that allocation and payment saw (after pacing).
    pub bid_micros: Micros,
    /// Reserve price.
    pub reserve_micros: Micros,
    /// The payment network's rate, or payment / bid for the other rules.
    pub rate: f64,
    /// See [`Grounds::critical_bid`].
    pub critical_bid_micros: Option<f64>,
    /// See [`Grounds::runner_up`].
    pub runner_up: Option<RunnerUp>,
    /// Price before rounding; none where it is beyond the range of f64, and the bid is charged.
    pub price_micros: Option<f64>,
    /// What a click costs.
    pub payment_micros: Micros,
}

impl AllocationRecord {
    /// The record of `response`, the answer of `engine` to `request`; its grounds must have been asked for.
    pub(super) fn new(
        engine: &Engine,
        request: &Request,
        response: &Response,
        catalog: CatalogState,
    ) -> Self {
        let request = spelt_out(engine, request);
        let grounds = response.grounds.as_deref().unwrap_or_default();
        let slots = response.slots.iter().zip(grounds).enumerate();
        Self {
            engine: ENGINE.into(),
            weights: engine.weights_digest(),
            backend: engine.backend().into(),
            billable_unit_micros: engine.config().billable_unit_micros,
            catalog,
            reward: response.reward,
            log_prob: response.log_prob,
            beam: response.beam,
            lists: response.lists,
            slots: slots
                .map(|(index, (slot, grounds))| SlotRecord::new(&request.id, index, slot, grounds.as_ref()))
                .collect(),
            rejected: response.rejected.clone(),
            request,
        }
    }
}

impl SlotRecord {
    fn new(request: &RequestId, index: usize, slot: &Slot, grounds: Option<&Grounds>) -> Self {
        let ad = grounds.map(|grounds| AdRecord {
            key: charge_key(request, index),
            bid_micros: slot.bid_micros,
            reserve_micros: grounds.reserve,
            rate: slot.rate,
            critical_bid_micros: grounds.critical_bid.filter(|bid| bid.is_finite()),
            runner_up: grounds.runner_up,
            price_micros: Some(grounds.price).filter(|price| price.is_finite()),
            payment_micros: slot.payment_micros,
        });
        Self {
            item: slot.item,
            kind: slot.kind,
            creative: slot.creative,
            z: slot.z,
            pctr_poi: slot.pctr_poi,
            pctr_creative: slot.pctr_creative,
            pcvr: slot.pcvr,
            marginal: slot.marginal,
            ad,
        }
    }
}

/// The key under which a click on a slot of a request is charged once: 32 hexadecimal digits that depend on the
/// request's id and the slot alone, so that an answer that is given again charges nothing again.
pub fn charge_key(request: &RequestId, slot: usize) -> String {
    // A text and a number of the same digits are different requests.
    let (form, id) = match request {
        RequestId::Text(id) => (b"t", id.clone()),
        RequestId::Number(id) => (b"n", id.to_string()),
    };
    let slot = (slot as u64).to_le_bytes();
    let mut key = Digest::of([&form[..], &slot, id.as_bytes()]).to_string();
    key.truncate(32);
    key
}

/// A request with what it left to the model.
fn spelt_out(engine: &Engine, request: &Request) -> Request {
    let config = engine.config();
    Request {
        alpha: request.alpha.or(Some(config.alpha)),
        beta: request.beta.or(Some(config.beta)),
        list_len: request.list_len.or(Some(config.list_len)),
        beam_width: request.beam_width.or(Some(config.beam_width)),
        ..request.clone()
    }
}
