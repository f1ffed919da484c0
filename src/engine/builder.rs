//! Building an engine: load, check, pack, and allocate everything once.

use std::path::PathBuf;

use super::cpu::CpuBackend;
use super::workspace::{Workspace, WorkspacePool};
use super::{Device, Engine, Limits, Memory};
use crate::catalog::Catalog;
use crate::cpu::{Isa, Precision};
use crate::error::{BuildError, DeviceError};
use crate::model::Model;

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

    /// Precision of the encoder's and decoders' products; [`Precision::F32`] unless given. Logits, scores,
    /// rewards and payments are f32 or better either way.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = Some(precision);
        self
    }

    /// The largest requests to make room for. Unless given: as many at a time as there are threads, the model's
    /// `history_len` and `list_len`, 256 beams (or the model's, if that is more), and a million candidates.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Loads everything and allocates every workspace.
    ///
    /// # Errors
    /// [`BuildError`] naming the option, the file or the device that is at fault.
    pub fn build(self) -> Result<Engine, BuildError> {
        let option = |option, message: String| BuildError::Option { option, message };
        if let Device::Cuda(index) = self.device {
            #[cfg(feature = "cuda")]
            crate::cuda::driver::Driver::open(index)?;
            return Err(DeviceError::NoCuda(index).into());
        }
        let dir =
            self.model.ok_or_else(|| option("model", "is missing, expected a model directory".into()))?;
        let threads = self
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
        if threads == 0 || threads > 4096 {
            return Err(option("threads", format!("is {threads}, expected 1 to 4096")));
        }
        let model = Model::load(&dir, self.precision.unwrap_or(Precision::F32))?;
        let limits = match self.limits {
            Some(limits) => check(limits, &model)?,
            None => default_limits(&model, threads),
        };
        let catalog = match self.catalog {
            Some(CatalogSource::Ready(catalog)) => catalog,
            Some(CatalogSource::File(path)) => Catalog::open(&path, &model.config)?,
            None => Catalog::open(&dir.join("catalog.safetensors"), &model.config)?,
        };
        let pool = match threads {
            1 => None,
            n => Some(thread_pool(n).map_err(|e| option("threads", format!("cannot start {n}: {e}")))?),
        };
        let workspaces: Vec<_> =
            (0..limits.batch).map(|_| Workspace::new(&model, &limits, threads)).collect();
        let memory = Memory {
            weights: model.bytes(),
            catalog: catalog.snapshot().bytes(),
            workspaces: workspaces.iter().map(|w| w.bytes()).sum(),
            loading: model.file_bytes,
        };
        Ok(Engine {
            config: model.config.clone(),
            origin: model.origin.clone(),
            catalog,
            limits,
            backend: CpuBackend {
                model,
                isa: Isa::detect(),
                pool,
                workspaces: WorkspacePool::new(workspaces),
            },
            memory,
        })
    }
}

fn thread_pool(threads: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("bidslate-{i}")).build()
}

fn default_limits(model: &Model, threads: usize) -> Limits {
    Limits {
        batch: threads,
        history: model.config.history_len,
        beams: model.config.beam_width.max(256),
        candidates: 1_000_000,
        slots: model.config.list_len,
    }
}

fn check(limits: Limits, model: &Model) -> Result<Limits, BuildError> {
    let config = &model.config;
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
