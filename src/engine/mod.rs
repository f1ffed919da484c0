//! The engine: a model, a catalog and a device, and requests to allocate.

mod audit;
mod builder;
mod cached_lists;
mod counterfactual;
mod cpu;
mod creatives;
mod device;
mod generation;
mod gpu;
mod gpu_batch;
mod gpu_lists;
mod gpu_rates;
mod gpu_stages;
mod gpu_workspace;
mod grounds;
mod payments;
mod queue;
mod redecode;
mod task;
mod workspace;

pub use builder::{CatalogSource, EngineBuilder};
pub use device::Device;

pub use crate::cuda::choice::Kernels;

use crate::auction::regret::GammaGrid;
use crate::catalog::{Catalog, Snapshot};
use crate::digest::Digest;
use crate::error::RequestError;
use crate::model::config::ModelConfig;
use crate::request::Request;
use crate::response::Response;
use cpu::CpuBackend;
use gpu::GpuBackend;
use task::Context;

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

/// Bytes that an engine holds, as announced when it is built. On a GPU weights and workspaces are in its memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Packed weights.
    pub weights: usize,
    /// Catalog columns and indexes, without the memory-mapped embeddings.
    pub catalog: usize,
    /// Codes and embeddings of the catalog in the memory of a GPU. While one with more items takes its place there are
    /// both.
    pub device_catalog: usize,
    /// Workspaces of all requests in flight.
    pub workspaces: usize,
    /// Weights file, mapped while the engine is built and released before the workspaces are made.
    pub loading: usize,
}

impl Memory {
    /// Bytes held while serving.
    pub fn total(&self) -> usize {
        self.weights + self.catalog + self.device_catalog + self.workspaces
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
    /// [`Response::grounds`].
    pub grounds: bool,
    /// [`SweepPoint::rate_input`](crate::response::audit::SweepPoint::rate_input) of the requests that ask for an audit.
    pub rate_inputs: bool,
}

/// How an engine audits the requests that ask for it.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditOptions {
    /// Factors by which an ad's bid is misreported.
    pub gammas: GammaGrid,
    /// Searches that `redecode` runs side by side.
    pub searches: usize,
    /// Rows that these may hold together at a position of the decoder, up to 65,536; no fewer than two for each beam of
    /// the request are held. Each takes 4 d (2 L_d + 1) bytes at every position, from when an audit first needs them
    /// until its request is answered. With few of them rows are run more than once; no answer depends on either number.
    pub rows: usize,
}

impl Default for AuditOptions {
    /// Gammas 0.2, 0.4, .. 2.0; 16 searches, 512 rows.
    fn default() -> Self {
        Self { gammas: GammaGrid::default(), searches: 16, rows: 512 }
    }
}

/// What computes.
enum Backend {
    Cpu(Box<CpuBackend>),
    Gpu(Box<GpuBackend>),
}

/// A model, a catalog and a device. Shared by as many threads as like to.
pub struct Engine {
    config: ModelConfig,
    origin: Option<String>,
    weights_digest: Digest,
    catalog: Catalog,
    limits: Limits,
    audit: AuditOptions,
    backend: Backend,
    backend_name: String,
    memory: Memory,
}

impl Engine {
    /// Starts to build an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// The model's sizes and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights come from, as their file says.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Digest of the files that hold the weights.
    pub fn weights_digest(&self) -> Digest {
        self.weights_digest
    }

    /// What computes: the kind of device and the precision of the products, on which the bits of a response depend.
    pub fn backend(&self) -> &str {
        &self.backend_name
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
        self.allocate_on(&self.catalog.snapshot(), requests, report)
    }

    /// [`Engine::allocate_with`] on a given state of the catalog: one that was kept, or that [`Snapshot::with`] made.
    ///
    /// # Panics
    /// Where the snapshot is of a catalog for a model of other sizes.
    pub fn allocate_on(
        &self,
        snapshot: &Snapshot,
        requests: &[Request],
        report: Report,
    ) -> Vec<Result<Response, RequestError>> {
        let context =
            Context { config: &self.config, limits: &self.limits, snapshot, audit: &self.audit, report };
        match &self.backend {
            Backend::Cpu(cpu) => cpu.allocate(context, requests),
            Backend::Gpu(gpu) => gpu.allocate(context, requests),
        }
    }
}

/// Runs `work` and adds its wall time to `micros`.
fn timed<T>(micros: &mut u64, work: impl FnOnce() -> T) -> T {
    let start = std::time::Instant::now();
    let out = work();
    *micros += micros_since(start);
    out
}

fn micros_since(start: std::time::Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}
