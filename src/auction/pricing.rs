//! The pricing rules of a generated list, per click, in f64 micros before [`settle`](super::settle::settle).
//!
//! f64 in the written order of operations, no contraction: the same integers on every device.

use crate::money::Micros;

/// An ad of the winning list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PricedAd {
    /// The bid per click.
    pub bid: Micros,
    /// The reserve price.
    pub reserve: Micros,
    /// q: probability of a click on the POI.
    pub quality: f64,
}

/// Generalised second price along the list: the least that keeps the rank score of `ad` above that of `next`, the next
/// ad in the list: `b_next (q_next / q)^squash`. The last ad pays its reserve, and so does one with q = 0.
pub fn gsp(ad: &PricedAd, next: Option<&PricedAd>, squash: f64) -> f64 {
    match next {
        Some(next) if ad.quality > 0.0 => next.bid.0 as f64 * libm::pow(next.quality / ad.quality, squash),
        _ => ad.reserve.0 as f64,
    }
}

/// The Clarke pivot of one ad over the candidate lists, in micros:
/// `[max over L of others(L) - others(S*)] / (m_rev q)`, where `others(L)` is the reward of L less the ad's own
/// `m_rev b q` in it. The winning list is among `others`, so it is never negative. With q = 0 the reserve.
pub fn clarke_pivot(ad: &PricedAd, revenue: f64, bid_unit: u64, others: &[f64], winner: usize) -> f64 {
    let weight = revenue * ad.quality;
    if weight == 0.0 {
        return ad.reserve.0 as f64;
    }
    let most = others.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (most - others[winner]) / weight * bid_unit as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ad(bid: u64, quality: f64) -> PricedAd {
        PricedAd { bid: Micros(bid), reserve: Micros(7), quality }
    }

    #[test]
    fn gsp_charges_the_next_rank_score() {
        let (first, second, third) = (ad(1_000, 0.2), ad(600, 0.1), ad(500, 0.0));
        assert_eq!(gsp(&first, Some(&second), 1.0), 300.0);
        assert_eq!(gsp(&first, Some(&second), 0.0), 600.0);
        assert_eq!(gsp(&second, Some(&third), 1.0), 0.0);
        assert_eq!(gsp(&third, Some(&first), 1.0), 7.0);
        assert_eq!(gsp(&first, None, 1.0), 7.0);
    }

    #[test]
    fn the_pivot_is_what_the_others_lose() {
        let price = clarke_pivot(&ad(1_000_000, 0.5), 1.0, 1_000_000, &[2.0, 2.25, 1.0], 0);
        assert_eq!(price, 500_000.0);
        assert_eq!(clarke_pivot(&ad(1, 0.0), 1.0, 1_000_000, &[2.0, 2.25], 0), 7.0);
    }
}
