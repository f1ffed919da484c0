//! The contract: what every operation computes, its shapes and types, and how far an implementation may be from it.
//!
//! Each operation has a file here with its mathematics and a reference in f64, plain loops that are easy to check by
//! eye. [`crate::cpu`] implements the same operations under the same names; `tests/conformance.rs` holds
//! implementations to these references and tolerances.
//!
//! All tensors are dense and row-major.

pub mod attention;
pub mod cached_attention;
pub mod linear;
pub mod math;
pub mod rms_norm;
pub mod rotary;
pub mod segment_attention;

/// How far a result may be from the reference, by the type of the operands of the products, as a share of the scale
/// that each operation names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// With f32 operands.
    pub f32: f64,
    /// With operands rounded to bf16 (and f32 sums).
    pub bf16: f64,
}
