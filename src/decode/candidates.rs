//! The ads of a request, sorted by their codes, with their bids.
//!
//! The ads that share a code prefix are a range of positions, so a beam's set of candidates is two numbers, and
//! what is behind a code is a sub-range.

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{AdIndex, Aggregate, Snapshot};
use crate::money::Micros;

/// The ads a request may show: those named, or all eligible ads of the snapshot.
///
/// Positions count from 0 in the order of (codes, item row).
#[derive(Clone)]
pub struct Ads<'s> {
    snapshot: &'s Snapshot,
    index: &'s AdIndex,
    listed: Option<Listed>,
}

/// Named ads: where they stand in the catalog's order, and their bids.
#[derive(Clone)]
struct Listed {
    positions: Arc<[u32]>,
    bids: Arc<[Micros]>,
    /// A position and its bid, in place of the one in `bids`.
    misreport: Option<(usize, Micros)>,
}

impl Listed {
    fn bid(&self, p: usize) -> Micros {
        self.misreport.filter(|&(misreported, _)| misreported == p).map_or(self.bids[p], |(_, bid)| bid)
    }

    fn aggregate(&self, range: Range<usize>) -> Aggregate {
        match self.misreport {
            Some((p, bid)) if range.contains(&p) => {
                let (before, after) = (self.declared(range.start..p), self.declared(p + 1..range.end));
                before.and(Aggregate::of(bid)).and(after)
            }
            _ => self.declared(range),
        }
    }

    /// Of a range without the misreported bid.
    fn declared(&self, range: Range<usize>) -> Aggregate {
        let bids = &self.bids[range];
        Aggregate {
            count: bids.len() as u64,
            sum: bids.iter().map(|b| u128::from(b.0)).sum(),
            max: bids.iter().copied().max(),
        }
    }
}

impl<'s> Ads<'s> {
    /// All eligible ads of the snapshot.
    pub fn all(snapshot: &'s Snapshot) -> Self {
        Self { snapshot, index: snapshot.ads(), listed: None }
    }

    /// The eligible ads among `items` (rows of the snapshot, no row twice).
    pub fn listed(snapshot: &'s Snapshot, items: &[u32]) -> Self {
        let index = snapshot.ads();
        let mut positions: Vec<u32> =
            items.iter().filter_map(|&item| index.position(item)).map(|p| p as u32).collect();
        positions.sort_unstable();
        positions.retain(|&p| snapshot.bid_at(p as usize).is_some());
        let bids = positions.iter().filter_map(|&p| snapshot.bid_at(p as usize)).collect();
        let listed = Listed { positions: positions.into(), bids, misreport: None };
        Self { snapshot, index, listed: Some(listed) }
    }

    /// The same ads in `changed`, a snapshot in which the one at position `p` has another bid and is eligible still.
    pub fn with_bid<'c>(&self, changed: &'c Snapshot, p: usize) -> Ads<'c> {
        let listed = self.listed.as_ref().map(|listed| Listed {
            positions: listed.positions.clone(),
            bids: listed.bids.clone(),
            misreport: changed.bid_at(self.position(p)).map(|bid| (p, bid)),
        });
        Ads { snapshot: changed, index: changed.ads(), listed }
    }

    /// Whether these are all eligible ads of the snapshot.
    pub fn is_all(&self) -> bool {
        self.listed.is_none()
    }

    /// Number of positions; of `all` ads also those that are not eligible now.
    pub fn len(&self) -> usize {
        self.listed.as_ref().map_or(self.index.len(), |l| l.positions.len())
    }

    /// Whether there is no position at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn position(&self, p: usize) -> usize {
        self.listed.as_ref().map_or(p, |l| l.positions[p] as usize)
    }

    /// The codes at position `p`, `[C_p]`.
    pub fn codes(&self, p: usize) -> &'s [u16] {
        self.index.codes(self.position(p))
    }

    /// The item (row of the snapshot) at position `p`.
    pub fn item(&self, p: usize) -> u32 {
        self.index.item(self.position(p))
    }

    /// The position of an item, if it is one of the ads.
    pub fn find(&self, item: u32) -> Option<usize> {
        let position = self.index.position(item)?;
        match &self.listed {
            None => Some(position),
            Some(l) => l.positions.binary_search(&(position as u32)).ok(),
        }
    }

    /// The bid at position `p`; none where the ad is not eligible now.
    pub fn bid(&self, p: usize) -> Option<Micros> {
        match &self.listed {
            None => self.snapshot.bid_at(p),
            Some(l) => Some(l.bid(p)),
        }
    }

    /// First position after `range.start` whose code in `layer` differs from the one there, or `range.end`.
    /// The positions of `range` share the codes before `layer`.
    pub fn end_of_code(&self, range: Range<usize>, layer: usize) -> usize {
        let Some(listed) = &self.listed else { return self.index.end_of_code(range, layer) };
        let code = self.codes(range.start)[layer];
        let tail = &listed.positions[range.start..range.end];
        range.start + gallop(tail, |&p| self.index.codes(p as usize)[layer] == code)
    }

    /// Count, sum and maximum of the eligible bids in `range`.
    pub fn aggregate(&self, range: Range<usize>) -> Aggregate {
        match &self.listed {
            None => self.snapshot.aggregate(range),
            Some(listed) => listed.aggregate(range),
        }
    }

    /// [`Ads::aggregate`] without the positions of `used`, which are sorted.
    pub fn aggregate_without(&self, range: Range<usize>, used: &[u32]) -> Aggregate {
        let mut total = Aggregate::default();
        let mut start = range.start;
        let inside = used.iter().map(|&p| p as usize).filter(|p| range.contains(p));
        for stop in inside.chain([range.end]) {
            if start < stop {
                total = total.and(self.aggregate(start..stop));
            }
            start = stop + 1;
        }
        total
    }

    /// Calls `f` with every position of `range` whose eligible bid is `bid`.
    pub fn for_each_with_bid(&self, range: Range<usize>, bid: Micros, f: &mut dyn FnMut(usize)) {
        match &self.listed {
            None => self.snapshot.for_each_with_bid(range, bid, f),
            Some(l) => range.filter(|&p| l.bid(p) == bid).for_each(f),
        }
    }
}

/// Length of the head of `items` for which `same` holds; it holds for a head and for nothing after.
fn gallop<T>(items: &[T], same: impl Fn(&T) -> bool) -> usize {
    let mut step = 1;
    while step < items.len() && same(&items[step]) {
        step *= 2;
    }
    let low = step / 2;
    low + items[low..items.len().min(step)].partition_point(same)
}
