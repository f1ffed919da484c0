//! Every number of the world that is chosen rather than fitted.

use serde::{Deserialize, Serialize};

/// The parameters, as `world.json` holds them. Effects are in logits unless said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Seed of the factors' start, of item quality and of the lists that set the level of clicks.
    pub seed: u64,

    /// Width of the factors of users and items.
    pub factors: usize,
    /// Rounds of alternating least squares.
    pub rounds: usize,
    /// Ridge penalty of the factors.
    pub ridge: f64,
    /// What users seem to like is ln(1 + visits to the item) + this x ln(1 + visits to its category) ..
    pub like_category: f64,
    /// .. + this x ln(1 + visits to its category's root).
    pub like_root: f64,
    /// Popularity in lasting interest, in its standard deviations, beside one standard deviation of the factors' part.
    pub popularity: f64,

    /// One standard deviation of lasting interest.
    pub interest: f64,
    /// How many of the user's real next visits count.
    pub next_visits: usize,
    /// The real next visit.
    pub next: f64,
    /// Factor from each next visit to the one after it.
    pub next_decay: f64,
    /// One standard deviation of the affinity between hour and category.
    pub hour: f64,
    /// Visits that the mean hour counts as, beside a category's own visits.
    pub hour_visits: f64,
    /// One standard deviation of an item's quality.
    pub quality: f64,

    /// One standard deviation of a creative's effect on clicks on the POI.
    pub creative_on_poi: f64,
    /// The same on clicks on the creative.
    pub creative_on_creative: f64,
    /// Share of interest in clicks on the creative.
    pub interest_on_creative: f64,

    /// Each neighbour of the same category.
    pub same_category: f64,
    /// Each unit of interest by which a neighbour outshines, beyond the margin.
    pub contrast: f64,
    /// Margin of contrast, in units of interest.
    pub contrast_margin: f64,
    /// Most units of interest beyond the margin that count.
    pub contrast_cap: f64,
    /// Each unit of interest in an organic neighbour.
    pub organic_lift: f64,
    /// Most units of interest in an organic neighbour that count.
    pub organic_lift_cap: f64,
    /// Being an ad.
    pub ad: f64,
    /// Each other ad within reach.
    pub crowding: f64,
    /// Slots within which another ad is within reach.
    pub crowding_reach: usize,

    /// A slot s is looked at with probability (s + 1) to the power of minus this.
    pub examination: f64,
    /// Level of conversions after a click.
    pub conversion: f64,
    /// Share of interest in conversions.
    pub interest_on_conversion: f64,

    /// Share of logged lists whose ads are drawn uniformly.
    pub logged_uniform: f64,
    /// Share of logged lists whose ads are drawn in proportion to 1 + known visits; the others by bids.
    pub logged_popular: f64,
    /// The others' ads are drawn in proportion to the bid to this power.
    pub logged_bid_power: f64,

    /// Clicks on POIs over impressions that random lists have.
    pub random_ctr_poi: f64,
    /// Clicks on creatives over impressions that random lists have.
    pub random_ctr_creative: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            seed: 1,
            factors: 32,
            rounds: 12,
            ridge: 1.0,
            like_category: 0.5,
            like_root: 0.2,
            popularity: 0.5,
            interest: 0.8,
            next_visits: 10,
            next: 2.0,
            next_decay: 0.85,
            hour: 0.4,
            hour_visits: 20.0,
            quality: 0.3,
            creative_on_poi: 0.4,
            creative_on_creative: 0.8,
            interest_on_creative: 0.5,
            same_category: -0.4,
            contrast: -0.3,
            contrast_margin: 1.0,
            contrast_cap: 2.0,
            organic_lift: 0.1,
            organic_lift_cap: 2.0,
            ad: -0.2,
            crowding: -0.2,
            crowding_reach: 2,
            examination: 0.35,
            conversion: -2.0,
            interest_on_conversion: 0.5,
            logged_uniform: 0.4,
            logged_popular: 0.3,
            logged_bid_power: 2.0,
            random_ctr_poi: 0.055,
            random_ctr_creative: 0.052,
        }
    }
}
