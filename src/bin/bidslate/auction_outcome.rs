//! What is answered to one stand-alone auction.

use std::num::NonZeroU64;

use bidslate::auction::batch::{AuctionBatch, AuctionRule};
use bidslate::auction::landscape::{Point, landscapes};
use bidslate::auction::regret::{GammaGrid, Regret, sweep};
use bidslate::auction::standalone::{NO_WINNER, Outcomes};
use bidslate::money::Micros;
use serde::Serialize;
use serde_json::Value;

/// An outcome; a refused auction is its answer's JSON.
pub type Answer = Result<Outcome, Value>;

/// The outcome of one auction.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub id: Value,
    /// Its rule.
    #[serde(skip)]
    pub rule: AuctionRule,
    /// Index of each slot's winner among the bidders; none where the slot is not sold.
    pub winners: Vec<Option<u32>>,
    /// What a click costs each winner; 0 where the slot is not sold.
    pub payments_micros: Vec<Micros>,
    /// What the winners regret, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regret: Option<WinnersRegret>,
    /// Where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landscape: Option<Landscape>,
}

/// What the winners regret, by slot, in micros an impression; none where the slot is not sold.
#[derive(Debug, Serialize)]
pub struct WinnersRegret {
    /// What each has by the truth.
    pub utility: Vec<Option<f64>>,
    /// What the best of the gammas gains.
    pub grid: Vec<Option<f64>>,
    /// What the best of all bids gains.
    pub exact: Vec<Option<f64>>,
}

/// What every bidder would get by gamma times its bid, [bidders][gammas], expected per impression.
#[derive(Debug, Serialize)]
pub struct Landscape {
    gammas: Vec<f64>,
    clicks: Vec<Vec<f64>>,
    cost_micros: Vec<Vec<f64>>,
    utility_micros: Vec<Vec<f64>>,
}

/// What to find out about other bids than those of a batch.
pub struct Misreports<'a> {
    /// What the winners regret.
    pub regret: bool,
    /// What every bidder would get by each gamma.
    pub landscape: bool,
    /// The gammas.
    pub grid: &'a GammaGrid,
    /// The billable unit.
    pub unit: NonZeroU64,
}

/// What was found out.
pub struct Known<'a> {
    gammas: &'a [f64],
    /// `[bidders]`
    regrets: Option<Vec<Regret>>,
    /// [bidders, gammas]
    points: Option<Vec<Point>>,
}

impl<'a> Misreports<'a> {
    /// Lets the bidders of a batch misreport.
    pub fn of(&self, batch: &AuctionBatch) -> Known<'a> {
        let sweep = (self.regret || self.landscape).then(|| sweep(batch, self.grid, self.unit));
        let sweep = sweep.as_ref();
        Known {
            gammas: self.grid.gammas(),
            regrets: sweep.filter(|_| self.regret).map(|sweep| sweep.regrets(batch)),
            points: sweep.filter(|_| self.landscape).map(|sweep| landscapes(batch, sweep)),
        }
    }
}

impl Known<'_> {
    /// The outcome of one auction of the batch.
    pub fn outcome(
        &self,
        id: Value,
        rule: AuctionRule,
        batch: &AuctionBatch,
        outcomes: &Outcomes,
        auction: usize,
    ) -> Outcome {
        let (slots, bidders) = (batch.slots(auction), batch.bidders(auction));
        let winners: Vec<Option<u32>> = outcomes.winners[slots.clone()]
            .iter()
            .map(|&winner| (winner != NO_WINNER).then_some(winner))
            .collect();
        let regret = self.regrets.as_ref().map(|regrets| {
            let of = |part: fn(&Regret) -> f64| {
                let of_winner = |winner: u32| part(&regrets[bidders.start + winner as usize]);
                winners.iter().map(|winner| winner.map(of_winner)).collect()
            };
            WinnersRegret { utility: of(|r| r.utility), grid: of(|r| r.grid), exact: of(|r| r.exact) }
        });
        let landscape = self.points.as_ref().map(|points| {
            let gammas = self.gammas;
            let of = |part: fn(&Point) -> f64| {
                let of_bidder = |b: usize| &points[b * gammas.len()..(b + 1) * gammas.len()];
                bidders.clone().map(|b| of_bidder(b).iter().map(part).collect()).collect()
            };
            Landscape {
                gammas: gammas.to_vec(),
                clicks: of(|p| p.clicks),
                cost_micros: of(|p| p.cost),
                utility_micros: of(|p| p.utility),
            }
        });
        let payments_micros = outcomes.payments[slots].to_vec();
        Outcome { id, rule, winners, payments_micros, regret, landscape }
    }
}
