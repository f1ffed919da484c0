//! A recorded request, answered again.

use super::allocation::AllocationRecord;
use super::compare::{Difference, differences};
use super::state::CatalogState;
use crate::catalog::Snapshot;
use crate::engine::{Engine, Limits, Report};
use crate::error::{RequestError, UpdateError};
use crate::model::config::ModelConfig;
use crate::request::{Audit, Candidates, Request};

/// A record that cannot be replayed on this catalog or engine.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// The catalog does not have what the record's bids are for.
    #[error("the catalog is not the recorded one: {0}")]
    Catalog(#[from] UpdateError),
    /// The request is refused now.
    #[error("the request is refused: {0}")]
    Refused(#[from] RequestError),
}

impl AllocationRecord {
    /// Answers the request again, from the catalog `opened` with the bids of the record; every field that is not the
    /// same to the bit. The engine's version and the catalog's are not compared, all else is.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn replay(&self, engine: &Engine, opened: &Snapshot) -> Result<Vec<Difference>, ReplayError> {
        let snapshot = opened.with(&self.catalog.updates(&self.request))?;
        // What an audit finds is not on record.
        let request = Request { audit: Audit::None, ..self.request.clone() };
        let report = Report { grounds: true, ..Report::default() };
        let mut answers = engine.allocate_on(&snapshot, std::slice::from_ref(&request), report);
        let response = answers.pop().unwrap_or_else(|| unreachable!("one answer for one request"))?;
        let bids = self.catalog.bids.map(|_| snapshot.bids_digest());
        let state = CatalogState { bids, ..self.catalog.clone() };
        let mut now = Self::new(engine, &self.request, &response, state);
        now.engine.clone_from(&self.engine);
        Ok(differences(self, &now))
    }

    /// Room for the request in an engine of this configuration.
    pub fn limits(&self, config: &ModelConfig) -> Limits {
        let request = &self.request;
        let named = match &request.candidates {
            Candidates::All => 0,
            Candidates::Items(items) => items.len(),
        };
        Limits {
            batch: 1,
            history: request.history.len().min(config.history_len),
            beams: request.beam_width.unwrap_or(config.beam_width),
            candidates: named.max(request.organic.len()),
            slots: request.list_len.unwrap_or(config.list_len).min(config.list_len),
        }
    }
}
