//! Money: integer micros.

use serde::{Deserialize, Serialize};

/// An amount of money in micros (millionths of a currency unit).
///
/// It has no operators: amounts do not mix with floats or with counts by accident, and every sum says what becomes of an
/// overflow. A price becomes an amount in one place, [`settle`](crate::auction::settle::settle), and nothing else rounds.
///
/// ```compile_fail
/// # use bidslate::money::Micros;
/// let doubled = Micros(3) * 2.0;
/// ```
///
/// ```compile_fail
/// # use bidslate::money::Micros;
/// let amount: Micros = (3.5).into();
/// ```
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

    /// The sum; none where it is beyond 64 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference; none where it is negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// So many times the amount, as for the clicks of a day; none where it is beyond 64 bits.
    pub fn checked_times(self, count: u64) -> Option<Self> {
        self.0.checked_mul(count).map(Self)
    }

    /// What is left of a budget after `spent`: nothing where more was spent than there was.
    pub fn less(self, spent: Self) -> Self {
        Self(self.0.saturating_sub(spent.0))
    }

    /// The sum; none where it is beyond 64 bits.
    pub fn sum(amounts: impl IntoIterator<Item = Self>) -> Option<Self> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }
}

impl std::fmt::Display for Micros {
    /// In currency units with six decimals: `1.500000`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A currency by its ISO 4217 code, three capital letters: `USD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// A text that is no currency code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no ISO 4217 code, expected three capital letters")]
pub struct CurrencyError(String);

impl TryFrom<String> for Currency {
    type Error = CurrencyError;

    fn try_from(code: String) -> Result<Self, CurrencyError> {
        match <[u8; 3]>::try_from(code.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(CurrencyError(code)),
        }
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.to_string()
    }
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|&letter| write!(f, "{}", char::from(letter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_says_what_does_not_fit() {
        let most = Micros(u64::MAX);
        assert_eq!(Micros(3).checked_add(Micros(4)), Some(Micros(7)));
        assert_eq!(most.checked_add(Micros(1)), None);
        assert_eq!(Micros(3).checked_sub(Micros(4)), None);
        assert_eq!((Micros(3).less(Micros(4)), Micros(4).less(Micros(3))), (Micros(0), Micros(1)));
        assert_eq!((Micros(3).checked_times(4), most.checked_times(2)), (Some(Micros(12)), None));
        assert_eq!(Micros::sum([Micros(1), Micros(2)]), Some(Micros(3)));
        assert_eq!(Micros::sum([most, Micros(1)]), None);
    }

    #[test]
    fn amounts_are_shown_in_currency_units() {
        assert_eq!(Micros(1_500_000).to_string(), "1.500000");
        assert_eq!(Micros(7).to_string(), "0.000007");
    }

    #[test]
    fn currencies_are_three_capital_letters() {
        let read = |code: &str| serde_json::from_str::<Currency>(&format!("{code:?}"));
        assert_eq!(serde_json::to_string(&read("USD").unwrap()).unwrap(), "\"USD\"");
        for bad in ["", "usd", "US", "EURO", "U$D", "\u{dc}1"] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("ISO 4217"), "{bad}: {error}");
        }
    }
}
