//! One step of one beam: which codes may follow, what is behind each, and what each weighs.

use std::ops::Range;
use std::sync::Arc;

use super::bidding::BidWeight;
use super::candidates::Ads;
use crate::catalog::{Aggregate, Snapshot};
use crate::money::Micros;
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
    /// Where a beam stands once it has taken the code.
    pub fn prefix(&self) -> Prefix {
        Prefix { ads: self.ads.clone(), organic: self.organic }
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
    /// For `bid_scope: "code"`.
    by_code: Option<ByCode>,
}

/// What is behind a code of a layer, whatever the prefix.
#[derive(Clone)]
struct ByCode {
    /// By [layer][code].
    behind: Arc<Vec<Vec<CodeBids>>>,
    /// ln w by [layer][code]; codes with nothing behind them hold NaN, never read.
    ln_w: Vec<Vec<f64>>,
}

/// The bids behind a code, so that one of them can be exchanged.
#[derive(Debug, Clone, Copy, Default)]
struct CodeBids {
    all: Aggregate,
    /// The highest bid but one.
    second: Option<Micros>,
}

impl CodeBids {
    fn add(&mut self, bid: Micros) {
        self.second = self.second.max(self.all.max.min(Some(bid)));
        self.all = self.all.and(Aggregate::of(bid));
    }

    /// With one bid `new` in place of one bid `old`.
    fn exchanged(self, old: Micros, new: Micros) -> Aggregate {
        let highest = if self.all.max == Some(old) { self.second } else { self.all.max };
        let sum = self.all.sum - u128::from(old.0) + u128::from(new.0);
        Aggregate { sum, max: highest.max(Some(new)), ..self.all }
    }
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

    /// The same search where the ad at position `p` has another bid: `ads` are those of this search with that bid.
    pub fn with_bid(&self, ads: &'a Ads<'a>, p: usize) -> Self {
        let mut changed = Self { ads, root: self.root.clone(), by_code: self.by_code.clone(), ..*self };
        if let Some(child) = changed.root.iter_mut().find(|child| as_usize(&child.ads).contains(&p)) {
            *child = self.child(child.code, child.ads.clone(), ads.aggregate(as_usize(&child.ads)));
        }
        if let (Some(by_code), Some(old), Some(new)) = (&mut changed.by_code, self.ads.bid(p), ads.bid(p)) {
            let layers = by_code.behind.iter().zip(&mut by_code.ln_w);
            for ((behind, ln_w), &code) in layers.zip(ads.codes(p)) {
                let bids = behind[usize::from(code)].exchanged(old, new);
                ln_w[usize::from(code)] = self.weigh(bids, false);
            }
        }
        changed
    }

    /// The bids behind every code of every layer over all the request's items, whatever the prefix and the policy.
    /// Organic items add to the count as ads with a bid of zero would.
    fn weigh_codes(&self, organic: &[u32], excluded: Option<u32>, layers: usize, codes: usize) -> ByCode {
        let mut behind = vec![vec![CodeBids::default(); codes]; layers];
        for p in (0..self.ads.len()).filter(|&p| Some(p as u32) != excluded) {
            let Some(bid) = self.ads.bid(p) else { continue };
            for (layer, &code) in behind.iter_mut().zip(self.ads.codes(p)) {
                layer[usize::from(code)].add(bid);
            }
        }
        for &item in organic {
            for (layer, &code) in behind.iter_mut().zip(self.snapshot.codes(item)) {
                layer[usize::from(code)].all.count += 1;
            }
        }
        let weigh = |layer: &Vec<CodeBids>| layer.iter().map(|bids| self.weigh(bids.all, false)).collect();
        ByCode { ln_w: behind.iter().map(weigh).collect(), behind: Arc::new(behind) }
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
            Some(by_code) => by_code.ln_w[layer][usize::from(child.code)],
            None => child.ln_w,
        }));
    }

    /// ln w of a code with these eligible ads behind it, and perhaps an organic item, which bids 0.
    fn weigh(&self, bids: Aggregate, organic: bool) -> f64 {
        let bid = match self.aggregate {
            BidAggregate::Max => bids.max.map_or(0.0, |b| b.0 as f64 / self.bid_unit),
            BidAggregate::Mean => {
                let count = bids.count + u64::from(organic);
                bids.sum as f64 / count as f64 / self.bid_unit
            }
        };
        self.weight.ln(bid)
    }

    /// A child with ads alone behind it.
    fn child(&self, code: u16, ads: Range<u32>, bids: Aggregate) -> Child {
        Child { code, ads, bids, organic: false, ln_w: self.weigh(bids, false) }
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
            let bids = Aggregate::default();
            children.insert(at, Child { code, ads: 0..0, bids, organic: true, ln_w: 0.0 });
            at
        });
        children[at].organic = true;
        children[at].ln_w = self.weigh(children[at].bids, true);
    }
}

fn as_usize(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}
