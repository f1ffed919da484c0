//! Token-level bidding (Eq. 21-22): from the bids behind a code to the weight of the code.
//!
//! Everything happens in the log domain: w = b^alpha + beta overflows for bids that are legal, ln w does not.

/// The request's alpha and ln beta.
#[derive(Debug, Clone, Copy)]
pub struct BidWeight {
    alpha: f64,
    ln_beta: f64,
}

impl BidWeight {
    /// `alpha` in [0, 16], `beta` in [0, 1e12].
    pub fn new(alpha: f64, beta: f64) -> Self {
        Self { alpha, ln_beta: libm::log(beta) }
    }

    /// ln w = ln(b^alpha + beta) for a bid `b` >= 0 in bid units, where 0^alpha = 0 for every alpha;
    /// -infinity, a masked code, where w = 0.
    pub fn ln(self, b: f64) -> f64 {
        if b == 0.0 { self.ln_beta } else { log_add_exp(self.alpha * libm::log(b), self.ln_beta) }
    }
}

/// ln(e^a + e^b) for a finite `a`; `b` may be -infinity.
fn log_add_exp(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    high + libm::log1p(libm::exp(low - high))
}

/// The hash that breaks ties between equal bids (splitmix64's output function).
pub fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_match_the_plain_formula() {
        for (b, alpha, beta) in
            [(1.5f64, 1.2f64, 2.0f64), (0.001, 3.0, 0.5), (40.0, 0.0, 2.0), (7.0, 16.0, 0.0)]
        {
            let w = BidWeight::new(alpha, beta).ln(b);
            assert!((w - (b.powf(alpha) + beta).ln()).abs() < 1e-13, "{b} {alpha} {beta}: {w}");
        }
    }

    #[test]
    fn no_bid_weighs_exactly_beta_and_nothing_overflows() {
        assert_eq!(BidWeight::new(0.0, 2.0).ln(0.0), libm::log(2.0));
        assert_eq!(BidWeight::new(1.2, 0.0).ln(0.0), f64::NEG_INFINITY);
        let huge = BidWeight::new(16.0, 1e12).ln((1u64 << 43) as f64);
        assert!((huge - 16.0 * 43.0 * std::f64::consts::LN_2).abs() < 1e-9);
        assert!(BidWeight::new(16.0, 0.0).ln(1e-6).is_finite());
    }

    #[test]
    fn splitmix64_matches_its_published_sequence() {
        // The first three outputs of the generator seeded with 0: its state advances by the golden gamma.
        let gamma = 0x9E37_79B9_7F4A_7C15u64;
        assert_eq!(splitmix64(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(splitmix64(gamma), 0x6E78_9E6A_A1B9_65F4);
        assert_eq!(splitmix64(gamma.wrapping_mul(2)), 0x06C4_5D18_8009_454F);
    }
}
