//! What `bidslate import` wrote: the catalog, every visit, and the requests that end at some of them.

mod catalog;
mod requests;
mod visits;

pub use catalog::{Ad, Catalog, Item};
pub use requests::{Ask, HeldOut, Id, Policy, asks, held_out};
pub use visits::{HELD_BACK, Visit, Visits};

use std::path::Path;

/// An import, read whole.
#[derive(Debug)]
pub struct Data {
    /// Items and creatives.
    pub catalog: Catalog,
    /// Every visit of every user.
    pub visits: Visits,
}

impl Data {
    /// Reads `items.jsonl`, `labels.jsonl` and `visits.jsonl` of a directory.
    ///
    /// # Errors
    /// Names file, line, field, value and what was expected.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let catalog = Catalog::read(dir)?;
        let visits = Visits::read(&dir.join("visits.jsonl"), &catalog)?;
        Ok(Self { catalog, visits })
    }
}
