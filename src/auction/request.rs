//! Stand-alone auctions as JSON, one a line: what `bidslate auction` reads.

use serde::{Deserialize, Serialize};

use super::batch::{Auction, AuctionBatch, AuctionRule, Reserves};
use crate::error::{RequestError, RequestErrorKind};
use crate::json::{parse_line, word};
use crate::money::Micros;
use crate::request::RequestId;

/// One stand-alone auction, as it is asked for; see [`Auction`].
///
/// `id`, `rule`, `bids_micros` and `position_effects` are required.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuctionRequest {
    /// Name of the auction.
    pub id: RequestId,
    /// Which price the winners pay.
    #[serde(deserialize_with = "word")]
    pub rule: AuctionRule,
    /// Bids per click, `[n]`.
    pub bids_micros: Vec<Micros>,
    /// Quality of each bidder, `[n]`; 1 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Vec<f64>>,
    /// Reserve prices: one number for all bidders, or `[n]`; 0 unless given.
    #[serde(default)]
    pub reserve_micros: ReserveMicros,
    /// theta of each slot, `[S]`.
    pub position_effects: Vec<f64>,
    /// Bidders are weighed by quality^squash; 1 unless given.
    #[serde(default = "one")]
    pub squash: f64,
    /// Seed of the hash that breaks ties.
    #[serde(default)]
    pub tie_seed: u64,
    /// Ids of the bidders, `[n]`, each once, by which ties are broken; their indices unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<u64>>,
}

fn one() -> f64 {
    1.0
}

impl AuctionRequest {
    /// Parses one auction from JSON.
    ///
    /// # Errors
    /// [`RequestErrorKind::Parse`] naming the field: no JSON, an unknown key, a missing or a repeated one, a wrong type,
    /// a negative amount.
    pub fn from_json(text: &[u8]) -> Result<Self, RequestError> {
        parse_line(text)
    }

    /// Adds the auction to a batch.
    ///
    /// # Errors
    /// [`RequestErrorKind::Invalid`] naming the field that is out of range. The batch is then as it was.
    pub fn push_to(&self, batch: &mut AuctionBatch) -> Result<(), RequestError> {
        let ones;
        let quality = match &self.quality {
            Some(quality) => quality,
            None => {
                ones = vec![1.0; self.bids_micros.len()];
                &ones
            }
        };
        let auction = Auction {
            rule: self.rule,
            bids: &self.bids_micros,
            quality,
            reserves: match &self.reserve_micros {
                ReserveMicros::Common(reserve) => Reserves::Common(*reserve),
                ReserveMicros::Each(reserves) => Reserves::Each(reserves),
            },
            position_effects: &self.position_effects,
            squash: self.squash,
            tie_seed: self.tie_seed,
            ids: self.ids.as_deref(),
        };
        let refused =
            |e: super::batch::AuctionError| RequestError::new(RequestErrorKind::Invalid, e.field, e.message);
        batch.push(&auction).map(|_| ()).map_err(refused)
    }
}

/// Reserve prices: in JSON a number, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ReserveMicros {
    /// One for every bidder.
    Common(Micros),
    /// Each bidder's own.
    Each(Vec<Micros>),
}

impl Default for ReserveMicros {
    fn default() -> Self {
        Self::Common(Micros::ZERO)
    }
}

// By hand, since an untagged enum says no more of a fault than that nothing matched.
impl<'de> Deserialize<'de> for ReserveMicros {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = ReserveMicros;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an amount in micros, or a list of them")
            }

            fn visit_u64<E: serde::de::Error>(self, micros: u64) -> Result<ReserveMicros, E> {
                Ok(ReserveMicros::Common(Micros(micros)))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, list: A) -> Result<ReserveMicros, A::Error> {
                Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(list)).map(ReserveMicros::Each)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_its_default() {
        let text = br#"{"id": 4, "rule": "vcg", "bids_micros": [5, 3], "position_effects": [1, 0.5]}"#;
        let auction = AuctionRequest::from_json(text).unwrap();
        assert_eq!((auction.squash, auction.tie_seed), (1.0, 0));
        assert_eq!(auction.reserve_micros, ReserveMicros::Common(Micros(0)));
        let again = serde_json::to_vec(&auction).unwrap();
        assert_eq!(AuctionRequest::from_json(&again).unwrap(), auction);
        let mut batch = AuctionBatch::default();
        auction.push_to(&mut batch).unwrap();
        assert_eq!((batch.len(), &batch.quality[..]), (1, &[1.0, 1.0][..]));
    }

    #[test]
    fn faults_name_their_field() {
        let with = |change: &str| {
            let text = format!(
                r#"{{"id": "a", "rule": "gsp", "bids_micros": [5, 3], "quality": [1, 1], "position_effects": [1]{change}}}"#
            );
            let mut batch = AuctionBatch::default();
            let error = AuctionRequest::from_json(text.as_bytes())
                .and_then(|auction| auction.push_to(&mut batch))
                .unwrap_err();
            assert!(batch.is_empty());
            (error.kind, error.field)
        };
        use RequestErrorKind::{Invalid, Parse};
        for (change, kind, field) in [
            (r#", "reserve_micros": -1"#, Parse, "reserve_micros"),
            (r#", "reserve_micros": 0.5"#, Parse, "reserve_micros"),
            (r#", "reserve_micros": [1, -2]"#, Parse, "reserve_micros[1]"),
            (r#", "reserve_micros": "low""#, Parse, "reserve_micros"),
            (r#", "reserve_micros": [1]"#, Invalid, "reserve_micros"),
            (r#", "reserve_micros": 18446744073709551615"#, Invalid, "reserve_micros"),
            (r#", "squash": NaN"#, Parse, "squash"),
            (r#", "squash": 1e999"#, Parse, "squash"),
            (r#", "squash": -1"#, Invalid, "squash"),
            (r#", "ids": [7, 7]"#, Invalid, "ids"),
            (r#", "colour": 1"#, Parse, "colour"),
            (r#", "rule": "gsp""#, Parse, "rule"),
        ] {
            let (found_kind, found_field) = with(change);
            assert_eq!((found_kind, found_field.as_str()), (kind, field), "{change}");
        }
    }
}
