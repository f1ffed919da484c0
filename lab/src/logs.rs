//! Training logs: lists of a logging policy, and the feedback that the world gives to them.

use std::path::Path;

use serde::Serialize;

use crate::data::{Ask, Catalog, Id, Visits};
use crate::draw::{self, Stream};
use crate::files::Lines;
use crate::lists::{Feasible, random_places};
use crate::world::{Clicks, Parameters, Shown, Viewer, World};

/// One list and what happened: a line of `feedback.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Feedback<'a> {
    /// Name of the request.
    pub request: &'a Id,
    /// Slot by slot.
    pub slots: Vec<SlotFeedback>,
}

/// What was shown in a slot, and what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SlotFeedback {
    /// Id of the item.
    pub item: u64,
    /// Id of the creative.
    pub creative: u64,
    /// Whether the POI was clicked on.
    pub click_poi: u8,
    /// Whether the creative was clicked on.
    pub click_creative: u8,
    /// Whether a click on the POI was followed by a conversion.
    pub conversion: u8,
}

/// The logging policy. It knows bids and the visits that may be learned from, and nothing of the truth.
#[derive(Debug)]
pub struct Logger<'a> {
    catalog: &'a Catalog,
    parameters: &'a Parameters,
    /// Known visits of each item.
    visits: Vec<u32>,
}

impl<'a> Logger<'a> {
    /// The policy of these parameters, for the known ones of `visits`.
    pub fn new(catalog: &'a Catalog, visits: &Visits, parameters: &'a Parameters) -> Self {
        let mut counts = vec![0; catalog.items.len()];
        let known = (0..visits.of.len()).flat_map(|user| visits.known(user));
        known.for_each(|visit| counts[visit.item] += 1);
        Self { catalog, parameters, visits: counts }
    }

    /// A list: as many ads as a uniform draw says, chosen by one of three rules, in random order and slots, with
    /// random creatives; organic items in their order in all other slots.
    pub fn list(&self, ask: &Ask, draws: &mut Stream) -> Vec<Shown> {
        let feasible = Feasible::new(self.catalog, ask);
        let count = draws.below(feasible.most_ads() + 1);
        let score = self.rule(draws);
        let mut scored: Vec<(f64, usize)> =
            feasible.ads.iter().map(|&ad| (score(ad) + draws.gumbel(), ad)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut ads: Vec<usize> = scored[..count].iter().map(|&(_, ad)| ad).collect();
        draws.shuffle(&mut ads);
        random_places(self.catalog, &feasible, &ads, draws)
    }

    /// By what the ads of a list are drawn: the log of what their odds are in proportion to.
    fn rule(&self, draws: &mut Stream) -> Box<dyn Fn(usize) -> f64 + '_> {
        let Parameters { logged_uniform, logged_popular, logged_bid_power, .. } = self.parameters;
        let share = draws.uniform();
        if share < *logged_uniform {
            Box::new(|_| 0.0)
        } else if share < logged_uniform + logged_popular {
            Box::new(|ad| libm::log1p(f64::from(self.visits[ad])))
        } else {
            Box::new(move |ad| logged_bid_power * libm::log(self.catalog.bid(ad)))
        }
    }
}

/// Feedback to a list: a slot is looked at or not, and if it is, each click is drawn by itself.
pub fn sample(clicks: &[Clicks], draws: &mut Stream) -> Vec<[u8; 3]> {
    let slot = |clicks: &Clicks| {
        let seen = draws.bernoulli(clicks.examination);
        let poi = seen * draws.bernoulli(clicks.poi);
        [poi, seen * draws.bernoulli(clicks.creative), poi * draws.bernoulli(clicks.conversion)]
    };
    clicks.iter().map(slot).collect()
}

/// Writes `lists` logged lists of each request to `out`.
///
/// # Errors
/// Names the file.
pub fn write(world: &World, asks: &[Ask], lists: usize, seed: u64, out: &Path) -> anyhow::Result<()> {
    let catalog = &world.data.catalog;
    let logger = Logger::new(catalog, &world.data.visits, &world.parameters);
    let mut file = Lines::create(out)?;
    for ask in asks {
        let viewer = Viewer::new(world, ask);
        for number in 0..lists {
            let key = format!("{} {number}", ask.id);
            let list = logger.list(ask, &mut draw::stream(seed, "logged list", &key));
            let feedback = sample(&viewer.clicks(&list), &mut draw::stream(seed, "feedback", &key));
            let slots = list.iter().zip(feedback).map(|(shown, [click_poi, click_creative, conversion])| {
                SlotFeedback {
                    item: catalog.items[shown.item].id,
                    creative: catalog.creative_ids[shown.creative],
                    click_poi,
                    click_creative,
                    conversion,
                }
            });
            file.push(&Feedback { request: &ask.id, slots: slots.collect() })?;
        }
    }
    file.finish()
}
