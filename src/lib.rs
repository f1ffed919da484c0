//! Bidslate serves end-to-end generative advertising (EGA-V2, arXiv 2505.17549).

pub mod auction;
pub mod catalog;
pub mod cpu;
pub mod decode;
pub mod engine;
pub mod error;
pub mod model;
pub mod money;
pub mod ops;
pub mod request;
mod resolve;
pub mod response;
pub mod synthetic;
