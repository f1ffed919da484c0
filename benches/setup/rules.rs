//! The rules of a search whose request sets none.

use bidslate::decode::search::SearchRules;
use bidslate::model::config::ModelConfig;
use bidslate::request::{AdPolicy, BidAggregate, BidScope};

/// Lists of any number of ads, by the model's constants.
pub fn rules(config: &ModelConfig) -> SearchRules {
    SearchRules {
        list_len: config.list_len,
        beam_width: config.beam_width,
        policy: AdPolicy::default(),
        alpha: config.alpha,
        beta: config.beta,
        aggregate: BidAggregate::Max,
        scope: BidScope::Prefix,
        tie_seed: 0,
        bid_unit: config.bid_unit_micros,
        code_layers: config.poi_code_layers,
        codebook_size: config.codebook_size,
    }
}
