//! What the auctions of a whole file add up to: how many there were, and Psi under each rule.

use bidslate::auction::batch::AuctionRule;
use bidslate::auction::psi::{AdRegret, Audits, Bootstrap, Psi};
use serde::Serialize;

use crate::auction_outcome::{Answer, WinnersRegret};

/// Counts, and the regrets of winners by rule.
#[derive(Debug, Default)]
pub struct Summary {
    auctions: u64,
    refused: u64,
    rules: Vec<OfRule>,
}

/// The regrets under one rule.
#[derive(Debug)]
struct OfRule {
    rule: AuctionRule,
    grid: Audits,
    exact: Audits,
}

/// A summary as it is written.
#[derive(Debug, Serialize)]
pub struct Totals {
    /// Auctions that were run.
    auctions: u64,
    /// Lines that were refused.
    refused: u64,
    /// By rule, in the order in which they first occurred.
    psi: Vec<PsiOfRule>,
}

#[derive(Debug, Serialize)]
struct PsiOfRule {
    rule: AuctionRule,
    /// Of the best of the gammas.
    grid: Psi,
    /// Of the best of all bids.
    exact: Psi,
}

impl Summary {
    /// Counts a line, and takes in what its winners regret.
    pub fn add(&mut self, answer: &Answer) {
        match answer {
            Err(_) => self.refused += 1,
            Ok(outcome) => {
                self.auctions += 1;
                if let Some(regret) = &outcome.regret {
                    self.add_regret(outcome.rule, regret);
                }
            }
        }
    }

    fn add_regret(&mut self, rule: AuctionRule, winners: &WinnersRegret) {
        let at = self.rules.iter().position(|of| of.rule == rule).unwrap_or_else(|| {
            self.rules.push(OfRule { rule, grid: Audits::default(), exact: Audits::default() });
            self.rules.len() - 1
        });
        let ads = |regrets: &[Option<f64>]| {
            let sold = winners.utility.iter().flatten().zip(regrets.iter().flatten());
            sold.map(|(&utility, &regret)| AdRegret { utility, regret }).collect::<Vec<_>>()
        };
        self.rules[at].grid.push(ads(&winners.grid));
        self.rules[at].exact.push(ads(&winners.exact));
    }

    /// The summary, with confidence intervals of so many samples.
    pub fn totals(&self, samples: usize) -> Totals {
        let bootstrap = Bootstrap { samples, ..Bootstrap::default() };
        let psi = |of: &OfRule| PsiOfRule {
            rule: of.rule,
            grid: of.grid.psi(bootstrap),
            exact: of.exact.psi(bootstrap),
        };
        Totals { auctions: self.auctions, refused: self.refused, psi: self.rules.iter().map(psi).collect() }
    }
}
