//! The regret audit, as it is written: for every ad and every gamma the model again with that one bid changed.

use super::allocate::{Decoded, Scored, best, decode, network_rates, payment, prices, reward};
use super::files::Model;
use super::network::Network;
use super::request::{Audit, Payment, Request};
use super::search::Search;

/// The factors 0.2, 0.4, .. 2.0.
pub fn gammas() -> Vec<f64> {
    (1..=10).map(|step| f64::from(step) / 5.0).collect()
}

/// An ad of the list that is shown.
#[derive(Debug, Clone)]
pub struct AuditedAd {
    pub slot: usize,
    pub item: u64,
    pub value_micros: u64,
    pub utility: f64,
    pub points: Vec<Point>,
}

/// What the ad gets at one gamma.
#[derive(Debug, Clone)]
pub struct Point {
    pub bid_micros: u64,
    /// None where it is not shown.
    pub shown: Option<Shown>,
    /// Below a margin of other arithmetic the point may be another one.
    pub margin: f64,
}

#[derive(Debug, Clone)]
pub struct Shown {
    pub slot: usize,
    pub payment_micros: u64,
    pub clicks: f64,
    pub z: f64,
    /// Size of what the price is a difference of, in micros.
    pub price_scale: f64,
}

impl Shown {
    pub fn utility(&self, value_micros: u64) -> f64 {
        (value_micros as f64 - self.payment_micros as f64) * self.clicks
    }
}

/// Audits the list `winner` of `decoded`.
pub fn audit(
    model: &Model,
    request: &Request,
    network: &mut Network,
    decoded: &Decoded,
    winner: usize,
) -> Vec<AuditedAd> {
    let rows = decoded.lists[winner].beam.rows.clone();
    let ads = (0..rows.len()).filter(|&slot| request.audit != Audit::None && model.items[rows[slot]].is_ad);
    ads.map(|slot| {
        let item = &model.items[rows[slot]];
        let mut sweep = |bid_micros: u64| {
            let mut point = Point { bid_micros, shown: None, margin: f64::INFINITY };
            if bid_micros >= item.reserve {
                let mut changed = model.clone();
                changed.items[rows[slot]].bid = bid_micros;
                (point.shown, point.margin) =
                    deviate(&changed, request, network, decoded, winner, rows[slot]);
            }
            point
        };
        let truth = sweep(item.bid).shown.expect("the ad is shown for its own bid");
        let bids =
            gammas().into_iter().map(|gamma| (gamma * item.bid as f64).floor().min(2f64.powi(43)) as u64);
        let points = bids.map(sweep).collect();
        let value_micros = item.bid;
        AuditedAd { slot, item: item.id, value_micros, utility: truth.utility(value_micros), points }
    })
    .collect()
}

/// What the ad in row `row` gets in `model`, which has another bid of it than the one that `decoded` was made for.
fn deviate(
    model: &Model,
    request: &Request,
    network: &mut Network,
    decoded: &Decoded,
    winner: usize,
    row: usize,
) -> (Option<Shown>, f64) {
    let (mut lists, mut margin) = match request.audit {
        Audit::Redecode => {
            let again = decode(model, request, network, None);
            (again.lists, again.search_margin.min(again.creative_margin))
        }
        _ => {
            let again = |list: &Scored| Scored { reward: reward(model, request, list), ..list.clone() };
            (decoded.lists.iter().map(again).collect(), f64::INFINITY)
        }
    };
    let mut chosen = winner;
    if request.audit != Audit::Fixed {
        let all: Vec<usize> = (0..lists.len()).collect();
        let (best, gap) = best(&lists, &all);
        (chosen, margin) = (best, margin.min(gap));
    }
    let Some(slot) = lists[chosen].beam.rows.iter().position(|&shown| shown == row) else {
        return (None, margin);
    };
    let search = Search { model, request, without: None };
    let rows = lists[chosen].beam.rows.clone();
    lists[chosen].beam.ln_zs[slot] = search.item_ln_z(network, &rows, slot);
    let rates = network_rates(model, network, &lists[chosen]);
    let price = &prices(model, request, &lists, chosen, &rates)[slot];
    let shown = Shown {
        slot,
        payment_micros: payment(model, row, price),
        clicks: lists[chosen].pctr_poi[slot],
        z: lists[chosen].beam.ln_zs[slot].exp(),
        price_scale: if request.payment == Payment::Vcg { price.scale } else { 0.0 },
    };
    (Some(shown), margin)
}
