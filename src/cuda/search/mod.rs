//! The search of `crate::decode::search`, wholly on a device: its twin, list for list and bit for bit.
//!
//! A batch of requests goes through every step together. The host names the requests ([`Search::begin`]) and reads the
//! lists ([`Search::results`]); in between it only launches, the same kernels with the same arguments at every step, so
//! that a step can be recorded once and replayed.

mod begin;
pub mod bid_max;
pub mod code_weights;
pub mod expand;
mod forest;
pub mod gather_lists;
mod layout;
pub mod open_search;
mod results;
pub mod select;
pub mod step_hopper;
mod tables;
mod trie;

use std::sync::Arc;

use crate::catalog::Snapshot;
use crate::cuda::beam_attention_hopper::Cluster;
use crate::cuda::launch::{Buffer, LaunchShape, Ptr, Stream};
use crate::cuda::lists::MAX_SLOTS;
use crate::cuda::persistent_search::SearchArrays;
use crate::cuda::tiling::size;
use crate::decode::candidates::Ads;
use crate::decode::search::SearchRules;
use crate::error::DeviceError;
use crate::model::config::{BOI, SPECIAL_TOKENS};
use forest::{Forest, Tree};
pub use results::Results;
use results::read;
pub use step_hopper::Head;
use step_hopper::StepSizes;
use tables::Tables;

/// The most beams of a request: one thread of a block continues one.
pub const MAX_BEAMS: usize = 1024;

/// What a [`Search`] has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchLimits {
    /// Requests in a batch.
    pub requests: usize,
    /// Beams of a request, at most [`MAX_BEAMS`].
    pub beams: usize,
    /// Slots of a list, at most [`MAX_SLOTS`].
    pub slots: usize,
    /// Ads that a request names, and its organic items.
    pub candidates: usize,
}

/// One request of a batch.
#[derive(Clone, Copy)]
pub struct SearchRequest<'a> {
    /// The rules of its search.
    pub rules: &'a SearchRules,
    /// The catalog that it sees.
    pub snapshot: &'a Snapshot,
    /// The ads that it may show.
    pub ads: &'a Ads<'a>,
    /// Its organic items (rows of the snapshot) in their order.
    pub organic: &'a [u32],
    /// An ad, by position in `ads`, that no list may show.
    pub excluded: Option<u32>,
}

/// What the decoder is given at a step, on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// The step.
    pub position: u32,
    /// [`Search::tokens`].
    pub tokens: Vec<u32>,
    /// [`Search::ancestors`].
    pub ancestors: Vec<u32>,
}

/// The searches of a batch, in memory made once.
pub struct Search {
    stream: Arc<dyn Stream>,
    limits: SearchLimits,
    layers: usize,
    codes: usize,
    forest: Forest,
    tables: Tables,
    batch: Batch,
}

/// The lists of a batch in device memory, best beam first: those of request q of R are lists q N to q N + N - 1.
#[derive(Clone, Copy)]
pub struct SearchedLists<'a> {
    /// R: requests.
    pub requests: usize,
    /// N: room for lists of each.
    pub per_request: usize,
    /// S: slots of the longest list that was asked for.
    pub slots: usize,
    /// C_p: code layers of an item.
    pub layers: usize,
    /// P: entries of a path.
    pub positions: usize,
    /// Lists of each request, `[R]`; 0 where its logits were not finite.
    pub counts: &'a Buffer<u32>,
    /// Items as rows of the snapshot, `[R, N, S]`, `u32::MAX` behind the last.
    pub items: &'a Buffer<u32>,
    /// The ads among them, in `ad_bids`, `[R, N, S]`, `u32::MAX` for organic items.
    pub ads: &'a Buffer<u32>,
    /// ln z of the items, `[R, N, S]`.
    pub ln_z: &'a Buffer<f64>,
    /// Score of every list, `[R, N]`.
    pub scores: &'a Buffer<f64>,
    /// The row that ran the prefix of every list at each position, `[R, N, P]`, `u32::MAX` behind the last.
    pub paths: &'a Buffer<u32>,
    /// Bids of ads in micros.
    pub ad_bids: &'a Buffer<u64>,
}

/// The batch at hand.
#[derive(Default)]
struct Batch {
    /// N: rows of each request.
    rows: usize,
    /// Slots of the longest list.
    slots: usize,
    requests: Vec<Member>,
}

struct Member {
    tree: Tree,
    list_len: usize,
}

/// Threads of a block of the kernels that run over codes, and of `expand`, where codes are many.
const THREADS: u32 = 256;

impl Search {
    /// Room for searches over `code_layers` layers of `codebook_size` codes.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], and [`DeviceError::Failed`] where a limit is 0 or above what the kernels take.
    pub fn new(
        stream: &Arc<dyn Stream>,
        limits: SearchLimits,
        code_layers: usize,
        codebook_size: usize,
    ) -> Result<Self, DeviceError> {
        let SearchLimits { requests, beams, slots, candidates } = limits;
        let in_range = (1..=65_535).contains(&requests)
            && (1..=MAX_BEAMS).contains(&beams)
            && (1..=MAX_SLOTS).contains(&slots)
            && code_layers > 0
            && (1..=65_536).contains(&codebook_size);
        if !in_range {
            return Err(refused(
                &**stream,
                format!("{limits:?}, {code_layers} layers of {codebook_size} codes: out of range"),
            ));
        }
        Ok(Self {
            stream: stream.clone(),
            limits,
            layers: code_layers,
            codes: codebook_size,
            forest: Forest::new(stream, code_layers, requests, candidates)?,
            tables: Tables::new(stream, &limits, code_layers, codebook_size)?,
            batch: Batch::default(),
        })
    }

    /// Device memory it holds. It grows once, by the catalog, when a request first asks for all ads.
    pub fn bytes(&self) -> usize {
        self.forest.bytes() + self.tables.bytes()
    }

    /// Holds all ads of a snapshot, so that the first request that asks for them does not wait, and no memory is
    /// allocated for them then.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], [`DeviceError::Failed`].
    pub fn hold_all(&mut self, snapshot: &Snapshot) -> Result<(), DeviceError> {
        self.forest.hold_catalog(snapshot).map(|_| ())
    }

    /// How often its tables moved in device memory: what was recorded before ([`Stream::capture`]) is stale after.
    pub fn moves(&self) -> u64 {
        self.forest.moves()
    }

    /// One step of every request, given the logits `[R, N, W]` of its rows; a request that is over stays as it is.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn advance(&mut self, logits: Ptr<f32>) -> Result<(), DeviceError> {
        let (layers, codes, positions) = (self.layers as u32, self.codes as u32, self.positions() as u32);
        let (rows, per_request) = (self.batch.rows as u32, self.block_per_request());
        let per_beam = self.block_per_beam().shared(layout::expand_shared(self.layers, self.limits.slots));
        let (forest, tables) = (self.forest.tables(), &mut self.tables);
        expand::expand(
            &*self.stream,
            per_beam,
            forest.nodes.ptr(),
            forest.bids.ptr(),
            forest.ads.ptr(),
            forest.ad_bids.ptr(),
            tables.rules.ptr(),
            tables.terms.ptr(),
            tables.organic.ptr(),
            tables.ln_w.ptr(),
            tables.rows.ptr(),
            tables.chosen.ptr(),
            tables.sums.ptr(),
            logits,
            tables.progress.ptr_mut(),
            tables.beams.ptr_mut(),
            tables.ln_z.ptr_mut(),
            tables.best.ptr_mut(),
            layers,
            codes,
            positions,
        )?;
        select::select_beams(
            &*self.stream,
            per_request.shared(layout::select_shared(self.batch.rows)),
            forest.nodes.ptr(),
            forest.ads.ptr(),
            forest.ad_bids.ptr(),
            forest.ad_ids.ptr(),
            tables.rules.ptr(),
            tables.seeds.ptr(),
            tables.organic.ptr(),
            tables.organic_ids.ptr(),
            logits,
            tables.ln_z.ptr(),
            tables.best.ptr(),
            tables.progress.ptr_mut(),
            tables.beams.ptr_mut(),
            tables.sums.ptr_mut(),
            tables.rows.ptr_mut(),
            tables.chosen.ptr_mut(),
            tables.chosen_ln_z.ptr_mut(),
            tables.tokens.ptr_mut(),
            tables.position.ptr_mut(),
            rows,
            layers,
            codes,
            positions,
            SPECIAL_TOKENS.len() as u32,
            BOI as u32,
        )
    }

    /// How many blocks should share each request in [`Search::step`], for `requests` with `rows` rows of `d` columns each;
    /// none where a request or its codes are too large for a cluster's shared memory.
    pub fn cluster(&self, requests: usize, rows: usize, d: usize) -> Option<Cluster> {
        self.step_sizes(rows, d).cluster(requests, self.stream.shared_bytes())
    }

    /// The head and [`Search::advance`] in one launch, by a cluster of blocks for each request. The bits are the same
    /// in clusters of every size.
    ///
    /// # Errors
    /// [`DeviceError::NotHopper`] on any other card; [`DeviceError::Failed`], also where the cluster's shared memory is
    /// too small: see [`Search::cluster`].
    ///
    /// # Panics
    /// If the head does not have the rows of this batch.
    pub fn step(&mut self, cluster: Cluster, head: Head) -> Result<(), DeviceError> {
        let (rows, requests) = (self.batch.rows, self.batch.requests.len());
        assert_eq!(head.rows.m, rows * requests, "rows of the head");
        self.stream.hopper()?;
        let sizes = self.step_sizes(rows, head.rows.d);
        let blocks = size(cluster as usize);
        let shape = LaunchShape::new([blocks, size(requests), 1], step_hopper::THREADS)
            .shared(size(sizes.shared_bytes(cluster)))
            .clusters(blocks);
        let (forest, tables) = (self.forest.tables(), &mut self.tables);
        step_hopper::search_step_hopper(
            &*self.stream,
            shape,
            head.rows.x,
            head.rows.weight,
            head.w,
            head.hidden,
            forest.nodes.ptr(),
            forest.bids.ptr(),
            forest.ads.ptr(),
            forest.ad_bids.ptr(),
            forest.ad_ids.ptr(),
            tables.rules.ptr(),
            tables.terms.ptr(),
            tables.seeds.ptr(),
            tables.organic.ptr(),
            tables.organic_ids.ptr(),
            tables.ln_w.ptr(),
            tables.progress.ptr_mut(),
            tables.beams.ptr_mut(),
            tables.sums.ptr_mut(),
            tables.rows.ptr_mut(),
            tables.chosen.ptr_mut(),
            tables.chosen_ln_z.ptr_mut(),
            tables.tokens.ptr_mut(),
            tables.position.ptr_mut(),
            size(rows),
            size(sizes.layers),
            size(sizes.codes),
            size(sizes.positions),
            size(SPECIAL_TOKENS.len()),
            size(BOI),
            size(sizes.d),
            head.rows.eps,
        )
    }

    fn step_sizes(&self, rows: usize, d: usize) -> StepSizes {
        StepSizes { rows, codes: self.codes, layers: self.layers, positions: self.positions(), d }
    }

    /// What one launch that runs all steps works with; see [`persistent_search`](crate::cuda::persistent_search).
    pub fn arrays(&mut self) -> SearchArrays {
        let (forest, tables) = (self.forest.tables(), &mut self.tables);
        SearchArrays {
            nodes: forest.nodes.ptr(),
            bids: forest.bids.ptr(),
            ads: forest.ads.ptr(),
            ad_bids: forest.ad_bids.ptr(),
            ad_ids: forest.ad_ids.ptr(),
            rules: tables.rules.ptr(),
            terms: tables.terms.ptr(),
            seeds: tables.seeds.ptr(),
            organic: tables.organic.ptr(),
            organic_ids: tables.organic_ids.ptr(),
            ln_w: tables.ln_w.ptr(),
            progress: tables.progress.ptr_mut(),
            beams: tables.beams.ptr_mut(),
            sums: tables.sums.ptr_mut(),
            rows: tables.rows.ptr_mut(),
            chosen: tables.chosen.ptr_mut(),
            chosen_ln_z: tables.chosen_ln_z.ptr_mut(),
            ln_z: tables.ln_z.ptr_mut(),
            best: tables.best.ptr_mut(),
            tokens: tables.tokens.ptr_mut(),
            position: tables.position.ptr_mut(),
        }
    }

    /// Writes the lists to [`Search::searched`], after the last step.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn finish(&mut self) -> Result<(), DeviceError> {
        let shape = self.block_per_beam();
        let (layers, positions) = (self.layers as u32, self.positions() as u32);
        let tables = &mut self.tables;
        gather_lists::gather_lists(
            &*self.stream,
            shape,
            tables.rules.ptr(),
            tables.progress.ptr(),
            tables.beams.ptr(),
            tables.sums.ptr(),
            tables.rows.ptr(),
            tables.chosen.ptr(),
            tables.chosen_ln_z.ptr(),
            tables.counts.ptr_mut(),
            tables.items.ptr_mut(),
            tables.list_ads.ptr_mut(),
            tables.ln_zs.ptr_mut(),
            tables.scores.ptr_mut(),
            tables.paths.ptr_mut(),
            self.batch.slots as u32,
            layers,
            positions,
        )
    }

    /// Room for what [`Search::finish`] wrote, to be brought to the host.
    pub fn results(&self) -> Results {
        Results::new(self)
    }

    /// Waits, and reads what the decoder is given at this step; for traces.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn inputs(&self) -> Result<Inputs, DeviceError> {
        let rows = self.batch.requests.len() * self.batch.rows;
        Ok(Inputs {
            position: read(&self.tables.position, 1)?[0],
            tokens: read(&self.tables.tokens, rows)?,
            ancestors: read(&self.tables.rows, rows * self.positions())?,
        })
    }

    /// Input token of every row at this step, `[R, N]`. Rows that are not in use hold a valid token.
    pub fn tokens(&self) -> Ptr<u32> {
        self.tables.tokens.ptr()
    }

    /// For every row `[R, N]` the row (0 to N - 1) of its request that ran its prefix at each position,
    /// `[positions]`; the entry of this step is the row itself. Rows that are not in use hold valid rows.
    pub fn ancestors(&self) -> Ptr<u32> {
        self.tables.rows.ptr()
    }

    /// Entries of each row of [`Search::ancestors`] and of a path: C_p times the most slots, plus 1.
    pub fn positions(&self) -> usize {
        self.limits.slots * self.layers + 1
    }

    /// The step that the rows are at, `[1]`.
    pub fn position(&self) -> Ptr<u32> {
        self.tables.position.ptr()
    }

    /// Where [`Search::finish`] writes the lists of this batch.
    pub fn searched(&self) -> SearchedLists<'_> {
        let tables = &self.tables;
        SearchedLists {
            requests: self.batch.requests.len(),
            per_request: self.batch.rows,
            slots: self.batch.slots,
            layers: self.layers,
            positions: self.positions(),
            counts: &tables.counts,
            items: &tables.items,
            ads: &tables.list_ads,
            ln_z: &tables.ln_zs,
            scores: &tables.scores,
            paths: &tables.paths,
            ad_bids: &self.forest.tables().ad_bids,
        }
    }

    fn block_per_beam(&self) -> LaunchShape {
        // Of few codes a warp or two can take all.
        let threads = (self.codes as u32 + 1).next_multiple_of(32).min(THREADS);
        LaunchShape::new([self.batch.rows as u32, self.batch.requests.len() as u32, 1], threads)
    }

    fn block_per_request(&self) -> LaunchShape {
        // At least one thread for each beam; more share the ways on.
        let threads = (self.batch.rows as u32 * 4).next_multiple_of(32).clamp(64, MAX_BEAMS as u32);
        LaunchShape::new([1, self.batch.requests.len() as u32, 1], threads)
    }
}

fn refused(stream: &dyn Stream, message: String) -> DeviceError {
    DeviceError::Failed { device: stream.describe(), call: "search".into(), message }
}
