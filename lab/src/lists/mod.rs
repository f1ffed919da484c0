//! Lists that policies make: every one of them feasible, which means what the engine could show too.

mod feasible;
mod oracle;
mod random;

pub use feasible::{Feasible, assemble};
pub use oracle::oracle_list;
pub use random::{random_list, random_places};

use std::path::Path;

use clap::ValueEnum;

use crate::data::Ask;
use crate::draw;
use crate::files::Lines;
use crate::response::{Kind, Response, Slot};
use crate::world::{Shown, Viewer, World};

/// A policy that bounds what others can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bound {
    /// A random feasible list
    Random,
    /// The list of the highest expected revenue by the truth
    Oracle,
}

/// Writes a list for each request, in the format of responses; every ad pays its bid, and what is predicted is the
/// truth.
///
/// # Errors
/// Names the file, or the request that the policy cannot do.
pub fn write(world: &World, asks: &[Ask], bound: Bound, seed: u64, out: &Path) -> anyhow::Result<()> {
    let mut file = Lines::create(out)?;
    for ask in asks {
        let viewer = Viewer::new(world, ask);
        let catalog = &world.data.catalog;
        let list = match bound {
            Bound::Random => {
                random_list(catalog, ask, &mut draw::stream(seed, "random list", &ask.id.to_string()))
            }
            Bound::Oracle => oracle_list(catalog, ask, &viewer)?,
        };
        file.push(&respond(world, ask, &viewer, &list))?;
    }
    file.finish()
}

/// A list as an answer to its request: at first price, with the truth for predictions.
pub fn respond(world: &World, ask: &Ask, viewer: &Viewer, list: &[Shown]) -> Response {
    let catalog = &world.data.catalog;
    let slot = |(shown, clicks): (&Shown, crate::world::Clicks)| {
        let item = &catalog.items[shown.item];
        let bid_micros = item.ad.map_or(0, |ad| ad.bid_micros);
        Slot {
            item: item.id,
            kind: if item.ad.is_some() { Kind::Ad } else { Kind::Organic },
            creative: catalog.creative_ids[shown.creative],
            bid_micros,
            payment_micros: bid_micros,
            pctr_poi: clicks.on_poi(),
            pctr_creative: clicks.on_creative(),
            pcvr: clicks.conversions(),
        }
    };
    let slots = list.iter().zip(viewer.clicks(list)).map(slot).collect();
    Response { id: ask.id.clone(), slots, audit: None }
}
