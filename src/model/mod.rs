//! The model: its configuration, its files, and what it computes.

pub mod config;
