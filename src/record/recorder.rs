//! An engine whose answers are on record before they are handed out.

use std::path::Path;
use std::sync::Arc;

use super::Record;
use super::allocation::AllocationRecord;
use super::state::CatalogState;
use super::writer::{RecordError, RecordWriter};
use crate::catalog::Snapshot;
use crate::digest::Digest;
use crate::engine::{Engine, Report};
use crate::error::RequestError;
use crate::request::{Candidates, Request};
use crate::response::Response;

/// Answers requests and keeps a record of every answer.
pub struct Recorder<'e> {
    engine: &'e Engine,
    writer: RecordWriter,
    /// The catalog as its file says; none where it had changed before.
    opened: Option<Arc<Snapshot>>,
    /// Version of a snapshot and the digest of its bids.
    digest: Option<(u64, Digest)>,
}

impl<'e> Recorder<'e> {
    /// Records the answers of `engine` in the file `path`, after what it holds. To be made before the catalog changes:
    /// later, records of requests for all ads do not say what changed.
    ///
    /// # Errors
    /// [`RecordError`] where the file cannot be opened, or another writer holds it.
    pub fn open(engine: &'e Engine, path: &Path) -> Result<Self, RecordError> {
        let snapshot = engine.catalog().snapshot();
        let opened = (snapshot.version() == 1).then_some(snapshot);
        Ok(Self { engine, writer: RecordWriter::open(path)?, opened, digest: None })
    }

    /// The file.
    pub fn writer(&self) -> &RecordWriter {
        &self.writer
    }

    /// [`Engine::allocate_with`]; the records of all answers are on the disk when it returns. A request that is refused
    /// leaves none.
    ///
    /// # Errors
    /// [`RecordError`] where the records cannot be written. There are no answers then, whatever the file has of them.
    pub fn allocate(
        &mut self,
        requests: &[Request],
        report: Report,
    ) -> Result<Vec<Result<Response, RequestError>>, RecordError> {
        let snapshot = self.engine.catalog().snapshot();
        let with_grounds = Report { grounds: true, ..report };
        let mut answers = self.engine.allocate_on(&snapshot, requests, with_grounds);
        let mut records = Vec::with_capacity(answers.len());
        for (request, answer) in requests.iter().zip(&mut answers) {
            let Ok(response) = answer else { continue };
            records.push(self.record(request, response, &snapshot));
            response.grounds.take_if(|_| !report.grounds);
        }
        self.writer.append(&records)?;
        Ok(answers)
    }

    fn record(&mut self, request: &Request, response: &Response, snapshot: &Snapshot) -> Record {
        if request.candidates == Candidates::All && self.digest.is_none_or(|(v, _)| v != snapshot.version()) {
            self.digest = Some((snapshot.version(), snapshot.bids_digest()));
        }
        let digest = self.digest.filter(|_| request.candidates == Candidates::All).map(|(_, digest)| digest);
        let state = CatalogState::of(request, response, snapshot, self.opened.as_deref(), digest);
        Record::Allocation(Box::new(AllocationRecord::new(self.engine, request, response, state)))
    }
}
