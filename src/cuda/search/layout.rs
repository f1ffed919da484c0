//! The tables of a search as `kernels/search.cuh` lays them out.

use super::SearchRequest;
use super::forest::Tree;
use crate::decode::search::SearchRules;
use crate::request::{BidAggregate, BidScope};

/// No node, ad, slot, item or fault.
pub(super) const NONE: u32 = u32::MAX;
/// Words of a request's rules.
pub(super) const RULES: usize = 13;
/// Terms of a request's weights.
pub(super) const TERMS: usize = 3;
/// Words of a beam.
pub(super) const BEAM_WORDS: usize = 10;
/// Sums of a beam.
pub(super) const SUMS: usize = 2;
/// Words of the bids behind a code.
pub(super) const TALLY_WORDS: usize = 4;
/// Ways on that are compared as one at first.
const GROUP: usize = 32;

/// Slots of ln z of each beam: one for each code, and one that stays empty where the organic item shares its code.
pub(super) fn ways(codes: usize) -> usize {
    codes + 1
}

/// Groups of these slots.
pub(super) fn groups(codes: usize) -> usize {
    ways(codes).div_ceil(GROUP)
}

/// Words of an item that a row has closed: the item, the ad, its node in each layer.
pub(super) fn chosen_words(layers: usize) -> usize {
    2 + layers
}

/// Shared memory of `expand`: the used ads, and their nodes in each layer.
pub(super) fn expand_shared(layers: usize, slots: usize) -> u32 {
    (4 * slots * (layers + 1)) as u32
}

/// Shared memory of `select_beams`: one key and six words for each beam.
pub(super) fn select_shared(rows: usize) -> u32 {
    (rows * (8 + 6 * 4)) as u32
}

/// Whether a request weighs codes over all its items.
pub(super) fn by_code(rules: &SearchRules) -> bool {
    rules.scope == BidScope::Code
}

/// The rules of a request whose organic items begin at `organic`.
pub(super) fn rules(request: &SearchRequest<'_>, tree: Tree, organic: usize) -> [u32; RULES] {
    // Beyond any slot there is no difference between large and larger.
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let rules = request.rules;
    [
        tree.root,
        rules.list_len as u32,
        rules.beam_width as u32,
        rules.policy.max_ads.map_or(u32::MAX, word),
        word(rules.policy.min_gap),
        word(rules.policy.first_ad_slot),
        u32::from(rules.aggregate == BidAggregate::Mean),
        u32::from(by_code(rules)),
        request.excluded.map_or(NONE, |position| tree.first_ad + position),
        organic as u32,
        request.organic.len() as u32,
        tree.first_ad,
        tree.first_ad + tree.ads,
    ]
}

/// alpha, ln beta and the bid unit.
pub(super) fn terms(rules: &SearchRules) -> [f64; TERMS] {
    [rules.alpha, libm::log(rules.beta), rules.bid_unit as f64]
}

/// How far a request's search has come.
pub(super) struct Progress<'a>(&'a [u32]);

/// A logit that is not finite.
pub(super) struct Fault {
    pub code: usize,
    pub step: u32,
    pub logit: f32,
}

impl<'a> Progress<'a> {
    pub(super) const WORDS: usize = 6;

    /// That of request `request` in the words of a batch.
    pub(super) fn of(words: &'a [u32], request: usize) -> Self {
        Self(&words[request * Self::WORDS..][..Self::WORDS])
    }

    /// Beams in use.
    pub(super) fn beams(&self) -> usize {
        self.0[0] as usize
    }

    /// The first logit that is not finite where it counts, of `codes` codes.
    pub(super) fn fault(&self, codes: usize) -> Option<Fault> {
        let [_, _, _, beam_and_code, step, bits] = *self.0 else { return None };
        let code = beam_and_code as usize % codes;
        (beam_and_code != NONE).then(|| Fault { code, step, logit: f32::from_bits(bits) })
    }
}
