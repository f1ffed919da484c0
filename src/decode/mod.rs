//! From logits to lists: token-level bidding, eligibility, beam search.

pub mod bidding;
pub mod candidates;
mod expand;
mod path;
pub mod prefixes;
pub mod search;
