//! One consistent state of the catalog.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{CatalogError, UpdateError};
use crate::money::Micros;

use super::bids::{Aggregate, EffectiveBid};
use super::columns::{Columns, Shape};
use super::embeddings::Embeddings;
use super::store::Store;
use super::tree::{Tree, plain_entries};
use super::{AdIndex, ItemKind, Update, update};

/// Why an item may not be shown now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rejection {
    /// It is switched off.
    Inactive,
    /// It has no creative to be shown with.
    NoCreative,
    /// Its advertiser has nothing left to spend.
    BudgetSpent,
    /// Its effective bid is below its reserve price.
    BelowReserve,
    /// Its embedding holds a NaN or an infinity.
    NonFiniteEmbedding,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inactive => "inactive",
            Self::NoCreative => "no creative",
            Self::BudgetSpent => "budget spent",
            Self::BelowReserve => "bid below reserve",
            Self::NonFiniteEmbedding => "non-finite embedding",
        })
    }
}

/// What an advertiser may spend, and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Account {
    /// What is left; `None` where no budget was declared, which never gates.
    pub(super) budget: Option<Micros>,
    /// Factor in [0, 1] on every bid.
    pub(super) pacing: f32,
}

plain_entries!(Account => Account { budget: None, pacing: 1.0 });

/// One state of the catalog, which never changes.
///
/// Items are addressed by row, a dense `u32` below [`Snapshot::len`]; methods that take a row, a creative's
/// row or a position panic where it is not below its bound, as indexing does.
#[derive(Clone)]
pub struct Snapshot {
    version: u64,
    pub(super) store: Arc<Store>,
    bids: Tree<u64>,
    reserves: Tree<u64>,
    active: Tree<bool>,
    accounts: Tree<Account>,
    /// By position in the ad index.
    effective: Tree<EffectiveBid>,
    /// An ad whose effective bid is not what its declared bid and its advertiser's pacing come to.
    misreport: Option<(u32, Micros)>,
}

impl Snapshot {
    /// Version 1 of a catalog, of columns that [`Columns::check_as`] accepted.
    pub(super) fn first(
        shape: Shape,
        mut columns: Columns,
        embeddings: Embeddings,
        path: &Path,
    ) -> Result<Self, CatalogError> {
        let store = Store::new(shape, &mut columns, embeddings, path)?;
        let budgets = columns.advertiser_budget_micros;
        let pacing = columns.advertiser_pacing;
        let account = |row: usize| Account {
            budget: budgets.as_ref().map(|budgets| Micros(budgets[row])),
            pacing: pacing.as_ref().map_or(1.0, |pacing| pacing[row]),
        };
        let active = match columns.active {
            Some(active) => Tree::from_values(active),
            None => Tree::from_values(std::iter::repeat_n(true, store.items.len())),
        };
        let accounts = Tree::from_values((0..store.advertisers.ids.len()).map(account));
        let mut snapshot = Self {
            version: 1,
            store: Arc::new(store),
            bids: Tree::from_values(columns.bid_micros),
            reserves: Tree::from_values(columns.reserve_micros),
            active,
            accounts,
            effective: Tree::from_values([]),
            misreport: None,
        };
        snapshot.refresh_all();
        Ok(snapshot)
    }

    /// Version of this snapshot: 1 as opened, one more with every [`Catalog::apply`](super::Catalog::apply).
    pub fn version(&self) -> u64 {
        self.version
    }

    /// N: number of items, active or not.
    pub fn len(&self) -> usize {
        self.store.items.len()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the columns and their indexes hold; embeddings count where they are in memory, not where they
    /// are mapped from a file. What other snapshots share counts too.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
            + self.bids.bytes()
            + self.reserves.bytes()
            + self.active.bytes()
            + self.accounts.bytes()
            + self.effective.bytes()
    }

    /// Row of the item with external id `id`.
    pub fn find(&self, id: u64) -> Option<u32> {
        self.store.rows.find(&self.store.items.ids, id)
    }

    /// External id of an item.
    pub fn id(&self, item: u32) -> u64 {
        self.store.items.ids[item as usize]
    }

    /// Whether an item is an ad.
    pub fn kind(&self, item: u32) -> ItemKind {
        self.store.items.kinds[item as usize]
    }

    /// POI codes `[C_p]` of an item.
    pub fn codes(&self, item: u32) -> &[u16] {
        let (layers, row) = (self.store.items.shape.poi_layers, item as usize);
        &self.store.items.codes[row * layers..(row + 1) * layers]
    }

    /// Effective bid: floor(bid * pacing of the advertiser) for an ad, 0 for an organic item. It is what
    /// allocation and payment see, whether or not the ad may be shown.
    pub fn bid(&self, item: u32) -> Micros {
        match self.kind(item) {
            ItemKind::Organic => Micros::ZERO,
            ItemKind::Ad => self.effective_bid(item),
        }
    }

    fn effective_bid(&self, item: u32) -> Micros {
        if let Some((_, bid)) = self.misreport.filter(|&(misreported, _)| misreported == item) {
            return bid;
        }
        let bid = self.bids.get(item as usize);
        match self.account(item) {
            // Exact up to one rounding of f64: bids have 44 bits, a pacing 24.
            Some(account) => Micros((bid as f64 * f64::from(account.pacing)).floor() as u64),
            None => Micros(bid),
        }
    }

    fn account(&self, item: u32) -> Option<Account> {
        self.store.items.advertiser(item).map(|row| self.accounts.get(row as usize))
    }

    /// Bid as declared, before pacing.
    pub fn declared_bid(&self, item: u32) -> Micros {
        Micros(self.bids.get(item as usize))
    }

    /// Reserve price of an item.
    pub fn reserve(&self, item: u32) -> Micros {
        Micros(self.reserves.get(item as usize))
    }

    /// External id of an item's advertiser.
    pub fn advertiser(&self, item: u32) -> Option<u64> {
        self.store.items.advertiser(item).map(|row| self.store.advertisers.ids[row as usize])
    }

    /// What an item's advertiser has left to spend; `None` where it has no advertiser, or none with a budget.
    pub fn budget(&self, item: u32) -> Option<Micros> {
        self.account(item)?.budget
    }

    /// Factor of an item's advertiser on its bids; 1 where it has no advertiser.
    pub fn pacing(&self, item: u32) -> f32 {
        self.account(item).map_or(1.0, |account| account.pacing)
    }

    /// Whether an item is switched on.
    pub fn is_active(&self, item: u32) -> bool {
        self.active.get(item as usize)
    }

    /// M: number of creatives of all items.
    pub fn creatives_len(&self) -> usize {
        self.store.items.creative_ids.len()
    }

    /// Rows of an item's creatives, in the order of the catalog.
    pub fn creatives(&self, item: u32) -> Range<u32> {
        self.store.items.creatives(item)
    }

    /// External id of the creative in row `c`.
    pub fn creative_id(&self, c: u32) -> u64 {
        self.store.items.creative_ids[c as usize]
    }

    /// Codes `[C_c]` of the creative in row `c`.
    pub fn creative_codes(&self, c: u32) -> &[u16] {
        let (layers, row) = (self.store.items.shape.creative_layers, c as usize);
        &self.store.items.creative_codes[row * layers..(row + 1) * layers]
    }

    /// Copies an item's raw embedding, widened to f32, to `out`, which must be `[d_item]`.
    pub fn embedding(&self, item: u32, out: &mut [f32]) {
        self.store.items.embeddings.read(item as usize, out);
    }

    /// Why an item may not be shown now; `None` where it may. Bids, reserves and budgets concern ads only.
    pub fn rejection(&self, item: u32) -> Option<Rejection> {
        let row = item as usize;
        let ad = self.kind(item) == ItemKind::Ad;
        if !self.active.get(row) {
            Some(Rejection::Inactive)
        } else if self.creatives(item).is_empty() {
            Some(Rejection::NoCreative)
        } else if ad && self.account(item).is_some_and(|account| account.budget == Some(Micros::ZERO)) {
            Some(Rejection::BudgetSpent)
        } else if ad && self.effective_bid(item) < self.reserve(item) {
            Some(Rejection::BelowReserve)
        } else if !self.store.items.finite[row] {
            Some(Rejection::NonFiniteEmbedding)
        } else {
            None
        }
    }

    /// All ads, sorted by their codes.
    pub fn ads(&self) -> &AdIndex {
        &self.store.ads
    }

    /// Effective bid of the ad at position `p` of [`Snapshot::ads`]; `None` where it may not be shown now.
    pub fn bid_at(&self, p: usize) -> Option<Micros> {
        self.effective.bid(p)
    }

    /// What the eligible ads at positions `range` of [`Snapshot::ads`] bid; logarithmic in its length.
    pub fn aggregate(&self, range: Range<usize>) -> Aggregate {
        self.effective.aggregate(range)
    }

    /// Calls `f` with each position of `range` whose ad is eligible and bids exactly `bid`, in order, without
    /// looking into parts whose highest bid is lower.
    pub fn for_each_with_bid(&self, range: Range<usize>, bid: Micros, f: &mut dyn FnMut(usize)) {
        self.effective.positions_of(range, bid, f);
    }

    /// Whether `other` has the same items and creatives in the same rows.
    pub(crate) fn shares_items(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.store, &other.store)
    }

    /// The positions of [`Snapshot::ads`], ascending, whose [`Snapshot::bid_at`] is not what it was in `before`, with
    /// what it is now; `None` where the two snapshots do not have the same ads. What the two share is passed over.
    pub fn changed_bids(&self, before: &Self) -> Option<Vec<(u32, Option<Micros>)>> {
        self.shares_items(before).then(|| self.effective.changed_since(&before.effective))
    }

    /// The updates that make this snapshot of `before`; `None` where the two do not have the same items. What they share
    /// is passed over.
    pub fn changes_since(&self, before: &Self) -> Option<Vec<Update>> {
        if !self.shares_items(before) {
            return None;
        }
        let ids = &self.store.items.ids;
        let mut updates = Vec::new();
        self.bids.differences(&before.bids, |row, bid| {
            updates.push(Update::Bid { item: ids[row], bid: Micros(bid) });
        });
        self.reserves.differences(&before.reserves, |row, reserve| {
            updates.push(Update::Reserve { item: ids[row], reserve: Micros(reserve) });
        });
        self.active.differences(&before.active, |row, active| {
            updates.push(Update::Active { item: ids[row], active });
        });
        self.accounts.differences(&before.accounts, |row, account| {
            let advertiser = self.store.advertisers.ids[row];
            updates.push(Update::Pacing { advertiser, pacing: account.pacing });
            updates.extend(account.budget.map(|remaining| Update::Budget { advertiser, remaining }));
        });
        Some(updates)
    }

    /// Digest of what every ad bids: its id, and its effective bid or that it may not be shown.
    pub fn bids_digest(&self) -> Digest {
        /// Ads whose bytes are gathered at a time.
        const BLOCK: usize = 1 << 16;
        let mut hasher = Digest::hasher();
        let mut bytes = Vec::with_capacity(16 * BLOCK.min(self.ads().len()));
        for start in (0..self.ads().len()).step_by(BLOCK) {
            bytes.clear();
            for position in start..self.ads().len().min(start + BLOCK) {
                let bid = self.bid_at(position).map_or(u64::MAX, |bid| bid.0);
                bytes.extend(self.id(self.ads().item(position)).to_le_bytes());
                bytes.extend(bid.to_le_bytes());
            }
            hasher.update(&bytes);
        }
        hasher.finish()
    }

    /// This state with all `updates`, or none, as the next version. Nothing that is served changes: it is for asking
    /// what would be, and for the state of a record.
    ///
    /// # Errors
    /// [`UpdateError`] naming the update and the field.
    pub fn with(&self, updates: &[Update]) -> Result<Self, UpdateError> {
        update::apply(self, updates)
    }

    /// This snapshot as it would be if the effective bid of the ad `item` were `bid`, for a counterfactual. The two
    /// share everything but the way to that bid, and the version.
    pub(crate) fn with_bid(&self, item: u32, bid: Micros) -> Self {
        let mut changed = Self { misreport: Some((item, bid)), ..self.clone() };
        changed.refresh(item);
        changed
    }

    /// Makes this snapshot the one after itself.
    pub(super) fn advance(&mut self) {
        self.version += 1;
    }

    pub(super) fn set_bid(&mut self, item: u32, bid: Micros) {
        self.bids.set(item as usize, bid.0);
        self.refresh(item);
    }

    pub(super) fn set_reserve(&mut self, item: u32, reserve: Micros) {
        self.reserves.set(item as usize, reserve.0);
        self.refresh(item);
    }

    pub(super) fn set_active(&mut self, item: u32, active: bool) {
        self.active.set(item as usize, active);
        self.refresh(item);
    }

    /// Changes the account of the advertiser in row `row`, and the bids of its ads where they depend on that.
    pub(super) fn set_account(&mut self, row: u32, change: impl FnOnce(&mut Account)) {
        let before = self.accounts.get(row as usize);
        let mut after = before;
        change(&mut after);
        self.accounts.set(row as usize, after);
        let spent = |account: Account| account.budget == Some(Micros::ZERO);
        if before.pacing != after.pacing || spent(before) != spent(after) {
            let store = Arc::clone(&self.store);
            store.advertisers.ads(row).iter().for_each(|&item| self.refresh(item));
        }
    }

    /// Replaces the store by one with further items, whose bids, reserves and activity are `live`, whose ads
    /// are at the positions `inserted`, and with further advertisers.
    pub(super) fn extend(
        &mut self,
        store: Store,
        live: &[(Micros, Micros, bool)],
        inserted: &[usize],
        accounts: &[Account],
    ) {
        self.store = Arc::new(store);
        for &(bid, reserve, active) in live {
            self.bids.push(bid.0);
            self.reserves.push(reserve.0);
            self.active.push(active);
        }
        accounts.iter().for_each(|&account| self.accounts.push(account));
        if inserted.is_empty() {
            return;
        }
        let mut bids = Vec::with_capacity(self.ads().len());
        let old = self.effective.to_vec();
        let mut copied = 0;
        for &position in inserted {
            let run = position - bids.len();
            bids.extend_from_slice(&old[copied..copied + run]);
            copied += run;
            bids.push(self.eligible_bid(self.ads().item(position)).into());
        }
        bids.extend_from_slice(&old[copied..]);
        self.effective = Tree::from_values(bids);
    }

    fn eligible_bid(&self, item: u32) -> Option<Micros> {
        self.rejection(item).is_none().then(|| self.effective_bid(item))
    }

    /// Brings an ad's effective bid up to date.
    pub(super) fn refresh(&mut self, item: u32) {
        if let Some(position) = self.ads().position(item) {
            let bid = self.eligible_bid(item);
            self.effective.set(position, bid.into());
        }
    }

    /// Brings every effective bid up to date, reading the items in the order in which they lie in memory.
    fn refresh_all(&mut self) {
        let mut bids = vec![EffectiveBid::from(None); self.ads().len()];
        for item in 0..self.len() as u32 {
            if let Some(position) = self.ads().position(item) {
                bids[position] = self.eligible_bid(item).into();
            }
        }
        self.effective = Tree::from_values(bids);
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (items, ads) = (self.len(), self.ads().len());
        write!(f, "Snapshot {{ version: {}, items: {items}, ads: {ads} }}", self.version)
    }
}
