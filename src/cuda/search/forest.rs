//! The ads of a batch on the device: tries over those that requests name, and one over the whole catalog.

use std::sync::Arc;

use super::bid_max;
use super::trie::{NODE_WORDS, Tries};
use crate::catalog::Snapshot;
use crate::cuda::launch::{Buffer, LaunchShape, Ptr, Stream};
use crate::decode::candidates::Ads;
use crate::error::DeviceError;
use crate::money::Micros;

/// Words of the bids behind a node.
const BID_WORDS: usize = 4;
/// Words of an ad: its leaf, its item.
const AD_WORDS: usize = 2;
/// The bid of an ad that is not eligible now; bids stop at 2^43.
const NO_BID: u64 = u64::MAX;
/// Threads of a block of the kernels here.
const THREADS: u32 = 256;
/// Warps in such a block.
const WARPS: u32 = THREADS / 32;
/// Ads of the catalog whose bids are brought up to date in one go.
const MAX_UPDATES: usize = 1 << 16;

/// Where a request's ads stand in the forest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tree {
    /// Node of the root.
    pub root: u32,
    /// The ads, in the order of [`Ads`].
    pub first_ad: u32,
    /// Number of ads.
    pub ads: u32,
}

/// Tries over ads with the bids behind every node, laid out as `kernels/search.cuh` says.
///
/// The first part holds the ads that the requests of a batch name and is made anew for each batch. The second holds
/// the whole catalog from the first request on that asks for all ads; after that only bids that changed are sent.
pub(super) struct Forest {
    tables: Tables,
    named: Region,
    catalog: Option<Catalog>,
    touched: Buffer<u32>,
    new_bids: Buffer<u64>,
    tries: Tries,
    named_ads: NewAds,
}

/// The forest in device memory.
pub(super) struct Tables {
    stream: Arc<dyn Stream>,
    layers: usize,
    /// How often the tables moved.
    moves: u64,
    /// `[nodes, NODE_WORDS]`
    pub nodes: Buffer<u32>,
    /// `[nodes, BID_WORDS]`
    pub bids: Buffer<u64>,
    /// `[ads, AD_WORDS]`
    pub ads: Buffer<u32>,
    /// Micros by ad, or [`NO_BID`].
    pub ad_bids: Buffer<u64>,
    /// Item ids by ad.
    pub ad_ids: Buffer<u64>,
}

/// A part of the buffers.
#[derive(Debug, Clone, Copy)]
struct Region {
    first_node: usize,
    nodes: usize,
    first_ad: usize,
    ads: usize,
}

struct Catalog {
    /// What the device holds.
    snapshot: Snapshot,
    tree: Tree,
}

/// What is uploaded of ads.
#[derive(Default)]
struct NewAds {
    items: Vec<u32>,
    bids: Vec<u64>,
    ids: Vec<u64>,
}

impl NewAds {
    fn clear(&mut self) {
        self.items.clear();
        self.bids.clear();
        self.ids.clear();
    }

    fn push(&mut self, snapshot: &Snapshot, ads: &Ads<'_>) {
        for p in 0..ads.len() {
            let item = ads.item(p);
            self.items.push(item);
            self.bids.push(bid_word(ads.bid(p)));
            self.ids.push(snapshot.id(item));
        }
    }
}

fn bid_word(bid: Option<Micros>) -> u64 {
    bid.map_or(NO_BID, |bid| bid.0)
}

impl Forest {
    /// Room for `requests` requests that name `candidates` ads each.
    pub(super) fn new(
        stream: &Arc<dyn Stream>,
        layers: usize,
        requests: usize,
        candidates: usize,
    ) -> Result<Self, DeviceError> {
        let ads = requests * candidates;
        let named =
            Region { first_node: 0, nodes: Tries::most_nodes(layers, requests, ads), first_ad: 0, ads };
        Ok(Self {
            tables: Tables::new(stream, layers, named.nodes, named.ads)?,
            named,
            catalog: None,
            touched: Buffer::new(stream, MAX_UPDATES)?,
            new_bids: Buffer::new(stream, MAX_UPDATES)?,
            tries: Tries::new(layers),
            named_ads: NewAds::default(),
        })
    }

    /// The forest in device memory.
    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// How often the tables moved in device memory.
    pub(super) fn moves(&self) -> u64 {
        self.tables.moves
    }

    /// Device memory it holds.
    pub(super) fn bytes(&self) -> usize {
        self.tables.bytes() + self.touched.bytes() + self.new_bids.bytes()
    }

    /// Holds the ads of these requests, one tree for each; those that ask for all ads share one, and so must their
    /// snapshots be the same.
    pub(super) fn hold<'s>(
        &mut self,
        requests: impl Iterator<Item = (&'s Snapshot, &'s Ads<'s>)>,
    ) -> Result<Vec<Tree>, DeviceError> {
        self.tries.clear();
        self.named_ads.clear();
        let mut trees = Vec::new();
        for (snapshot, ads) in requests {
            if ads.is_all() {
                trees.push(self.hold_catalog(snapshot)?);
                continue;
            }
            let first_ad = self.named_ads.items.len() as u32;
            let root = self.tries.push_root((0..ads.len()).map(|p| ads.codes(p))) as u32;
            self.named_ads.push(snapshot, ads);
            trees.push(Tree { root, first_ad, ads: ads.len() as u32 });
        }
        self.tables.store(self.named, &self.tries, &self.named_ads)?;
        Ok(trees)
    }

    /// The tree of all ads of `snapshot`: made on first use and when ads were added, else only brought up to date.
    pub(super) fn hold_catalog(&mut self, snapshot: &Snapshot) -> Result<Tree, DeviceError> {
        // Where a call fails half-way, nothing is held.
        let held = self.catalog.take();
        let changes = held.and_then(|held| Some((held.tree, snapshot.changed_bids(&held.snapshot)?)));
        let tree = match changes {
            Some((tree, changes)) => {
                self.update(tree, &changes)?;
                tree
            }
            None => self.build_catalog(snapshot)?,
        };
        self.catalog = Some(Catalog { snapshot: snapshot.clone(), tree });
        Ok(tree)
    }

    fn build_catalog(&mut self, snapshot: &Snapshot) -> Result<Tree, DeviceError> {
        let all = Ads::all(snapshot);
        let mut tries = Tries::new(self.tables.layers);
        tries.push_root((0..all.len()).map(|p| all.codes(p)));
        let mut ads = NewAds::default();
        ads.push(snapshot, &all);
        let region = Region {
            first_node: self.named.nodes,
            nodes: tries.nodes(),
            first_ad: self.named.ads,
            ads: all.len(),
        };
        self.tables.reserve(region)?;
        self.tables.store(region, &tries, &ads)?;
        Ok(Tree { root: region.first_node as u32, first_ad: region.first_ad as u32, ads: all.len() as u32 })
    }

    /// Brings the bids of the catalog's ads at these positions, ascending, up to date.
    fn update(&mut self, tree: Tree, changes: &[(u32, Option<Micros>)]) -> Result<(), DeviceError> {
        for changes in changes.chunks(MAX_UPDATES) {
            let touched: Vec<u32> = changes.iter().map(|&(position, _)| tree.first_ad + position).collect();
            let bids: Vec<u64> = changes.iter().map(|&(_, bid)| bid_word(bid)).collect();
            self.touched.upload(0, &touched)?;
            self.new_bids.upload(0, &bids)?;
            self.tables.update(self.touched.ptr(), self.new_bids.ptr(), changes.len() as u32)?;
        }
        Ok(())
    }
}

impl Tables {
    fn new(stream: &Arc<dyn Stream>, layers: usize, nodes: usize, ads: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            stream: stream.clone(),
            layers,
            moves: 0,
            nodes: Buffer::new(stream, nodes * NODE_WORDS)?,
            bids: Buffer::new(stream, nodes * BID_WORDS)?,
            ads: Buffer::new(stream, ads * AD_WORDS)?,
            ad_bids: Buffer::new(stream, ads)?,
            ad_ids: Buffer::new(stream, ads)?,
        })
    }

    fn bytes(&self) -> usize {
        self.nodes.bytes() + self.bids.bytes() + self.ads.bytes() + self.ad_bids.bytes() + self.ad_ids.bytes()
    }

    /// Makes room up to the end of `region`. What is there may be lost.
    fn reserve(&mut self, region: Region) -> Result<(), DeviceError> {
        let (nodes, ads) = (region.first_node + region.nodes, region.first_ad + region.ads);
        if u32::try_from(nodes).is_err() {
            return Err(DeviceError::Failed {
                device: self.stream.describe(),
                call: "search".into(),
                message: format!("the trie over {} ads has {nodes} nodes, too many for 32 bits", region.ads),
            });
        }
        if self.ad_ids.len() >= ads && self.nodes.len() >= nodes * NODE_WORDS {
            return Ok(());
        }
        // The old tables go first: of a large catalog two may not fit. A little more than asked for, so that a
        // growing catalog does not move with every ad.
        let (stream, moves) = (self.stream.clone(), self.moves + 1);
        *self = Self { moves, ..Self::new(&stream, self.layers, 0, 0)? };
        let tables = Self::new(&stream, self.layers, nodes + region.nodes / 8, ads + region.ads / 8)?;
        *self = Self { moves, ..tables };
        Ok(())
    }

    /// Uploads tries and adds up the bids behind their nodes.
    fn store(&mut self, region: Region, tries: &Tries, ads: &NewAds) -> Result<(), DeviceError> {
        let words = tries.words(region.first_node, region.first_ad);
        self.nodes.upload(region.first_node * NODE_WORDS, &words)?;
        let leaves = tries.leaves(region.first_node);
        let ad_words: Vec<u32> = leaves.zip(&ads.items).flat_map(|(leaf, &item)| [leaf, item]).collect();
        self.ads.upload(region.first_ad * AD_WORDS, &ad_words)?;
        self.ad_bids.upload(region.first_ad, &ads.bids)?;
        self.ad_ids.upload(region.first_ad, &ads.ids)?;
        for layer in (0..self.layers).rev() {
            let nodes = tries.layer(layer);
            let count = nodes.len() as u32;
            if count == 0 {
                continue;
            }
            bid_max::sum_nodes(
                &*self.stream,
                LaunchShape::new([count.div_ceil(WARPS), 1, 1], THREADS),
                self.nodes.ptr(),
                self.ad_bids.ptr(),
                self.bids.ptr_mut(),
                (region.first_node + nodes.start) as u32,
                count,
                u32::from(layer + 1 == self.layers),
            )?;
        }
        Ok(())
    }

    /// Sets the bids of `count` touched ads and adds up every node above them.
    fn update(&mut self, touched: Ptr<u32>, bids: Ptr<u64>, count: u32) -> Result<(), DeviceError> {
        bid_max::scatter_bids(
            &*self.stream,
            LaunchShape::new([count.div_ceil(THREADS), 1, 1], THREADS),
            touched,
            bids,
            self.ad_bids.ptr_mut(),
            count,
        )?;
        for hops in 1..=self.layers {
            bid_max::sum_touched(
                &*self.stream,
                LaunchShape::new([count.div_ceil(WARPS), 1, 1], THREADS),
                self.nodes.ptr(),
                self.ads.ptr(),
                self.ad_bids.ptr(),
                self.bids.ptr_mut(),
                touched,
                count,
                hops as u32,
            )?;
        }
        Ok(())
    }
}
