//! One body of assertions per operation, run over every implementer: each instruction set of this machine, with and
//! without a team of threads, in each precision. Inputs are drawn afresh in each run; the seed is printed on failure and
//! `BIDSLATE_SEED` repeats a run.

#[path = "conformance/attention.rs"]
mod attention;
#[path = "conformance/elementwise.rs"]
mod elementwise;
#[path = "conformance/few_keys.rs"]
mod few_keys;
#[path = "conformance/products.rs"]
mod products;
#[path = "conformance/setup.rs"]
mod setup;
