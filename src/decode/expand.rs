//! One step of one beam: which codes may follow, what is behind each, and what each weighs.

use std::ops::Range;

use super::bidding::BidWeight;
use super::candidates::Ads;
use crate::catalog::{Aggregate, Snapshot};
use crate::request::{BidAggregate, BidScope};

/// A code that may follow a beam's prefix, and the candidates A(q, k) behind it.
#[derive(Debug, Clone)]
pub(super) struct Child {
    /// The code k.
    pub code: u16,
    /// Ads behind it, as positions; used ads among them do not count.
    pub ads: Range<u32>,
    /// Eligible, unused ads behind it.
    pub bids: Aggregate,
    /// Whether the beam's next organic item is behind it.
    pub organic: bool,
    /// ln w of the code, by the items behind it.
    ln_w: f64,
}

impl Child {
    /// The code's bid in bid units (organic items count 0).
    fn bid(&self, aggregate: BidAggregate, unit: f64) -> f64 {
        match aggregate {
            BidAggregate::Max => self.bids.max.map_or(0.0, |b| b.0 as f64 / unit),
            BidAggregate::Mean => {
                let count = self.bids.count + u64::from(self.organic);
                self.bids.sum as f64 / count as f64 / unit
            }
        }
    }
}

/// Where a beam stands: the item being built, and what it may still show.
#[derive(Debug, Clone, Default)]
pub(super) struct Prefix {
    /// Ads whose codes start with the prefix; empty where the policy allows none in this slot.
    pub ads: Range<u32>,
    /// The codes of the beam's next organic item start with the prefix.
    pub organic: bool,
}

/// What is the same for every beam of a search.
pub(super) struct Expander<'a> {
    pub snapshot: &'a Snapshot,
    pub ads: &'a Ads<'a>,
    pub aggregate: BidAggregate,
    pub weight: BidWeight,
    pub bid_unit: f64,
    /// The codes of the first layer over all ads, none of them used.
    root: Vec<Child>,
    /// ln w by [layer][code] for `bid_scope: "code"`; codes with nothing behind them hold NaN, never read.
    by_code: Option<Vec<Vec<f64>>>,
}

impl<'a> Expander<'a> {
    /// Prepares a search over `ads` and `organic` (rows of the snapshot). `excluded` is a position that no beam
    /// may use and that no aggregate counts.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        snapshot: &'a Snapshot,
        ads: &'a Ads<'a>,
        organic: &[u32],
        scope: BidScope,
        aggregate: BidAggregate,
        weight: BidWeight,
        bid_unit: f64,
        excluded: Option<u32>,
        (layers, codes): (usize, usize),
    ) -> Self {
        let mut expander =
            Self { snapshot, ads, aggregate, weight, bid_unit, root: Vec::new(), by_code: None };
        let mut root = Vec::new();
        expander.push_children(0..ads.len() as u32, 0, &[], &mut root);
        expander.root = root;
        if scope == BidScope::Code {
            expander.by_code = Some(expander.weigh_codes(organic, excluded, layers, codes));
        }
        expander
    }

    /// ln w of every code of every layer over all the request's items, whatever the prefix and the policy.
    fn weigh_codes(
        &self,
        organic: &[u32],
        excluded: Option<u32>,
        layers: usize,
        codes: usize,
    ) -> Vec<Vec<f64>> {
        let nothing = Aggregate { count: 0, sum: 0, max: None };
        let none = Child { code: 0, ads: 0..0, bids: nothing, organic: false, ln_w: 0.0 };
        (0..layers)
            .map(|layer| {
                // Organic items add to the count as ads with a bid of zero would.
                let mut behind = vec![none.clone(); codes];
                for p in (0..self.ads.len()).filter(|&p| Some(p as u32) != excluded) {
                    if let Some(bid) = self.ads.bid(p) {
                        let bids = &mut behind[usize::from(self.ads.codes(p)[layer])].bids;
                        bids.count += 1;
                        bids.sum += u128::from(bid.0);
                        bids.max = bids.max.max(Some(bid));
                    }
                }
                for &item in organic {
                    behind[usize::from(self.snapshot.codes(item)[layer])].bids.count += 1;
                }
                behind.iter().map(|child| self.weigh(child)).collect()
            })
            .collect()
    }

    /// The children of `prefix` in `layer` with their ln w, in the order of their codes. `used` are the
    /// positions the beam has used, sorted; `organic` the row of its next organic item.
    pub fn expand(
        &self,
        prefix: &Prefix,
        layer: usize,
        used: &[u32],
        organic: Option<u32>,
        out: &mut Vec<Child>,
        ln_w: &mut Vec<f64>,
    ) {
        out.clear();
        ln_w.clear();
        if layer == 0 && !prefix.ads.is_empty() {
            self.push_root(used, out);
        } else {
            self.push_children(prefix.ads.clone(), layer, used, out);
        }
        if let (true, Some(item)) = (prefix.organic, organic) {
            self.insert_organic(self.snapshot.codes(item)[layer], out);
        }
        ln_w.extend(out.iter().map(|child| match &self.by_code {
            Some(table) => table[layer][usize::from(child.code)],
            None => child.ln_w,
        }));
    }

    fn weigh(&self, child: &Child) -> f64 {
        self.weight.ln(child.bid(self.aggregate, self.bid_unit))
    }

    /// A child with ads alone behind it.
    fn child(&self, code: u16, ads: Range<u32>, bids: Aggregate) -> Child {
        let mut child = Child { code, ads, bids, organic: false, ln_w: 0.0 };
        child.ln_w = self.weigh(&child);
        child
    }

    /// The children of the empty prefix: the prepared ones, corrected where a used ad is behind them.
    fn push_root(&self, used: &[u32], out: &mut Vec<Child>) {
        for child in &self.root {
            if !used.iter().any(|p| child.ads.contains(p)) {
                out.push(child.clone());
                continue;
            }
            let bids = self.ads.aggregate_without(as_usize(&child.ads), used);
            if bids.count > 0 {
                out.push(self.child(child.code, child.ads.clone(), bids));
            }
        }
    }

    fn push_children(&self, ads: Range<u32>, layer: usize, used: &[u32], out: &mut Vec<Child>) {
        let ads = as_usize(&ads);
        let mut start = ads.start;
        while start < ads.end {
            let end = self.ads.end_of_code(start..ads.end, layer);
            let bids = self.ads.aggregate_without(start..end, used);
            if bids.count > 0 {
                let code = self.ads.codes(start)[layer];
                out.push(self.child(code, start as u32..end as u32, bids));
            }
            start = end;
        }
    }

    /// Adds the next organic item to the child of its code, or a child of its own.
    fn insert_organic(&self, code: u16, children: &mut Vec<Child>) {
        let at = children.binary_search_by_key(&code, |child| child.code).unwrap_or_else(|at| {
            let bids = Aggregate { count: 0, sum: 0, max: None };
            children.insert(at, Child { code, ads: 0..0, bids, organic: true, ln_w: 0.0 });
            at
        });
        children[at].organic = true;
        children[at].ln_w = self.weigh(&children[at]);
    }
}

fn as_usize(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}
