//! The laboratory of Bidslate: a world that knows the truth, logs of what it answers to lists, and judgement of lists
//! by the truth.
//!
//! It knows the engine by its files alone (`docs/formats.md`), so it can judge lists by whoever made them.

pub mod data;
pub mod draw;
pub mod files;
pub mod judge;
pub mod lists;
pub mod logs;
pub mod report;
pub mod response;
pub mod split;
pub mod world;
