//! The lists of a batch, read back.

use super::layout::{NONE, Progress};
use super::{Member, Search};
use crate::cuda::launch::{Buffer, Element};
use crate::decode::search::{CandidateList, Chosen};
use crate::error::{DeviceError, RequestError, RequestErrorKind};

/// The lists of a batch, on the host.
pub(super) struct Results {
    progress: Vec<u32>,
    items: Vec<u32>,
    ads: Vec<u32>,
    ln_zs: Vec<f64>,
    scores: Vec<f64>,
    paths: Vec<u32>,
}

impl Results {
    pub(super) fn download(search: &Search) -> Result<Self, DeviceError> {
        let (tables, requests) = (&search.tables, search.batch.requests.len());
        let lists = requests * search.batch.rows;
        let (slots, positions) = (search.batch.slots, search.positions());
        Ok(Self {
            progress: read(&tables.progress, requests * Progress::WORDS)?,
            items: read(&tables.items, lists * slots)?,
            ads: read(&tables.list_ads, lists * slots)?,
            ln_zs: read(&tables.ln_zs, lists * slots)?,
            scores: read(&tables.scores, lists)?,
            paths: read(&tables.paths, lists * positions)?,
        })
    }

    /// The lists of one request.
    pub(super) fn of(&self, search: &Search, request: usize) -> Result<Vec<CandidateList>, RequestError> {
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
