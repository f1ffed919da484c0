//! The one place where a price becomes money.

use crate::money::Micros;

/// Lifts a price by 2^-44 of itself, so that an exact price never loses a micro to the rounding of f64. A price
/// of at most 2^43 micros moves by half a micro at most.
const LIFT: f64 = 1.0 + 1.0 / (1u64 << 44) as f64;

/// The payment for a price of `price` micros (not NaN): floored to a micro, down to a multiple of `unit`
/// micros, raised to the reserve, and never above the bid (individual rationality holds in integers).
#[inline(always)]
pub fn settle(price: f64, bid: Micros, reserve: Micros, unit: u64) -> Micros {
    // The cast saturates: a negative price is 0, one beyond u64 is cut by the bid.
    let micros = (price * LIFT).floor() as u64;
    // Divisions of integers are slow, and most units are one micro.
    let whole = if unit == 1 { micros } else { micros - micros % unit };
    Micros(whole).max(reserve).min(bid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounds_down_to_the_unit_then_clamps() {
        let pay = |price, unit| settle(price, Micros(1_000), Micros(100), unit).0;
        assert_eq!(pay(512.999, 1), 512);
        assert_eq!(pay(512.999, 50), 500);
        assert_eq!(pay(30.0, 1), 100);
        assert_eq!(pay(-4.0, 1), 100);
        assert_eq!(pay(1e300, 7), 1_000);
        assert_eq!(pay(f64::INFINITY, 1), 1_000);
    }

    proptest! {
        #[test]
        fn an_exact_price_keeps_every_micro(
            price in 0u64..=Micros::MAX.0, num in 1u64..1_000_000, den in 1u64..1_000_000
        ) {
            // A price that is exact in the rationals but went through a rounded quotient and product.
            let through = price as f64 * (num as f64 / den as f64) * (den as f64 / num as f64);
            let paid = settle(through, Micros::MAX, Micros::ZERO, 1).0;
            prop_assert_eq!(paid, price);
            prop_assert_eq!(settle(price as f64, Micros::MAX, Micros::ZERO, 1).0, price);
        }

        #[test]
        fn pays_between_reserve_and_bid(
            price in -1e13f64..1e14, bid in 0u64..=Micros::MAX.0, share in 0.0f64..=1.0, unit in 1u64..10_000_000
        ) {
            let reserve = (bid as f64 * share) as u64;
            let paid = settle(price, Micros(bid), Micros(reserve.min(bid)), unit);
            prop_assert!(paid.0 <= bid && paid.0 >= reserve.min(bid));
        }
    }
}
