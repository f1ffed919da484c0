//! The model: its configuration, its files, and what it computes.

pub mod config;
pub mod files;
pub mod init;
pub mod tensors;
pub mod tokenizer;
mod unique;
pub mod weights;
