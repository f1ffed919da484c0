//! The part of a snapshot that live updates do not touch: ids, codes, creatives, embeddings and their
//! indexes.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::CatalogError;

use super::columns::{Columns, NO_ADVERTISER, Shape};
use super::embeddings::Embeddings;
use super::ids::IdMap;
use super::{AdIndex, ItemKind};

/// Row of an item's advertiser where it has none.
const NONE: u32 = u32::MAX;

/// Items and creatives by row.
#[derive(Clone)]
pub(super) struct Items {
    pub(super) shape: Shape,
    pub(super) ids: Vec<u64>,
    pub(super) kinds: Vec<ItemKind>,
    /// [N, C_p]
    pub(super) codes: Vec<u16>,
    /// Row in the advertiser table by item, or [`NONE`]; empty where no item has an advertiser.
    advertisers: Vec<u32>,
    /// Whether an item's embedding is free of NaN and infinities.
    pub(super) finite: Vec<bool>,
    pub(super) embeddings: Embeddings,
    /// `[N + 1]`
    pub(super) creative_offsets: Vec<u32>,
    pub(super) creative_ids: Vec<u64>,
    /// [M, C_c]
    pub(super) creative_codes: Vec<u16>,
}

impl Items {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn creatives(&self, item: u32) -> Range<u32> {
        self.creative_offsets[item as usize]..self.creative_offsets[item as usize + 1]
    }

    fn bytes(&self) -> usize {
        vec_bytes(&self.ids)
            + vec_bytes(&self.kinds)
            + vec_bytes(&self.codes)
            + vec_bytes(&self.advertisers)
            + vec_bytes(&self.finite)
            + self.embeddings.bytes()
            + vec_bytes(&self.creative_offsets)
            + vec_bytes(&self.creative_ids)
            + vec_bytes(&self.creative_codes)
    }

    /// Row of the item's advertiser.
    pub(super) fn advertiser(&self, item: u32) -> Option<u32> {
        self.advertisers.get(item as usize).copied().filter(|&row| row != NONE)
    }

    /// Appends the advertiser row of the next item.
    pub(super) fn push_advertiser(&mut self, row: Option<u32>) {
        let item = self.ids.len() - 1;
        if row.is_some() || !self.advertisers.is_empty() {
            self.advertisers.resize(item, NONE);
            self.advertisers.push(row.unwrap_or(NONE));
        }
    }
}

/// External ids of advertisers, and their ads.
#[derive(Clone)]
pub(super) struct Advertisers {
    pub(super) ids: Vec<u64>,
    pub(super) rows: IdMap,
    /// [A + 1]: advertiser a owns `ads[starts[a]..starts[a + 1]]`.
    starts: Vec<u32>,
    /// Item rows of ads, by advertiser.
    ads: Vec<u32>,
}

impl Advertisers {
    /// Item rows of the ads of the advertiser in row `row`.
    pub(super) fn ads(&self, row: u32) -> &[u32] {
        let (start, end) = (self.starts[row as usize], self.starts[row as usize + 1]);
        &self.ads[start as usize..end as usize]
    }

    fn bytes(&self) -> usize {
        vec_bytes(&self.ids) + self.rows.bytes() + vec_bytes(&self.starts) + vec_bytes(&self.ads)
    }

    /// Lists the ads of each advertiser anew.
    fn index(&mut self, items: &Items) {
        let ads = || {
            let rows = 0..items.advertisers.len() as u32;
            rows.filter(|&item| items.kinds[item as usize] == ItemKind::Ad)
                .filter_map(|item| Some((item, items.advertiser(item)? as usize)))
        };
        self.starts = vec![0; self.ids.len() + 1];
        ads().for_each(|(_, row)| self.starts[row + 1] += 1);
        for row in 0..self.ids.len() {
            self.starts[row + 1] += self.starts[row];
        }
        let mut next = self.starts.clone();
        self.ads = vec![0; *self.starts.last().unwrap_or(&0) as usize];
        for (item, row) in ads() {
            self.ads[next[row] as usize] = item;
            next[row] += 1;
        }
    }
}

/// Bytes that a vector holds, room for more included.
pub(super) fn vec_bytes<T>(values: &Vec<T>) -> usize {
    values.capacity() * size_of::<T>()
}

/// Items with the indexes over them.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) items: Items,
    pub(super) rows: IdMap,
    pub(super) advertisers: Advertisers,
    pub(super) ads: Arc<AdIndex>,
}

impl Store {
    /// Indexes columns that [`Columns::check_as`] accepted, leaving in `columns` what changes live.
    pub(super) fn new(
        shape: Shape,
        columns: &mut Columns,
        embeddings: Embeddings,
        path: &Path,
    ) -> Result<Self, CatalogError> {
        let value = |column, row: u32, message: String| CatalogError::Value {
            path: path.into(),
            column,
            row: row as usize,
            message,
        };
        let ids = std::mem::take(&mut columns.ids);
        let rows = IdMap::new(&ids).map_err(|[earlier, row]| {
            value("item.id", row, format!("{} again, first in row {earlier}", ids[row as usize]))
        })?;
        let (advertiser_ids, advertisers) = advertisers(columns)
            .map_err(|(row, id)| value("item.advertiser", row, format!("{id} is not in advertiser.id")))?;
        let advertiser_rows = IdMap::new(&advertiser_ids).map_err(|[earlier, row]| {
            let id = advertiser_ids[row as usize];
            value("advertiser.id", row, format!("{id} again, first in row {earlier}"))
        })?;
        let offsets = std::mem::take(&mut columns.creative_offsets);
        let items = Items {
            shape,
            ids,
            kinds: std::mem::take(&mut columns.kinds),
            codes: std::mem::take(&mut columns.codes),
            advertisers,
            finite: embeddings.finite_rows(),
            embeddings,
            creative_offsets: offsets.into_iter().map(|offset| offset as u32).collect(),
            creative_ids: std::mem::take(&mut columns.creative_ids),
            creative_codes: std::mem::take(&mut columns.creative_codes),
        };
        let advertisers =
            Advertisers { ids: advertiser_ids, rows: advertiser_rows, starts: Vec::new(), ads: Vec::new() };
        let ads = AdIndex::new(&items.kinds, &items.codes, shape.poi_layers, shape.codebook);
        let mut store = Self { items, rows, advertisers, ads: Arc::new(ads) };
        store.advertisers.index(&store.items);
        Ok(store)
    }

    /// Bytes it holds, without mapped embeddings.
    pub(super) fn bytes(&self) -> usize {
        self.items.bytes() + self.rows.bytes() + self.advertisers.bytes() + self.ads.bytes()
    }

    /// Brings the indexes up to date with the items from row `first` on; the positions of the ads among them.
    pub(super) fn index_from(&mut self, first: u32) -> Vec<usize> {
        let (ads, inserted) = self.ads.with_inserted(&self.items.kinds, &self.items.codes, first);
        self.ads = Arc::new(ads);
        self.advertisers.index(&self.items);
        inserted
    }
}

/// The advertiser ids, and the row of each item's advertiser; `Err` is an ad whose advertiser is unknown.
///
/// An organic item may name an advertiser that is not in the table: it has no bid to pace and no budget to
/// spend.
fn advertisers(columns: &mut Columns) -> Result<(Vec<u64>, Vec<u32>), (u32, u64)> {
    let Some(of_items) = columns.advertisers.take() else {
        return Ok((columns.advertiser_ids.take().unwrap_or_default(), Vec::new()));
    };
    let declared = columns.advertiser_ids.take();
    let strict = declared.is_some();
    let mut ids = declared.unwrap_or_default();
    let mut rows: HashMap<u64, u32> = ids.iter().zip(0..).map(|(&id, row)| (id, row)).collect();
    let mut of_rows = Vec::with_capacity(of_items.len());
    for (item, &id) in of_items.iter().enumerate() {
        let row = match rows.get(&id) {
            _ if id == NO_ADVERTISER => NONE,
            Some(&row) => row,
            None if !strict => {
                let row = ids.len() as u32;
                ids.push(id);
                rows.insert(id, row);
                row
            }
            None if columns.kinds[item] == ItemKind::Organic => NONE,
            None => return Err((item as u32, id)),
        };
        of_rows.push(row);
    }
    Ok((ids, of_rows))
}
