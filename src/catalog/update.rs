//! Live updates: bids, budgets, new items.

use std::collections::HashSet;

use crate::error::UpdateError;
use crate::money::Micros;

use super::embeddings::all_finite;
use super::snapshot::Account;
use super::store::Store;
use super::{ItemKind, Snapshot};

/// One change of a live catalog, applied by [`Catalog::apply`](super::Catalog::apply).
///
/// Items, creatives and advertisers are named by their external ids. There is no removal: an item that is not
/// active is never shown, and rows stay what they are for snapshots that still run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// A new bid.
    Bid {
        /// The item.
        item: u64,
        /// At most [`Micros::MAX`].
        bid: Micros,
    },
    /// A new reserve price.
    Reserve {
        /// The item.
        item: u64,
        /// At most [`Micros::MAX`].
        reserve: Micros,
    },
    /// Switches an item on or off.
    Active {
        /// The item.
        item: u64,
        /// Whether it may be shown.
        active: bool,
    },
    /// What an advertiser has left to spend; at 0 none of its ads is shown.
    Budget {
        /// The advertiser.
        advertiser: u64,
        /// What is left.
        remaining: Micros,
    },
    /// The factor on all bids of an advertiser.
    Pacing {
        /// The advertiser.
        advertiser: u64,
        /// In [0, 1].
        pacing: f32,
    },
    /// A new item, in a new last row.
    Insert(NewItem),
    /// A new creative of an item, after those that it has.
    InsertCreative {
        /// The item, which may be new in the same batch.
        item: u64,
        /// The creative.
        creative: NewCreative,
    },
    /// A new advertiser.
    InsertAdvertiser(NewAdvertiser),
}

/// An item to be inserted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewItem {
    /// External id, not yet in the catalog.
    pub id: u64,
    /// Whether it is an ad.
    pub kind: ItemKind,
    /// POI codes `[C_p]`, each below W.
    pub codes: Vec<u16>,
    /// Bid, at most [`Micros::MAX`].
    pub bid: Micros,
    /// Reserve price, at most [`Micros::MAX`].
    pub reserve: Micros,
    /// Whether it may be shown.
    pub active: bool,
    /// External id of its advertiser, which may be new in the same batch.
    pub advertiser: Option<u64>,
    /// Raw embedding `[d_item]`, finite.
    pub embedding: Vec<f32>,
    /// Its creatives.
    pub creatives: Vec<NewCreative>,
}

/// A creative to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCreative {
    /// External id, not yet among the item's creatives.
    pub id: u64,
    /// Codes `[C_c]`, each below W.
    pub codes: Vec<u16>,
}

/// An advertiser to be inserted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAdvertiser {
    /// External id, not yet in the catalog.
    pub id: u64,
    /// What it may spend; `None` for a budget that never gates.
    pub budget: Option<Micros>,
    /// Factor in [0, 1] on its bids.
    pub pacing: f32,
}

/// A refused field: its name, and its value with what was expected.
type Refusal = (&'static str, String);

/// The snapshot after `current`, with every update or none.
pub(super) fn apply(current: &Snapshot, updates: &[Update]) -> Result<Snapshot, UpdateError> {
    let mut next = current.clone();
    let inserts = |update: &Update| {
        matches!(update, Update::Insert(_) | Update::InsertCreative { .. } | Update::InsertAdvertiser(_))
    };
    if updates.iter().any(inserts) {
        let mut insertions = Insertions::new(current);
        for (index, update) in updates.iter().enumerate() {
            insertions.add(update).map_err(|refusal| refused(index, refusal))?;
        }
        insertions.finish(&mut next);
    }
    for (index, update) in updates.iter().enumerate() {
        change(&mut next, update).map_err(|refusal| refused(index, refusal))?;
    }
    next.advance();
    Ok(next)
}

fn refused(index: usize, (field, message): Refusal) -> UpdateError {
    UpdateError { index, field, message }
}

/// Applies an update that is no insertion.
fn change(next: &mut Snapshot, update: &Update) -> Result<(), Refusal> {
    match *update {
        Update::Bid { item, bid } => {
            let row = row_of(next, item)?;
            next.set_bid(row, amount("bid", bid)?);
        }
        Update::Reserve { item, reserve } => {
            let row = row_of(next, item)?;
            next.set_reserve(row, amount("reserve", reserve)?);
        }
        Update::Active { item, active } => {
            let row = row_of(next, item)?;
            next.set_active(row, active);
        }
        Update::Budget { advertiser, remaining } => {
            let row = advertiser_row(&next.store, advertiser)?;
            next.set_account(row, |account| account.budget = Some(remaining));
        }
        Update::Pacing { advertiser, pacing } => {
            let row = advertiser_row(&next.store, advertiser)?;
            let pacing = checked_pacing(pacing)?;
            next.set_account(row, |account| account.pacing = pacing);
        }
        Update::Insert(_) | Update::InsertCreative { .. } | Update::InsertAdvertiser(_) => {}
    }
    Ok(())
}

fn row_of(snapshot: &Snapshot, item: u64) -> Result<u32, Refusal> {
    snapshot.find(item).ok_or_else(|| ("item", format!("{item} is not in the catalog")))
}

fn advertiser_row(store: &Store, advertiser: u64) -> Result<u32, Refusal> {
    let row = store.advertisers.rows.find(&store.advertisers.ids, advertiser);
    row.ok_or_else(|| ("advertiser", format!("{advertiser} is not in the catalog")))
}

fn amount(field: &'static str, amount: Micros) -> Result<Micros, Refusal> {
    if amount > Micros::MAX {
        return Err((field, format!("is {} micros, expected at most 2^43", amount.0)));
    }
    Ok(amount)
}

fn checked_pacing(pacing: f32) -> Result<f32, Refusal> {
    if !(0.0..=1.0).contains(&pacing) {
        return Err(("pacing", format!("is {pacing}, expected 0 to 1")));
    }
    Ok(pacing)
}

/// Rows gathered from a batch, before the indexes are built once for all of them.
struct Insertions {
    store: Store,
    live: Vec<(Micros, Micros, bool)>,
    accounts: Vec<Account>,
    /// Creatives by item row, in the order of the batch.
    creatives: Vec<(u32, NewCreative)>,
    /// Item row and id of each of `creatives`.
    creative_ids: HashSet<(u32, u64)>,
}

impl Insertions {
    fn new(current: &Snapshot) -> Self {
        Self {
            store: Store::clone(&current.store),
            live: Vec::new(),
            accounts: Vec::new(),
            creatives: Vec::new(),
            creative_ids: HashSet::new(),
        }
    }

    fn add(&mut self, update: &Update) -> Result<(), Refusal> {
        match update {
            Update::Insert(item) => self.add_item(item),
            Update::InsertCreative { item, creative } => {
                let row = self.store.rows.find(&self.store.items.ids, *item);
                let row = row.ok_or_else(|| ("item", format!("{item} is not in the catalog")))?;
                self.add_creative(row, creative)
            }
            Update::InsertAdvertiser(advertiser) => self.add_advertiser(advertiser),
            _ => Ok(()),
        }
    }

    fn add_item(&mut self, item: &NewItem) -> Result<(), Refusal> {
        let store = &mut self.store;
        let shape = store.items.shape;
        check_codes(&item.codes, shape.poi_layers, shape.codebook)?;
        let bid = amount("bid", item.bid)?;
        let reserve = amount("reserve", item.reserve)?;
        let width = item.embedding.len();
        if width != shape.embedding {
            return Err(("embedding", format!("has {width} values, expected {}", shape.embedding)));
        }
        if !all_finite(&item.embedding) {
            return Err(("embedding", "holds a NaN or an infinity, expected finite numbers".into()));
        }
        let advertiser = item.advertiser.map(|id| advertiser_row(store, id)).transpose()?;
        let row = store.items.len() as u32;
        if row == u32::MAX - 1 {
            return Err(("item", "one more than 2^32 - 2 items".into()));
        }
        store.items.ids.push(item.id);
        if store.rows.insert(&store.items.ids, row).is_err() {
            return Err(("id", format!("{} is in the catalog already", item.id)));
        }
        store.items.kinds.push(item.kind);
        store.items.codes.extend_from_slice(&item.codes);
        store.items.push_advertiser(advertiser);
        store.items.finite.push(true);
        store.items.embeddings.append(&item.embedding);
        store.items.creative_offsets.push(*store.items.creative_offsets.last().unwrap_or(&0));
        self.live.push((bid, reserve, item.active));
        item.creatives.iter().try_for_each(|creative| self.add_creative(row, creative))
    }

    fn add_creative(&mut self, row: u32, creative: &NewCreative) -> Result<(), Refusal> {
        let items = &self.store.items;
        check_codes(&creative.codes, items.shape.creative_layers, items.shape.codebook)?;
        let mut here = items.creatives(row).map(|c| items.creative_ids[c as usize]);
        if here.any(|id| id == creative.id) || !self.creative_ids.insert((row, creative.id)) {
            let item = items.ids[row as usize];
            return Err(("creative.id", format!("{} is a creative of item {item} already", creative.id)));
        }
        if items.creative_ids.len() + self.creatives.len() >= u32::MAX as usize - 1 {
            return Err(("creative", "one more than 2^32 - 2 creatives".into()));
        }
        self.creatives.push((row, creative.clone()));
        Ok(())
    }

    fn add_advertiser(&mut self, advertiser: &NewAdvertiser) -> Result<(), Refusal> {
        let pacing = checked_pacing(advertiser.pacing)?;
        let table = &mut self.store.advertisers;
        let row = table.ids.len() as u32;
        table.ids.push(advertiser.id);
        if table.rows.insert(&table.ids, row).is_err() {
            return Err(("id", format!("advertiser {} is in the catalog already", advertiser.id)));
        }
        self.accounts.push(Account { budget: advertiser.budget, pacing });
        Ok(())
    }

    fn finish(mut self, next: &mut Snapshot) {
        self.place_creatives();
        let first = self.store.items.len() - self.live.len();
        let inserted = match (self.live.is_empty(), self.accounts.is_empty()) {
            (true, true) => Vec::new(),
            _ => self.store.index_from(first as u32),
        };
        next.extend(self.store, &self.live, &inserted, &self.accounts);
        // An item may have been without a creative.
        let old = self.creatives.iter().map(|(row, _)| *row).filter(|&row| (row as usize) < first);
        old.for_each(|row| next.refresh(row));
    }

    /// Moves the gathered creatives behind those that their items have.
    fn place_creatives(&mut self) {
        if self.creatives.is_empty() {
            return;
        }
        self.creatives.sort_by_key(|(row, _)| *row);
        let items = &mut self.store.items;
        let layers = items.shape.creative_layers;
        let total = items.creative_ids.len() + self.creatives.len();
        let mut ids = Vec::with_capacity(total);
        let mut codes = Vec::with_capacity(total * layers);
        let mut copied = 0;
        let mut copy = |ids: &mut Vec<u64>, codes: &mut Vec<u16>, end: usize| {
            ids.extend_from_slice(&items.creative_ids[copied..end]);
            codes.extend_from_slice(&items.creative_codes[copied * layers..end * layers]);
            copied = end;
        };
        for (row, creative) in &self.creatives {
            copy(&mut ids, &mut codes, items.creative_offsets[*row as usize + 1] as usize);
            ids.push(creative.id);
            codes.extend_from_slice(&creative.codes);
        }
        copy(&mut ids, &mut codes, items.creative_ids.len());
        let mut added = 0;
        for (row, offset) in items.creative_offsets.iter_mut().enumerate() {
            while self.creatives.get(added).is_some_and(|(item, _)| (*item as usize) < row) {
                added += 1;
            }
            *offset += added as u32;
        }
        items.creative_ids = ids;
        items.creative_codes = codes;
    }
}

fn check_codes(codes: &[u16], layers: usize, codebook: usize) -> Result<(), Refusal> {
    if codes.len() != layers {
        return Err(("codes", format!("has {} codes, expected {layers}", codes.len())));
    }
    match codes.iter().find(|&&code| usize::from(code) >= codebook) {
        Some(code) => Err(("codes", format!("holds {code}, expected codes below {codebook}"))),
        None => Ok(()),
    }
}
