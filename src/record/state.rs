//! What a request saw of the live columns of the catalog: bids, reserves, activity, budgets and pacing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalog::{ItemKind, Snapshot, Update};
use crate::digest::Digest;
use crate::money::Micros;
use crate::request::{Candidates, Request};
use crate::response::Response;

/// Most changes of the catalog that a record of a request for all ads lists.
pub const MOST_CHANGES: usize = 10_000;

/// The live state that a request saw.
///
/// Of a request that names its candidates, that of all of them. Of a request for all ads, that of the ads that changed
/// since the catalog was opened and of those that were shown or would have been, and the digest of all; where more than
/// [`MOST_CHANGES`] changed, or items were inserted, the changes are left out and only the digest tells whether a catalog
/// is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogState {
    /// Version of the snapshot.
    pub version: u64,
    /// Ads.
    pub ads: Vec<AdState>,
    /// Items among those ads, and among the organic items of the request, that are switched off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inactive: Vec<u64>,
    /// Advertisers of those ads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertisers: Vec<AdvertiserState>,
    /// Digest of what every ad of the catalog bids; where the candidates were all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bids: Option<Digest>,
}

/// An ad: in JSON `[item, bid, reserve]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, Micros, Micros)", into = "(u64, Micros, Micros)")]
pub struct AdState {
    /// Id of the item.
    pub item: u64,
    /// Bid as declared, before pacing.
    pub bid: Micros,
    /// Reserve price.
    pub reserve: Micros,
}

/// An advertiser: in JSON `[advertiser, pacing, budget or null]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "(u64, f64, Option<Micros>)", into = "(u64, f64, Option<Micros>)")]
pub struct AdvertiserState {
    /// Id of the advertiser.
    pub advertiser: u64,
    /// Factor on its bids.
    pub pacing: f32,
    /// What it has left to spend; none where it declared no budget.
    pub budget: Option<Micros>,
}

impl From<(u64, Micros, Micros)> for AdState {
    fn from((item, bid, reserve): (u64, Micros, Micros)) -> Self {
        Self { item, bid, reserve }
    }
}

impl From<AdState> for (u64, Micros, Micros) {
    fn from(state: AdState) -> Self {
        (state.item, state.bid, state.reserve)
    }
}

// Through f64, which holds an f32 and its shortest text exactly.
impl From<(u64, f64, Option<Micros>)> for AdvertiserState {
    fn from((advertiser, pacing, budget): (u64, f64, Option<Micros>)) -> Self {
        Self { advertiser, pacing: pacing as f32, budget }
    }
}

impl From<AdvertiserState> for (u64, f64, Option<Micros>) {
    fn from(state: AdvertiserState) -> Self {
        (state.advertiser, f64::from(state.pacing), state.budget)
    }
}

impl CatalogState {
    /// What a request saw of `snapshot`. `opened` is the catalog as its file says, where that is known; `bids` the
    /// digest of all bids, where the candidates were all ads.
    pub(super) fn of(
        request: &Request,
        response: &Response,
        snapshot: &Snapshot,
        opened: Option<&Snapshot>,
        bids: Option<Digest>,
    ) -> Self {
        let mut items: BTreeSet<u64> = request.organic.iter().copied().collect();
        let mut advertisers = BTreeMap::new();
        match &request.candidates {
            Candidates::Items(ids) => items.extend(ids),
            Candidates::All => {
                items.extend(response.slots.iter().map(|slot| slot.item));
                let grounds = response.grounds.iter().flatten().flatten();
                items.extend(grounds.filter_map(|grounds| grounds.runner_up?.item));
                let changes = opened.and_then(|opened| snapshot.changes_since(opened)).unwrap_or_default();
                if changes.len() <= MOST_CHANGES {
                    changes.iter().for_each(|change| note(change, &mut items, &mut advertisers));
                }
            }
        }
        let rows: Vec<u32> = items.iter().filter_map(|&id| snapshot.find(id)).collect();
        let of_rows = rows.iter().filter_map(|&row| {
            let (pacing, budget) = (snapshot.pacing(row), snapshot.budget(row));
            snapshot.advertiser(row).map(|advertiser| (advertiser, (pacing, budget)))
        });
        advertisers.extend(of_rows);
        let ad = |&&row: &&u32| snapshot.kind(row) == ItemKind::Ad;
        let state = |&row: &u32| AdState {
            item: snapshot.id(row),
            bid: snapshot.declared_bid(row),
            reserve: snapshot.reserve(row),
        };
        Self {
            version: snapshot.version(),
            ads: rows.iter().filter(ad).map(state).collect(),
            inactive: rows
                .iter()
                .filter(|&&row| !snapshot.is_active(row))
                .map(|&row| snapshot.id(row))
                .collect(),
            advertisers: advertisers
                .into_iter()
                .map(|(advertiser, (pacing, budget))| AdvertiserState { advertiser, pacing, budget })
                .collect(),
            bids,
        }
    }

    /// The updates that bring a catalog to this state, as far as `request` sees it.
    pub(super) fn updates(&self, request: &Request) -> Vec<Update> {
        let mut updates = Vec::with_capacity(3 * self.ads.len());
        for &AdState { item, bid, reserve } in &self.ads {
            updates.push(Update::Bid { item, bid });
            updates.push(Update::Reserve { item, reserve });
        }
        let inactive: BTreeSet<u64> = self.inactive.iter().copied().collect();
        let items: BTreeSet<u64> =
            self.ads.iter().map(|ad| ad.item).chain(request.organic.iter().copied()).collect();
        let items = items.union(&inactive);
        updates.extend(items.map(|&item| Update::Active { item, active: !inactive.contains(&item) }));
        for &AdvertiserState { advertiser, pacing, budget } in &self.advertisers {
            updates.push(Update::Pacing { advertiser, pacing });
            updates.extend(budget.map(|remaining| Update::Budget { advertiser, remaining }));
        }
        updates
    }
}

/// Notes what an update names: an item, or an advertiser with its account.
fn note(change: &Update, items: &mut BTreeSet<u64>, advertisers: &mut BTreeMap<u64, (f32, Option<Micros>)>) {
    match *change {
        Update::Bid { item, .. } | Update::Reserve { item, .. } | Update::Active { item, .. } => {
            items.insert(item);
        }
        Update::Pacing { advertiser, pacing } => {
            advertisers.entry(advertiser).or_insert((1.0, None)).0 = pacing;
        }
        Update::Budget { advertiser, remaining } => {
            advertisers.entry(advertiser).or_insert((1.0, None)).1 = Some(remaining);
        }
        Update::Insert(_) | Update::InsertCreative { .. } | Update::InsertAdvertiser(_) => {}
    }
}
