//! Lists at random.

use super::feasible::{Feasible, assemble};
use crate::data::{Ask, Catalog};
use crate::draw::Stream;
use crate::world::Shown;

/// A random feasible list: a number of ads, their slots, the ads and every creative, each uniform; organic items in
/// their order in all other slots.
pub fn random_list(catalog: &Catalog, ask: &Ask, draws: &mut Stream) -> Vec<Shown> {
    let feasible = Feasible::new(catalog, ask);
    let count = draws.below(feasible.most_ads() + 1);
    let mut ads = feasible.ads.clone();
    draws.shuffle(&mut ads);
    random_places(catalog, &feasible, &ads[..count], draws)
}

/// A list of these ads, in this order, in random slots and with random creatives.
pub fn random_places(
    catalog: &Catalog,
    feasible: &Feasible,
    ads: &[usize],
    draws: &mut Stream,
) -> Vec<Shown> {
    let slots = feasible.random_ad_slots(ads.len(), draws);
    let items = assemble(feasible.slots(ads.len()), ads, &slots, &feasible.organic);
    items.into_iter().map(|item| Shown { item, creative: random_creative(catalog, item, draws) }).collect()
}

fn random_creative(catalog: &Catalog, item: usize, draws: &mut Stream) -> usize {
    let own = &catalog.items[item].creatives;
    own.start + draws.below(own.len())
}
