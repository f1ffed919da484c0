//! The engine: a model, a catalog and a device, and requests to allocate.

mod allocation;
mod builder;
mod device;
mod generation;
mod payments;
mod workspace;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

pub use builder::{CatalogSource, EngineBuilder};
pub use device::Device;

use crate::catalog::{Catalog, Snapshot};
use crate::cpu::{Exec, Isa, Team};
use crate::error::RequestError;
use crate::model::Model;
use crate::model::config::ModelConfig;
use crate::request::Request;
use crate::response::Response;
use workspace::{Workspace, WorkspacePool};

/// The largest requests an engine takes. Memory is allocated for these once, when it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests worked on at the same time; more wait for their turn.
    pub batch: usize,
    /// Behaviours that enter the encoder; at most the model's `history_len`.
    pub history: usize,
    /// Beams.
    pub beams: usize,
    /// Candidates named by a request, and organic items named by it.
    pub candidates: usize,
    /// Slots; at most the model's `list_len`.
    pub slots: usize,
}

/// Bytes that an engine holds, as announced when it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Packed weights.
    pub weights: usize,
    /// Catalog columns and indexes, without the memory-mapped embeddings.
    pub catalog: usize,
    /// Workspaces of all requests in flight.
    pub workspaces: usize,
    /// Weights file, mapped while the engine is built and released before the workspaces are made.
    pub loading: usize,
}

impl Memory {
    /// Bytes held while serving.
    pub fn total(&self) -> usize {
        self.weights + self.catalog + self.workspaces
    }

    /// Most bytes held at any time, building included.
    pub fn peak(&self) -> usize {
        self.total().max(self.weights + self.loading)
    }
}

/// What to report besides the answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// [`Response::timings`].
    pub timings: bool,
    /// [`Response::quotes`].
    pub quotes: bool,
    /// [`Response::trace`].
    pub trace: bool,
}

/// A model, a catalog and a device. Shared by as many threads as like to.
pub struct Engine {
    model: Model,
    catalog: Catalog,
    limits: Limits,
    isa: Isa,
    pool: Option<rayon::ThreadPool>,
    workspaces: WorkspacePool,
    memory: Memory,
}

impl Engine {
    /// Starts to build an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// The model's sizes and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    /// Where the weights come from, as their file says.
    pub fn origin(&self) -> Option<&str> {
        self.model.origin.as_deref()
    }

    /// The catalog; updates through it are seen by the requests that start after them.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The limits it was built for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The memory it holds.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Answers requests, each on its own: a response depends on the weights, the catalog and the request, not on
    /// the other requests, the number of threads or what ran before. All see one catalog snapshot.
    ///
    /// # Errors
    /// A request that is refused has its error in its place; its neighbours are answered.
    pub fn allocate(&self, requests: &[Request]) -> Vec<Result<Response, RequestError>> {
        self.allocate_with(requests, Report::default())
    }

    /// [`Engine::allocate`], with what `report` asks for added to the responses.
    pub fn allocate_with(&self, requests: &[Request], report: Report) -> Vec<Result<Response, RequestError>> {
        let snapshot = &*self.catalog.snapshot();
        // Without a pool there is only the caller's thread, and one workspace is all that it can use.
        let most = if self.pool.is_some() { requests.len() } else { 1 };
        let mut loan = self.workspaces.lend(most);
        // Whole requests side by side as far as they go round, the threads together on each of the rest.
        let lanes = loan.workspaces.len();
        let side_by_side = if lanes > 1 { requests.len() / lanes * lanes } else { 0 };
        let (first, rest) = requests.split_at(side_by_side);
        let mut out = self.run_side_by_side(first, &mut loan.workspaces, snapshot, report);
        for request in rest {
            let workspace = &mut loan.workspaces[0];
            out.push(match &self.pool {
                None => self.run(None, workspace, request, snapshot, report),
                Some(pool) => pool.install(|| {
                    Team::assemble(pool, |team| self.run(Some(team), workspace, request, snapshot, report))
                }),
            });
        }
        out
    }

    /// One request per workspace and thread at a time, taken in order.
    fn run_side_by_side(
        &self,
        requests: &[Request],
        workspaces: &mut [Workspace],
        snapshot: &Snapshot,
        report: Report,
    ) -> Vec<Result<Response, RequestError>> {
        let (Some(pool), false) = (&self.pool, requests.is_empty()) else { return Vec::new() };
        let next = AtomicUsize::new(0);
        let answers: Vec<_> = requests.iter().map(|_| Mutex::new(None)).collect();
        pool.scope(|scope| {
            for workspace in workspaces {
                let (next, answers) = (&next, &answers);
                scope.spawn(move |_| {
                    while let Some((request, answer)) = take(next, requests, answers) {
                        let response = self.run(None, workspace, request, snapshot, report);
                        *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
                    }
                });
            }
        });
        // Every answer is there: the scope ends when the last request is done.
        answers.into_iter().filter_map(|a| a.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    fn exec<'t>(&self, team: Option<&'t Team>) -> Exec<'t> {
        Exec { isa: self.isa, team }
    }
}

/// The next request that nobody has taken, and the place of its answer.
fn take<'a, T>(
    next: &AtomicUsize,
    requests: &'a [Request],
    answers: &'a [T],
) -> Option<(&'a Request, &'a T)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    requests.get(i).zip(answers.get(i))
}

/// Runs `work` and adds its wall time to `micros`.
fn timed<T>(micros: &mut u64, work: impl FnOnce() -> T) -> T {
    let start = std::time::Instant::now();
    let out = work();
    *micros += u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    out
}
