//! What a device computes again for a request whose lists are there: the same for every device.

use super::task::{Context, Generated, Task};
use crate::auction::choice::SlotValue;
use crate::catalog::Snapshot;
use crate::decode::candidates::Ads;
use crate::decode::search::Chosen;
use crate::error::RequestError;
use crate::model::reward::Shown;
use crate::money::Micros;
use crate::resolve::Resolved;
use crate::response::Timings;

/// A request with one thing changed, by an item of its winning list.
#[derive(Debug, Clone, Copy)]
pub(super) enum Variant {
    /// No list may show the item.
    Without(Chosen),
    /// An ad has another bid.
    Misreport {
        /// Row of the ad in the snapshot.
        item: u32,
        /// Its position among the request's ads.
        position: usize,
        /// The bid, not below its reserve.
        bid: Micros,
    },
}

impl Variant {
    /// Whether it is this item that misreports.
    pub fn misreports(self, other: u32) -> bool {
        matches!(self, Self::Misreport { item, .. } if item == other)
    }

    /// The item that no list may show.
    pub fn excluded(self) -> Option<Chosen> {
        match self {
            Self::Without(chosen) => Some(chosen),
            Self::Misreport { .. } => None,
        }
    }

    /// `task` with [`Variant::snapshot`]; that an item may not be shown is not part of it.
    pub fn task<'s>(self, task: &Task<'s>, snapshot: &'s Snapshot) -> Task<'s> {
        let Task { context, request, resolved } = task;
        let resolved = Resolved {
            history: resolved.history.clone(),
            ads: self.ads(task, snapshot),
            organic: resolved.organic.clone(),
            rejected: Vec::new(),
            rules: resolved.rules.clone(),
        };
        Task { context: Context { snapshot, ..*context }, request, resolved }
    }

    /// The snapshot that the changed request sees.
    pub fn snapshot(self, snapshot: &Snapshot) -> Snapshot {
        match self {
            Self::Without(_) => snapshot.clone(),
            Self::Misreport { item, bid, .. } => snapshot.with_bid(item, bid),
        }
    }

    /// The ads of `task` in [`Variant::snapshot`].
    pub fn ads<'s>(self, task: &Task<'s>, snapshot: &'s Snapshot) -> Ads<'s> {
        match self {
            Self::Without(_) => task.resolved.ads.clone(),
            Self::Misreport { position, .. } => task.resolved.ads.with_bid(snapshot, position),
        }
    }

    /// The organic items that may be shown.
    pub fn organic(self, task: &Task) -> Vec<u32> {
        let organic = task.resolved.organic.iter().copied();
        match self {
            Self::Without(chosen) => organic.filter(|&item| item != chosen.item).collect(),
            Self::Misreport { .. } => organic.collect(),
        }
    }
}

/// One slot of a list, whose rate is asked for.
pub(super) struct RateQuery<'q> {
    /// Items and creatives of the list.
    pub shown: &'q [Shown],
    /// Bids and probabilities of the list.
    pub values: &'q [SlotValue],
    /// The slot.
    pub slot: usize,
    /// ln z of the item there.
    pub ln_z: f64,
}

/// What the payment network read of a slot, and its rate.
pub(super) struct Rated {
    /// In (0, 1).
    pub rate: f64,
    /// [d_r + K], see [`write_input`](crate::model::payment::write_input). A GPU leaves it empty unless it is reported.
    pub input: Vec<f32>,
}

/// What the decoder ran for counterfactuals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DecoderWork {
    /// Distinct code prefixes of all searches, the request's own included.
    pub unique_prefixes: usize,
    /// Rows that were run.
    pub rows: usize,
    /// Rows that the searches would have run one by one.
    pub rows_alone: usize,
}

/// The device, after it made the lists of a request and before it begins another.
pub(super) trait Counterfactuals {
    /// The lists of each variant of `task`, whose own lists are `truth`. Rates are those of the network where the
    /// request pays by it, else zeros.
    fn lists(
        &mut self,
        task: &Task,
        truth: &Generated,
        variants: &[Variant],
        timings: &mut Timings,
    ) -> Result<Vec<Generated>, RequestError>;

    /// What the decoder did in [`Counterfactuals::lists`] so far; none where searches do not share its rows.
    fn work(&self) -> Option<DecoderWork>;

    /// The payment network's rate of each query.
    fn rates(&mut self, task: &Task, queries: &[RateQuery]) -> Result<Vec<Rated>, RequestError>;
}
