//! Building an engine: load, check, pack, and allocate everything once.

use std::path::PathBuf;
use std::sync::Arc;

use super::cpu::CpuBackend;
use super::gpu::GpuBackend;
use super::gpu_workspace::GpuWorkspace;
use super::workspace::{Workspace, WorkspacePool};
use super::{AuditOptions, Backend, Device, Engine, Limits, Memory};
use crate::catalog::Catalog;
use crate::cpu::{Isa, Precision};
use crate::cuda::catalog::Catalogs;
use crate::cuda::choice::{Choice, Kernels};
use crate::cuda::launch::Stream;
use crate::cuda::model::DeviceModel;
use crate::cuda::search::MAX_BEAMS;
use crate::cuda::tiling::MOST_ROWS;
use crate::error::BuildError;
use crate::model::config::ModelConfig;
use crate::model::weights::Weights;
use crate::model::{self, Model};

/// Where an engine's catalog comes from.
pub enum CatalogSource {
    /// A file of columns.
    File(PathBuf),
    /// A catalog made or opened before.
    Ready(Catalog),
}

impl From<PathBuf> for CatalogSource {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&std::path::Path> for CatalogSource {
    fn from(path: &std::path::Path) -> Self {
        Self::File(path.into())
    }
}

impl From<&str> for CatalogSource {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

impl From<Catalog> for CatalogSource {
    fn from(catalog: Catalog) -> Self {
        Self::Ready(catalog)
    }
}

/// Options of an engine to be built. Only the model is required.
#[derive(Default)]
pub struct EngineBuilder {
    model: Option<PathBuf>,
    catalog: Option<CatalogSource>,
    device: Device,
    threads: Option<usize>,
    precision: Option<Precision>,
    limits: Option<Limits>,
    audit: AuditOptions,
    gpu_streams: Option<usize>,
    gpu_kernels: Kernels,
    streams: Option<Vec<Arc<dyn Stream>>>,
}

impl EngineBuilder {
    /// The model directory.
    pub fn model(mut self, dir: impl Into<PathBuf>) -> Self {
        self.model = Some(dir.into());
        self
    }

    /// The catalog: a file, or a [`Catalog`]. `catalog.safetensors` of the model directory unless given.
    pub fn catalog(mut self, catalog: impl Into<CatalogSource>) -> Self {
        self.catalog = Some(catalog.into());
        self
    }

    /// The device; the processor unless given.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Threads to compute with; as many as the machine has unless given.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Precision of the encoder's and decoders' products on the CPU; [`Precision::F32`] unless given. Logits, scores,
    /// rewards and payments are f32 or better either way. On a GPU the operands of these products are always bf16.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = Some(precision);
        self
    }

    /// The largest requests to make room for. Unless given: as many at a time as there are threads, the model's
    /// `history_len` and `list_len`, 256 beams (or the model's, if that is more), and a million candidates; on a GPU
    /// batches of 16, the model's beams and 65,536 candidates.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// How requests are audited that ask for it.
    pub fn audit(mut self, audit: AuditOptions) -> Self {
        self.audit = audit;
        self
    }

    /// Batches that a GPU works on side by side, each with workspaces of its own; 2 unless given, so that the host
    /// prepares one while the other runs.
    pub fn gpu_streams(mut self, streams: usize) -> Self {
        self.gpu_streams = Some(streams);
        self
    }

    /// Which kernels a GPU runs where there are several for one operation; those that were measured to be the faster ones
    /// unless given. [`Engine::backend`] names what bits depend on.
    pub fn gpu_kernels(mut self, kernels: Kernels) -> Self {
        self.gpu_kernels = kernels;
        self
    }

    /// Runs the engine on these streams of one GPU instead of the streams of a [`Device`]; each works on one batch at
    /// a time. For callers that hold a device of their own, and for tests, whose device is emulated.
    pub fn streams(mut self, streams: Vec<Arc<dyn Stream>>) -> Self {
        self.streams = Some(streams);
        self
    }

    /// Loads everything and allocates every workspace.
    ///
    /// # Errors
    /// [`BuildError`] naming the option, the file or the device that is at fault.
    pub fn build(self) -> Result<Engine, BuildError> {
        let threads = match self.threads {
            Some(threads @ 1..=4096) => threads,
            Some(threads) => return Err(option("threads", format!("is {threads}, expected 1 to 4096"))),
            None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        };
        let gpu_streams = match self.gpu_streams.unwrap_or(GPU_STREAMS) {
            streams @ 1..=64 => streams,
            streams => return Err(option("gpu_streams", format!("is {streams}, expected 1 to 64"))),
        };
        let streams = match (self.streams, self.device) {
            (Some(streams), _) if streams.is_empty() => {
                return Err(option("streams", "is empty, expected at least one".into()));
            }
            (Some(streams), _) => Some(streams),
            (None, device) => Some(device.streams(gpu_streams)?).filter(|streams| !streams.is_empty()),
        };
        if streams.is_none() && matches!(self.gpu_kernels, Kernels::Hopper | Kernels::Persistent) {
            return Err(option(
                "gpu_kernels",
                format!("is {}, expected a GPU to run them", self.gpu_kernels),
            ));
        }
        let AuditOptions { searches, rows, .. } = self.audit;
        if searches == 0 {
            return Err(option("audit", "runs 0 searches side by side, expected at least 1".into()));
        }
        if rows > MOST_AUDIT_ROWS {
            return Err(option("audit", format!("holds {rows} rows, expected at most {MOST_AUDIT_ROWS}")));
        }
        let dir =
            self.model.ok_or_else(|| option("model", "is missing, expected a model directory".into()))?;
        let (config, weights) = model::open(&dir)?;
        let limits = match self.limits {
            Some(limits) => check(limits, &config)?,
            None if streams.is_some() => default_limits(&config, GPU_BATCH, config.beam_width, 1 << 16),
            None => default_limits(&config, threads, config.beam_width.max(256), 1_000_000),
        };
        if streams.is_some() {
            check_gpu(&limits, &config)?;
        }
        let catalog = match self.catalog {
            Some(CatalogSource::Ready(catalog)) => catalog,
            Some(CatalogSource::File(path)) => Catalog::open(&path, &config)?,
            None => Catalog::open(&dir.join("catalog.safetensors"), &config)?,
        };
        let (origin, loading) = (weights.origin().map(String::from), weights.bytes());
        let digest = weights.digest();
        let precision = self.precision.unwrap_or(Precision::F32);
        let (backend_name, (backend, held)) = match streams {
            Some(streams) => {
                let choice = self.gpu_kernels.choose(&*streams[0], &config)?;
                let built = gpu(&streams, &config, &weights, choice, &limits, &catalog)?;
                (streams[0].kind() + &choice.kind(), built)
            }
            None => {
                let name = match precision {
                    Precision::Bf16 => "cpu bf16",
                    Precision::F32 => "cpu f32",
                };
                // The mapped weights are given back before the workspaces are made.
                let model = Model::pack(config.clone(), &weights, precision);
                drop(weights);
                (name.into(), cpu(model, &limits, threads)?)
            }
        };
        let memory = Memory { catalog: catalog.snapshot().bytes(), loading, ..held };
        let audit = self.audit;
        Ok(Engine {
            config,
            origin,
            weights_digest: digest,
            catalog,
            limits,
            audit,
            backend,
            backend_name,
            memory,
        })
    }
}

/// Most rows that the searches of an audit hold at a position.
const MOST_AUDIT_ROWS: usize = 1 << 16;

/// Requests of a batch on a GPU, unless the limits say otherwise.
const GPU_BATCH: usize = 16;

/// Streams of a GPU, unless their number is given.
const GPU_STREAMS: usize = 2;

fn option(option: &'static str, message: String) -> BuildError {
    BuildError::Option { option, message }
}

/// A backend, and the bytes that it holds: `weights`, `device_catalog` and `workspaces`.
type Built = (Backend, Memory);

fn gpu(
    streams: &[Arc<dyn Stream>],
    config: &ModelConfig,
    weights: &Weights,
    choice: Choice,
    limits: &Limits,
    catalog: &Catalog,
) -> Result<Built, BuildError> {
    streams.iter().try_for_each(|stream| stream.set_launches(choice.launches))?;
    let snapshot = catalog.snapshot();
    let model = DeviceModel::load(&streams[0], config, weights, choice)?;
    let catalogs = Catalogs::default();
    let device_catalog = catalogs.hold(&streams[0], config, &snapshot)?.bytes();
    let workspaces = streams
        .iter()
        .map(|stream| GpuWorkspace::new(stream, &model, limits, &snapshot))
        .collect::<Result<Vec<_>, _>>()?;
    // What the first stream uploaded is read by all.
    streams[0].synchronize()?;
    let held = Memory {
        weights: model.bytes(),
        device_catalog,
        workspaces: workspaces.iter().map(GpuWorkspace::bytes).sum(),
        ..Memory::default()
    };
    let workspaces = WorkspacePool::new(workspaces);
    let backend = GpuBackend { model, catalogs, workspaces, batch: limits.batch };
    Ok((Backend::Gpu(Box::new(backend)), held))
}

fn cpu(model: Model, limits: &Limits, threads: usize) -> Result<Built, BuildError> {
    let pool = match threads {
        1 => None,
        n => Some(thread_pool(n).map_err(|e| option("threads", format!("cannot start {n}: {e}")))?),
    };
    let workspaces: Vec<_> = (0..limits.batch).map(|_| Workspace::new(&model, limits, threads)).collect();
    let held = Memory {
        weights: model.bytes(),
        workspaces: workspaces.iter().map(Workspace::bytes).sum(),
        ..Memory::default()
    };
    let workspaces = WorkspacePool::new(workspaces);
    let backend = CpuBackend { model, isa: Isa::detect(), pool, workspaces };
    Ok((Backend::Cpu(Box::new(backend)), held))
}

fn thread_pool(threads: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("bidslate-{i}")).build()
}

fn default_limits(config: &ModelConfig, batch: usize, beams: usize, candidates: usize) -> Limits {
    Limits { batch, history: config.history_len, beams, candidates, slots: config.list_len }
}

fn check(limits: Limits, config: &ModelConfig) -> Result<Limits, BuildError> {
    let ranges = [
        ("limits.batch", limits.batch, 1, 4096),
        ("limits.history", limits.history, 0, config.history_len),
        ("limits.beams", limits.beams, 1, 1 << 16),
        ("limits.candidates", limits.candidates, 0, 1 << 31),
        ("limits.slots", limits.slots, 1, config.list_len),
    ];
    for (option, value, low, high) in ranges {
        if value < low || value > high {
            return Err(BuildError::Option {
                option,
                message: format!("is {value}, expected {low} to {high}"),
            });
        }
    }
    Ok(limits)
}

/// What the kernels can take of the limits.
fn check_gpu(limits: &Limits, config: &ModelConfig) -> Result<(), BuildError> {
    let Limits { batch, history, beams, slots, .. } = *limits;
    if beams > MAX_BEAMS {
        return Err(option("limits.beams", format!("is {beams}, expected at most {MAX_BEAMS} on a GPU")));
    }
    let positions = slots * config.poi_code_layers + 1;
    let of_products = config.history_tokens(history).max(beams * slots);
    // Rows of the caches are only counted, in 32 bits.
    for (each, most) in [(of_products, MOST_ROWS), (beams * positions, u32::MAX as usize)] {
        let rows = each.saturating_mul(batch);
        if rows > most {
            let problem = format!("is {batch}, which makes {rows} rows, expected up to {most} on a GPU");
            return Err(option("limits.batch", problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::ModelSize;

    #[test]
    fn a_gpu_takes_as_many_rows_as_a_grid_has_tiles_for() {
        let config = ModelConfig::of_size(ModelSize::Base);
        let (history, rows) = (config.history_len, config.history_tokens(config.history_len));
        let limits = |batch| Limits { batch, history, beams: 1, candidates: 1, slots: 1 };
        let most = MOST_ROWS / rows;
        assert!(check_gpu(&limits(most), &config).is_ok());
        let error = check_gpu(&limits(most + 1), &config).unwrap_err().to_string();
        let told = format!("is {}, which makes {} rows", most + 1, (most + 1) * rows);
        assert!(error.contains("limits.batch") && error.contains(&told), "{error}");
        assert!(error.contains("expected up to 4194240 on a GPU"), "{error}");
    }
}
