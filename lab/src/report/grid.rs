//! Tables as text, before anyone decides whether they become HTML or Markdown.

use super::bootstrap::Estimate;
use super::sums::Metric;

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    /// Its heading.
    pub title: String,
    /// What the reader must know.
    pub caption: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell: what it says, and in smaller print how sure that is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// How sure that is, or nothing.
    pub note: String,
}

impl Cell {
    /// A cell that says something and no more.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), note: String::new() }
    }

    /// An estimate of a metric.
    pub fn estimate(estimate: Option<Estimate>, metric: &Metric) -> Self {
        let Some(Estimate { value, low, high }) = estimate else { return Self::text("–") };
        let digits = metric.digits;
        Self {
            text: format!("{value:.digits$}{}", metric.unit),
            note: format!("[{low:.digits$}, {high:.digits$}]"),
        }
    }

    /// A difference with its sign.
    pub fn difference(estimate: Option<Estimate>, digits: usize, unit: &str) -> Self {
        let Some(Estimate { value, low, high }) = estimate else { return Self::text("–") };
        Self {
            text: format!("{}{unit}", signed(value, digits)),
            note: format!("[{}, {}]", signed(low, digits), signed(high, digits)),
        }
    }
}

/// With its sign, a real minus, and no minus before nothing.
pub fn signed(value: f64, digits: usize) -> String {
    let text = format!("{value:+.digits$}");
    let is_zero = text.bytes().all(|b| matches!(b, b'+' | b'-' | b'0' | b'.'));
    if is_zero { text.replace(['+', '-'], "") } else { text.replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_typeset() {
        assert_eq!(signed(-1.25, 1), "−1.2");
        assert_eq!(signed(1.26, 1), "+1.3");
        assert_eq!(signed(-0.01, 1), "0.0");
    }
}
