//! Money: integer micros.

use serde::{Deserialize, Serialize};

/// An amount of money in micros (millionths of a currency unit).
///
/// Deliberately without arithmetic: prices are computed in one place ([`crate::auction`]) and rounded once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Largest bid and reserve price: 2^43 micros, so that scaling a price by 1 + 2^-44 before it is floored
    /// moves it by less than a micro.
    pub const MAX: Self = Self(1 << 43);

    /// The amount in units of `unit` micros, as the model sees it.
    pub fn in_units(self, unit: u64) -> f64 {
        self.0 as f64 / unit as f64
    }
}

impl std::fmt::Display for Micros {
    /// In currency units with six decimals: `1.500000`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
