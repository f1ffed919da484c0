//! The general level of clicks: what random lists must have.

use anyhow::ensure;

use super::clicks::sigmoid;
use super::{Fitted, Viewer, World};
use crate::data::Ask;
use crate::draw;
use crate::lists::random_list;

/// Levels are looked for between minus and plus this.
const WIDEST: f64 = 20.0;
/// Halvings of that range: enough for every bit of an f64.
const HALVINGS: usize = 64;

/// The levels with which one random list for each request has the click rates of the parameters.
///
/// `world` must have levels of 0.
pub fn biases(world: &World, asks: &[Ask]) -> anyhow::Result<Fitted> {
    let (mut poi, mut creative) = (Vec::new(), Vec::new());
    for ask in asks {
        let mut draws = draw::stream(world.parameters.seed, "calibration", &ask.id.to_string());
        let list = random_list(&world.data.catalog, ask, &mut draws);
        for clicks in Viewer::new(world, ask).clicks(&list) {
            poi.push((clicks.examination, logit(clicks.poi)));
            creative.push((clicks.examination, logit(clicks.creative)));
        }
    }
    ensure!(
        !poi.is_empty(),
        "random lists of {} requests show nothing, expected something to show",
        asks.len()
    );
    let parameters = &world.parameters;
    Ok(Fitted {
        bias_poi: level(&poi, parameters.random_ctr_poi),
        bias_creative: level(&creative, parameters.random_ctr_creative),
    })
}

/// The number that, added to the logit of each (examination, logit), makes the mean click rate `wanted`.
fn level(slots: &[(f64, f64)], wanted: f64) -> f64 {
    let rate = |level: f64| {
        let sum: f64 = slots.iter().map(|(examination, logit)| examination * sigmoid(level + logit)).sum();
        sum / slots.len() as f64
    };
    let (mut low, mut high) = (-WIDEST, WIDEST);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if rate(middle) < wanted { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

fn logit(probability: f64) -> f64 {
    libm::log(probability / (1.0 - probability))
}
