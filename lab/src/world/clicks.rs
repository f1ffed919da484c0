//! How likely clicks are: P = examine(slot) x sigmoid(level + interest + creative effect + externalities).

use super::World;
use crate::data::Ask;

/// An item in a slot, and the creative that shows it; indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Item.
    pub item: usize,
    /// One of its creatives.
    pub creative: usize,
}

/// What happens in a slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clicks {
    /// Probability that the slot is looked at.
    pub examination: f64,
    /// Probability of a click on the POI of a slot that is looked at.
    pub poi: f64,
    /// Probability of a click on the creative of a slot that is looked at.
    pub creative: f64,
    /// Probability of a conversion after a click on the POI.
    pub conversion: f64,
}

impl Clicks {
    /// Probability of a click on the POI.
    pub fn on_poi(&self) -> f64 {
        self.examination * self.poi
    }

    /// Probability of a click on the creative.
    pub fn on_creative(&self) -> f64 {
        self.examination * self.creative
    }

    /// Probability of a conversion.
    pub fn conversions(&self) -> f64 {
        self.on_poi() * self.conversion
    }
}

/// A user at a moment: what they will like, their real next visits included.
#[derive(Debug)]
pub struct Viewer<'a> {
    world: &'a World<'a>,
    user: usize,
    hour: usize,
    /// Items of the next visits, nearest first.
    next: Vec<usize>,
}

impl<'a> Viewer<'a> {
    /// The user of a request at its moment.
    pub fn new(world: &'a World<'a>, ask: &Ask) -> Self {
        let visits = &world.data.visits.of[ask.user];
        let coming = visits[ask.visit.min(visits.len())..].iter().take(world.parameters.next_visits);
        Self { world, user: ask.user, hour: ask.hour, next: coming.map(|visit| visit.item).collect() }
    }

    /// Interest in an item by itself, in logits.
    pub fn interest(&self, item: usize) -> f64 {
        let (truth, parameters, catalog) =
            (&self.world.truth, &self.world.parameters, &self.world.data.catalog);
        let lasting = f64::from(truth.interest[self.user * catalog.items.len() + item]);
        let coming = self.next.iter().position(|&next| next == item);
        let coming = coming.map_or(0.0, |rank| libm::pow(parameters.next_decay, rank as f64));
        let hour = f64::from(truth.hour[self.hour * catalog.categories.len() + catalog.items[item].category]);
        parameters.interest * lasting
            + parameters.next * coming
            + parameters.hour * hour
            + parameters.quality * f64::from(truth.quality[item])
    }

    /// Effect of a creative on the user, in standard deviations.
    pub fn creative_effect(&self, creative: usize) -> f64 {
        let count = self.world.data.catalog.creative_ids.len();
        f64::from(self.world.truth.creative_effect[self.user * count + creative])
    }

    /// What happens in each slot of a list.
    pub fn clicks(&self, list: &[Shown]) -> Vec<Clicks> {
        let interest: Vec<f64> = list.iter().map(|shown| self.interest(shown.item)).collect();
        (0..list.len()).map(|slot| self.clicks_in(slot, list, &interest)).collect()
    }

    /// What happens in one slot of a list; `interest` is [`Viewer::interest`] of each of its items.
    pub fn clicks_in(&self, slot: usize, list: &[Shown], interest: &[f64]) -> Clicks {
        let (parameters, fitted) = (&self.world.parameters, self.world.fitted);
        let effect = self.creative_effect(list[slot].creative);
        let (own, around) = (interest[slot], self.externalities(slot, list, interest));
        let poi = fitted.bias_poi + own + parameters.creative_on_poi * effect + around;
        let creative = fitted.bias_creative
            + parameters.interest_on_creative * own
            + parameters.creative_on_creative * effect
            + around;
        Clicks {
            examination: libm::pow((slot + 1) as f64, -parameters.examination),
            poi: sigmoid(poi),
            creative: sigmoid(creative),
            conversion: sigmoid(parameters.conversion + parameters.interest_on_conversion * own),
        }
    }

    /// What the rest of the list does to a slot, in logits.
    fn externalities(&self, slot: usize, list: &[Shown], interest: &[f64]) -> f64 {
        let (parameters, items) = (&self.world.parameters, &self.world.data.catalog.items);
        let item = |slot: usize| &items[list[slot].item];
        let mut sum = if item(slot).ad.is_some() { parameters.ad } else { 0.0 };
        let neighbours = [slot.checked_sub(1), Some(slot + 1).filter(|&next| next < list.len())];
        for other in neighbours.into_iter().flatten() {
            if item(other).category == item(slot).category {
                sum += parameters.same_category;
            }
            let outshone = interest[other] - interest[slot] - parameters.contrast_margin;
            sum += parameters.contrast * outshone.clamp(0.0, parameters.contrast_cap);
            if item(other).ad.is_none() {
                sum += parameters.organic_lift * interest[other].clamp(0.0, parameters.organic_lift_cap);
            }
        }
        let reach = slot.saturating_sub(parameters.crowding_reach)
            ..list.len().min(slot + parameters.crowding_reach + 1);
        let ads = reach.filter(|&other| other != slot && item(other).ad.is_some()).count();
        sum + parameters.crowding * ads as f64
    }
}

/// 1 / (1 + exp(-x)), kept inside (0, 1).
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x.clamp(-30.0, 30.0)))
}
