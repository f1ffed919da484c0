//! The ads in the order of their semantic ids: candidate sets by code prefix are ranges of positions.

use std::ops::Range;

use super::ItemKind;
use super::codes::sort_by_codes;
use super::store::vec_bytes;

/// Position of an item that is not an ad.
const NOT_AN_AD: u32 = u32::MAX;

/// All ads of a snapshot sorted by (codes, item row), eligible or not.
///
/// Ads that share a prefix of codes are neighbours, so the candidates of every beam are a range of positions.
#[derive(Debug, Clone)]
pub struct AdIndex {
    layers: usize,
    /// Item row by position.
    items: Vec<u32>,
    /// Codes by position, a copy in sorted order: searches stay within a few cache lines.
    codes: Vec<u16>,
    /// Position by item row, or [`NOT_AN_AD`].
    positions: Vec<u32>,
}

impl AdIndex {
    /// Sorts the ads among `kinds`; `codes` is [items, layers], each below `codebook`.
    pub(super) fn new(kinds: &[ItemKind], codes: &[u16], layers: usize, codebook: usize) -> Self {
        let rows = 0..kinds.len() as u32;
        let ads = rows.filter(|&row| kinds[row as usize] == ItemKind::Ad).collect();
        let items = sort_by_codes(ads, codes, layers, codebook);
        let row = |item: u32| &codes[item as usize * layers..(item as usize + 1) * layers];
        let in_order = items.iter().flat_map(|&item| row(item)).copied().collect();
        Self { layers, positions: positions(&items, kinds.len()), items, codes: in_order }
    }

    /// This index with the items from row `first` on, and the positions of the ads among these, ascending.
    ///
    /// Merges where [`AdIndex::new`] sorts: what is there is copied in long runs.
    pub(super) fn with_inserted(&self, kinds: &[ItemKind], codes: &[u16], first: u32) -> (Self, Vec<usize>) {
        let layers = self.layers;
        let row = |item: u32| &codes[item as usize * layers..(item as usize + 1) * layers];
        let mut new: Vec<u32> =
            (first..kinds.len() as u32).filter(|&item| kinds[item as usize] == ItemKind::Ad).collect();
        new.sort_by_key(|&item| (row(item), item));
        let total = self.len() + new.len();
        let (mut items, mut in_order) = (Vec::with_capacity(total), Vec::with_capacity(total * layers));
        let mut inserted = Vec::with_capacity(new.len());
        let mut copied = 0;
        for item in new {
            // Behind its equals, whose rows are lower.
            let end = partition(copied..self.len(), |p| self.codes(p) <= row(item));
            items.extend_from_slice(&self.items[copied..end]);
            in_order.extend_from_slice(&self.codes[copied * layers..end * layers]);
            copied = end;
            inserted.push(items.len());
            items.push(item);
            in_order.extend_from_slice(row(item));
        }
        items.extend_from_slice(&self.items[copied..]);
        in_order.extend_from_slice(&self.codes[copied * layers..]);
        (Self { layers, positions: positions(&items, kinds.len()), items, codes: in_order }, inserted)
    }

    /// Number of ads.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        vec_bytes(&self.items) + vec_bytes(&self.codes) + vec_bytes(&self.positions)
    }

    /// Whether the catalog has no ads.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The POI codes `[C_p]` of the ad at position `p`, which must be below [`AdIndex::len`].
    pub fn codes(&self, p: usize) -> &[u16] {
        &self.codes[p * self.layers..(p + 1) * self.layers]
    }

    /// The item row of the ad at position `p`, which must be below [`AdIndex::len`].
    pub fn item(&self, p: usize) -> u32 {
        self.items[p]
    }

    /// The position of an item; `None` for an organic item.
    pub fn position(&self, item: u32) -> Option<usize> {
        let position = self.positions[item as usize];
        (position != NOT_AN_AD).then_some(position as usize)
    }

    /// First position after `range.start` in `range` whose code in `layer` differs from that at `range.start`
    /// (`range.end` where there is none; an empty range ends where it starts).
    ///
    /// All positions of `range` must share their codes before `layer`; the search gallops, so its cost is the
    /// logarithm of the distance. `range.end` must be at most [`AdIndex::len`].
    pub fn end_of_code(&self, range: Range<usize>, layer: usize) -> usize {
        if range.is_empty() {
            return range.start;
        }
        let code_at = |p: usize| self.codes[p * self.layers + layer];
        let code = code_at(range.start);
        // Invariant: the code at `low` is `code`.
        let (mut low, mut step) = (range.start, 1);
        while low + step < range.end && code_at(low + step) == code {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(range.end);
        low += 1;
        while low < high {
            let middle = low + (high - low) / 2;
            if code_at(middle) == code {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The positions whose codes start with `prefix` (at most C_p codes); empty where there are none.
    pub fn prefix_range(&self, prefix: &[u16]) -> Range<usize> {
        let head = |p: usize| &self.codes(p)[..prefix.len()];
        let start = partition(0..self.len(), |p| head(p) < prefix);
        start..partition(start..self.len(), |p| head(p) == prefix)
    }
}

/// The inverse of `items`, for rows below `rows`.
fn positions(items: &[u32], rows: usize) -> Vec<u32> {
    let mut positions = vec![NOT_AN_AD; rows];
    for (position, &item) in items.iter().enumerate() {
        positions[item as usize] = position as u32;
    }
    positions
}

/// First index of `range` for which `before` is false; `before` is true up to some index, then false.
fn partition(range: Range<usize>, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
