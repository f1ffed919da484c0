//! A slow, literal float64 implementation of a whole allocation, and a generator of random models for it.
//!
//! It is written from the specification of the model and the mechanism alone and takes nothing from the
//! engine's crate, so that the two can only agree where both are right. Nothing here is fast or clever: the
//! POI decoder is run again over the whole prefix for every beam of every step.
//!
//! Readings of places that can be read in more than one way are marked `Reading:` where they matter.

#![allow(dead_code)]

pub mod allocate;
pub mod auction;
pub mod audit;
pub mod compare;
pub mod files;
pub mod generate;
mod generate_requests;
pub mod network;
pub mod request;
pub mod search;

pub use allocate::{Outcome, allocate};
pub use files::Model;
pub use request::Refusal;
