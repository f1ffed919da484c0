//! What goes in: one request for one list.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::RequestError;
use crate::json::{object, objects, parse_line, unique_map, word};

/// The name that a request goes by in responses and traces: a text or a number, given back as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum RequestId {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

// By hand, since an untagged enum says no more of a fault than that nothing matched.
impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = RequestId;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a text or a whole number from 0 to 18446744073709551615")
            }

            fn visit_str<E: serde::de::Error>(self, id: &str) -> Result<RequestId, E> {
                Ok(RequestId::Text(id.into()))
            }

            fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<RequestId, E> {
                Ok(RequestId::Number(id))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl From<&str> for RequestId {
    fn from(id: &str) -> Self {
        Self::Text(id.into())
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(id) => f.write_str(id),
            Self::Number(id) => write!(f, "{id}"),
        }
    }
}

/// One request for a list: who looks, what may be shown, and by which rules.
///
/// Every field but `id`, `history` and `candidates` is optional; [`Request::new`] sets the defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Name of the request.
    pub id: RequestId,
    /// Context features: name to value, each below the feature's size. A feature not given adds nothing.
    #[serde(default, deserialize_with = "unique_map")]
    pub context: BTreeMap<String, u32>,
    /// Past behaviours, oldest first. The encoder sees the last `history_len` of them.
    #[serde(deserialize_with = "objects")]
    pub history: Vec<Behavior>,
    /// The ads that may be shown.
    pub candidates: Candidates,
    /// Organic items, in the order in which they must appear.
    #[serde(default)]
    pub organic: Vec<u64>,
    /// Where ads may stand.
    #[serde(default, deserialize_with = "object")]
    pub policy: AdPolicy,
    /// Exponent of bids (Eq. 21), 0 to 16; the model's unless given.
    #[serde(default)]
    pub alpha: Option<f64>,
    /// Weight of organic content (Eq. 21), 0 to 1e12; the model's unless given.
    #[serde(default)]
    pub beta: Option<f64>,
    /// What a list is worth.
    #[serde(default, deserialize_with = "object")]
    pub objective: Objective,
    /// How ads are charged.
    #[serde(default, deserialize_with = "word")]
    pub payment: PaymentRule,
    /// How the bids of the items behind a code become the code's bid.
    #[serde(default, deserialize_with = "word")]
    pub bid_aggregate: BidAggregate,
    /// Which items are behind a code.
    #[serde(default, deserialize_with = "word")]
    pub bid_scope: BidScope,
    /// Slots of the list, 1 to the model's `list_len` (the default).
    #[serde(default)]
    pub list_len: Option<usize>,
    /// Beams of the search; the model's unless given.
    #[serde(default)]
    pub beam_width: Option<usize>,
    /// Seed of the hash that breaks ties between equal bids.
    #[serde(default)]
    pub tie_seed: u64,
    /// Exponent of quality in GSP; 1 unless given.
    #[serde(default = "one")]
    pub squash: f64,
    /// What a list without one of its ads would have been.
    #[serde(default, deserialize_with = "word")]
    pub counterfactual: Counterfactual,
    /// Whether to report each ad's marginal contribution (Eq. 31).
    #[serde(default)]
    pub marginal: bool,
    /// Regret audit tier.
    #[serde(default, deserialize_with = "word")]
    pub audit: Audit,
}

fn one() -> f64 {
    1.0
}

impl Request {
    /// A request with the defaults of everything but its name, history and candidates.
    pub fn new(id: impl Into<RequestId>, history: Vec<Behavior>, candidates: Candidates) -> Self {
        Self {
            id: id.into(),
            context: BTreeMap::new(),
            history,
            candidates,
            organic: Vec::new(),
            policy: AdPolicy::default(),
            alpha: None,
            beta: None,
            objective: Objective::default(),
            payment: PaymentRule::default(),
            bid_aggregate: BidAggregate::default(),
            bid_scope: BidScope::default(),
            list_len: None,
            beam_width: None,
            tie_seed: 0,
            squash: 1.0,
            counterfactual: Counterfactual::default(),
            marginal: false,
            audit: Audit::default(),
        }
    }

    /// Parses one request from JSON.
    ///
    /// # Errors
    /// [`RequestErrorKind::Parse`](crate::error::RequestErrorKind::Parse) naming the field: no JSON, an unknown key, a missing one, a wrong type, a
    /// negative number where none may stand.
    pub fn from_json(text: &[u8]) -> Result<Self, RequestError> {
        parse_line(text)
    }
}

/// One past behaviour of the user: what was acted on, and how.
///
/// The POI is given by `item` or, for things no longer in the catalog, by `codes`; its creative by `creative`
/// (an id among the item's) or by `creative_codes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behavior {
    /// Id of the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u64>,
    /// Id of the creative, one of the item's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creative: Option<u64>,
    /// The POI's codes, one per layer, in place of `item`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codes: Option<Vec<u16>>,
    /// The creative's codes, one per layer, in place of `creative`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creative_codes: Option<Vec<u16>>,
    /// Behaviour features: name to value. A feature not given adds nothing.
    #[serde(default, deserialize_with = "unique_map")]
    pub features: BTreeMap<String, u32>,
}

/// The ads that may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidates {
    /// Every ad of the catalog; in JSON `"all"`.
    All,
    /// The ads with these ids.
    Items(Vec<u64>),
}

impl Serialize for Candidates {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Items(items) => items.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Candidates {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Candidates;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("\"all\" or a list of item ids")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Candidates, E> {
                match text {
                    "all" => Ok(Candidates::All),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Candidates, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = items.next_element()? {
                    ids.push(id);
                }
                Ok(Candidates::Items(ids))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Where ads may stand. Slots count from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdPolicy {
    /// Most ads in the list; no limit unless given.
    pub max_ads: Option<usize>,
    /// Least number of items between two ads.
    pub min_gap: usize,
    /// First slot an ad may take.
    pub first_ad_slot: usize,
}

/// The multipliers of a list's reward (Eq. 24), each finite and not negative.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objective {
    /// Of bid times the POI's click probability.
    pub revenue: f64,
    /// Of the POI's click probability.
    pub ctr_poi: f64,
    /// Of the creative's click probability.
    pub ctr_creative: f64,
    /// Of the conversion probability.
    pub cvr: f64,
}

impl Default for Objective {
    /// Revenue alone.
    fn default() -> Self {
        Self { revenue: 1.0, ctr_poi: 0.0, ctr_creative: 0.0, cvr: 0.0 }
    }
}

/// How ads are charged, per click.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentRule {
    /// The payment network's rate times the bid (Eq. 25-26).
    #[default]
    Network,
    /// Generalised second price along the generated list.
    Gsp,
    /// Clarke pivot over the candidate lists.
    Vcg,
    /// The bid.
    FirstPrice,
}

/// How the bids of the items behind a code become the code's bid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BidAggregate {
    /// The highest.
    #[default]
    Max,
    /// The mean, organic items counting 0.
    Mean,
}

/// Which items are behind a code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BidScope {
    /// The items that the beam may still show and whose codes start with the beam's prefix and the code.
    #[default]
    Prefix,
    /// All items of the request with that code in that layer.
    Code,
}

/// What a list without one of its ads would have been.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counterfactual {
    /// The best of the candidate lists without the ad.
    #[default]
    Beams,
    /// The best list of a search without the ad.
    Redecode,
}

/// Tier of the regret audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audit {
    /// No audit.
    #[default]
    None,
    /// The list is kept.
    Fixed,
    /// The list is picked again among the candidate lists.
    Reselect,
    /// The whole allocation is run again.
    Redecode,
}
