//! The start of a batch: what its requests may show and how goes to the device, with the weights of codes that no step
//! changes and one empty beam for each request.

use super::{Member, Search, SearchRequest, THREADS, code_weights, layout, open_search, refused};
use crate::cuda::launch::LaunchShape;
use crate::cuda::search::forest::Tree;
use crate::error::DeviceError;
use crate::model::config::BOI;

/// Blocks for each request that tallies its ads by code.
const TALLY_BLOCKS: u32 = 64;

impl Search {
    /// Begins the searches of a batch: uploads what the requests may show and how, and opens one empty beam for each.
    /// `rows` is N, the decoder rows of every request: at least the widest beam.
    ///
    /// Requests that ask for all ads must have the same snapshot.
    ///
    /// # Errors
    /// [`DeviceError::Failed`] where the batch is empty or beyond the limits, or the device fails.
    pub fn begin(&mut self, requests: &[SearchRequest<'_>], rows: usize) -> Result<(), DeviceError> {
        self.check(requests, rows)?;
        self.batch.requests.clear();
        self.batch.rows = rows;
        self.batch.slots = requests.iter().map(|request| request.rules.list_len).max().unwrap_or(0);
        let trees = self.forest.hold(requests.iter().map(|request| (request.snapshot, request.ads)))?;
        self.upload(requests, &trees)?;
        self.batch.requests.extend(
            trees
                .into_iter()
                .zip(requests)
                .map(|(tree, request)| Member { tree, list_len: request.rules.list_len }),
        );
        self.prepare_weights(requests)?;
        open_search::open_search(
            &*self.stream,
            self.block_per_request(),
            self.tables.rules.ptr(),
            self.tables.progress.ptr_mut(),
            self.tables.beams.ptr_mut(),
            self.tables.sums.ptr_mut(),
            self.tables.rows.ptr_mut(),
            self.tables.tokens.ptr_mut(),
            self.tables.position.ptr_mut(),
            rows as u32,
            self.positions() as u32,
            BOI as u32,
        )
    }

    fn check(&self, requests: &[SearchRequest<'_>], rows: usize) -> Result<(), DeviceError> {
        let limits = &self.limits;
        let refuse = |message: String| Err(refused(&*self.stream, message));
        if requests.is_empty() || requests.len() > limits.requests {
            return refuse(format!("{} requests, expected 1 to {}", requests.len(), limits.requests));
        }
        if rows == 0 || rows > limits.beams {
            return refuse(format!("{rows} rows a request, expected 1 to {}", limits.beams));
        }
        let mut version = None;
        for (i, SearchRequest { rules, snapshot, ads, organic, excluded }) in requests.iter().enumerate() {
            let shape = (rules.code_layers, rules.codebook_size);
            let fits = (1..=rows).contains(&rules.beam_width)
                && (1..=limits.slots).contains(&rules.list_len)
                && shape == (self.layers, self.codes)
                && (ads.is_all() || ads.len() <= limits.candidates)
                && organic.len() <= limits.candidates
                && excluded.is_none_or(|position| (position as usize) < ads.len());
            if !fits {
                return refuse(format!("request {i} does not fit into {limits:?}, {rows} rows"));
            }
            if ads.is_all() && *version.get_or_insert(snapshot.version()) != snapshot.version() {
                return refuse(format!("request {i} asks for all ads of another snapshot"));
            }
        }
        Ok(())
    }

    fn upload(&mut self, requests: &[SearchRequest<'_>], trees: &[Tree]) -> Result<(), DeviceError> {
        let (mut rules, mut terms, mut seeds) = (Vec::new(), Vec::new(), Vec::new());
        let (mut organic, mut organic_ids) = (Vec::new(), Vec::new());
        for (request, tree) in requests.iter().zip(trees) {
            rules.extend(layout::rules(request, *tree, organic_ids.len()));
            terms.extend(layout::terms(request.rules));
            seeds.push(request.rules.tie_seed);
            for &item in request.organic {
                organic.push(item);
                organic.extend(request.snapshot.codes(item).iter().copied().map(u32::from));
                organic_ids.push(request.snapshot.id(item));
            }
        }
        let tables = &mut self.tables;
        tables.rules.upload(0, &rules)?;
        tables.terms.upload(0, &terms)?;
        tables.seeds.upload(0, &seeds)?;
        tables.organic.upload(0, &organic)?;
        tables.organic_ids.upload(0, &organic_ids)
    }

    /// The weights of codes that no step changes.
    fn prepare_weights(&mut self, requests: &[SearchRequest<'_>]) -> Result<(), DeviceError> {
        let stream = &*self.stream;
        let (layers, codes, count) = (self.layers as u32, self.codes as u32, requests.len() as u32);
        let (forest, tables) = (self.forest.tables(), &mut self.tables);
        let over_codes = codes.div_ceil(THREADS);
        code_weights::weigh_root(
            stream,
            LaunchShape::new([over_codes, count, 1], THREADS),
            forest.nodes.ptr(),
            forest.bids.ptr(),
            tables.rules.ptr(),
            tables.terms.ptr(),
            tables.ln_w.ptr_mut(),
            layers,
            codes,
        )?;
        if !requests.iter().any(|request| layout::by_code(request.rules)) {
            return Ok(());
        }
        let each_code = LaunchShape::new([over_codes, layers, count], THREADS);
        code_weights::clear_tally(stream, each_code, tables.rules.ptr(), tables.tally.ptr_mut(), codes)?;
        code_weights::tally_codes(
            stream,
            LaunchShape::new([TALLY_BLOCKS, count, 1], THREADS),
            forest.nodes.ptr(),
            forest.ads.ptr(),
            forest.ad_bids.ptr(),
            tables.rules.ptr(),
            tables.organic.ptr(),
            tables.tally.ptr_mut(),
            layers,
            codes,
        )?;
        code_weights::weigh_codes(
            stream,
            each_code,
            tables.rules.ptr(),
            tables.terms.ptr(),
            tables.tally.ptr(),
            tables.ln_w.ptr_mut(),
            codes,
        )
    }
}
