//! What a catalog holds, in figures.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::money::Micros;

use super::{CodeReport, ItemKind, Rejection, Snapshot};

/// Quantiles of bids that are reported.
const QUANTILES: [f64; 7] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0];

/// A summary of one snapshot, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CatalogStats {
    /// Version of the snapshot.
    pub version: u64,
    /// Items that are organic.
    pub organic: usize,
    /// Items that are ads.
    pub ads: usize,
    /// Creatives of all items.
    pub creatives: usize,
    /// Advertisers that items name or that are declared.
    pub advertisers: usize,
    /// Codes of all items.
    pub item_codes: CodeReport,
    /// Codes of all creatives.
    pub creative_codes: CodeReport,
    /// Ads that may be shown now.
    pub eligible_ads: usize,
    /// Ads that may not, by reason.
    pub rejected_ads: BTreeMap<Rejection, usize>,
    /// Organic items that may not be shown now, by reason.
    pub rejected_organic: BTreeMap<Rejection, usize>,
    /// Quantile and effective bid in micros of the eligible ads, ascending; empty where there are none. The
    /// bid at quantile q is that of rank floor(q (n - 1)).
    pub bid_quantiles_micros: Vec<(f64, Micros)>,
}

impl CatalogStats {
    /// Counts a snapshot through.
    pub fn of(snapshot: &Snapshot) -> Self {
        let items = &snapshot.store.items;
        let shape = items.shape;
        let (mut rejected_ads, mut rejected_organic) = (BTreeMap::new(), BTreeMap::new());
        let mut bids = Vec::new();
        for item in 0..snapshot.len() as u32 {
            match (snapshot.kind(item), snapshot.rejection(item)) {
                (ItemKind::Ad, None) => bids.push(snapshot.bid(item)),
                (ItemKind::Ad, Some(reason)) => *rejected_ads.entry(reason).or_insert(0) += 1,
                (ItemKind::Organic, Some(reason)) => *rejected_organic.entry(reason).or_insert(0) += 1,
                (ItemKind::Organic, None) => {}
            }
        }
        bids.sort_unstable();
        let rank = |q: f64| (q * (bids.len() as f64 - 1.0)) as usize;
        let quantiles = QUANTILES.iter().filter_map(|&q| Some((q, *bids.get(rank(q))?)));
        let ads = snapshot.ads().len();
        Self {
            version: snapshot.version(),
            organic: snapshot.len() - ads,
            ads,
            creatives: snapshot.creatives_len(),
            advertisers: snapshot.store.advertisers.ids.len(),
            item_codes: CodeReport::of(&items.codes, shape.poi_layers, shape.codebook),
            creative_codes: CodeReport::of(&items.creative_codes, shape.creative_layers, shape.codebook),
            eligible_ads: bids.len(),
            rejected_ads,
            rejected_organic,
            bid_quantiles_micros: quantiles.collect(),
        }
    }
}
