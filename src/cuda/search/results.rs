//! The lists of a batch, read back.

use super::layout::{NONE, Progress};
use super::{Member, Search};
use crate::cuda::launch::{Buffer, Download, Element};
use crate::decode::search::{CandidateList, Chosen};
use crate::error::{DeviceError, RequestError, RequestErrorKind};

/// Room on the host for what a batch of searches found, and then that.
pub struct Results {
    progress: Vec<u32>,
    items: Vec<u32>,
    ads: Vec<u32>,
    ln_zs: Vec<f64>,
    scores: Vec<f64>,
    paths: Vec<u32>,
}

impl Results {
    pub(super) fn new(search: &Search) -> Self {
        let requests = search.batch.requests.len();
        let lists = requests * search.batch.rows;
        let (slots, positions) = (search.batch.slots, search.positions());
        Self {
            progress: vec![0; requests * Progress::WORDS],
            items: vec![0; lists * slots],
            ads: vec![0; lists * slots],
            ln_zs: vec![0.0; lists * slots],
            scores: vec![0.0; lists],
            paths: vec![0; lists * positions],
        }
    }

    /// The copies that bring it here.
    pub fn downloads(&mut self, search: &Search) -> [Download<'_>; 6] {
        let tables = &search.tables;
        [
            tables.progress.reading(0, &mut self.progress),
            tables.items.reading(0, &mut self.items),
            tables.list_ads.reading(0, &mut self.ads),
            tables.ln_zs.reading(0, &mut self.ln_zs),
            tables.scores.reading(0, &mut self.scores),
            tables.paths.reading(0, &mut self.paths),
        ]
    }

    /// The lists of each request, best beam first, or what is wrong with its logits.
    pub fn lists(&self, search: &Search) -> Vec<Result<Vec<CandidateList>, RequestError>> {
        (0..search.batch.requests.len()).map(|request| self.of(search, request)).collect()
    }

    fn of(&self, search: &Search, request: usize) -> Result<Vec<CandidateList>, RequestError> {
        let progress = Progress::of(&self.progress, request);
        if let Some(fault) = progress.fault(search.codes) {
            return Err(RequestError::new(
                RequestErrorKind::NotFinite,
                "history",
                format!("the logit of code {} at position {} is {}", fault.code, fault.step, fault.logit),
            ));
        }
        let first = request * search.batch.rows;
        let member = &search.batch.requests[request];
        Ok((first..first + progress.beams()).map(|list| self.list(search, member, list)).collect())
    }

    fn list(&self, search: &Search, member: &Member, list: usize) -> CandidateList {
        let (slots, positions) = (search.batch.slots, search.positions());
        let items = (list * slots..list * slots + member.list_len)
            .take_while(|&at| self.items[at] != NONE)
            .map(|at| Chosen {
                item: self.items[at],
                position: (self.ads[at] != NONE).then(|| self.ads[at] - member.tree.first_ad),
                ln_z: self.ln_zs[at],
            })
            .collect();
        let path = &self.paths[list * positions..(list + 1) * positions];
        CandidateList {
            items,
            score: self.scores[list],
            path: path.iter().copied().take_while(|&row| row != NONE).collect(),
        }
    }
}

/// Waits, and reads the first `len` elements.
pub(super) fn read<T: Element>(buffer: &Buffer<T>, len: usize) -> Result<Vec<T>, DeviceError> {
    let mut values = vec![T::zeroed(); len];
    buffer.download(0, &mut values)?;
    Ok(values)
}
