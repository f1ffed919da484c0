//! Which engine a command runs on a file of requests.

use std::path::PathBuf;

use anyhow::{Result, bail};
use bidslate::cpu::Precision;
use bidslate::engine::{Device, Engine, EngineBuilder, Kernels, Limits};
use bidslate::model::config::{CONFIG_FILE, ModelConfig};

use crate::files::{Named, keep_apart};
use crate::request_file::{Survey, survey};

/// Options of an engine and the requests that it answers.
#[derive(clap::Args)]
pub struct EngineArgs {
    /// Model directory.
    #[arg(long)]
    pub model: PathBuf,
    /// Catalog; catalog.safetensors of the model directory unless given.
    #[arg(long)]
    catalog: Option<PathBuf>,
    /// Requests, one JSON object a line; blank lines are passed over.
    #[arg(long)]
    pub requests: PathBuf,
    /// Where to run: cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Kernels of a GPU where there are several for one operation: measured (the faster ones), portable, hopper or persistent.
    #[arg(long, default_value_t)]
    gpu_kernels: Kernels,
    /// Threads; as many as the machine has unless given.
    #[arg(long)]
    threads: Option<usize>,
    /// Requests handed to the engine at a time.
    #[arg(long, default_value_t = 64)]
    pub batch: usize,
    /// Precision of the encoder's and decoders' products.
    #[arg(long, value_enum, default_value_t = Products::F32)]
    precision: Products,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Products {
    F32,
    Bf16,
}

impl EngineArgs {
    /// Refuses `outputs` that share a file with each other or with what the engine reads.
    pub fn keep_apart(&self, outputs: &[Named]) -> Result<()> {
        let weights = self.model.join("model.safetensors");
        let catalog = self.catalog.clone().unwrap_or_else(|| self.model.join("catalog.safetensors"));
        let inputs = [
            ("--requests", Some(&*self.requests)),
            ("--catalog", Some(&*catalog)),
            ("--model", Some(&*weights)),
        ];
        keep_apart(&inputs, outputs)
    }

    /// An engine with room for the largest of the first `limit` requests, and how many lines there are among them.
    pub fn engine(
        &self,
        limit: usize,
        options: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Result<(Engine, u64)> {
        if self.batch == 0 {
            bail!("--batch is 0, expected at least 1");
        }
        let config = ModelConfig::read(&self.model.join(CONFIG_FILE))?;
        let Survey { lines, limits } = survey(&self.requests, limit, &config)?;
        let threads = self
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
        let mut builder = Engine::builder()
            .model(&self.model)
            .device(self.device)
            .gpu_kernels(self.gpu_kernels)
            .threads(threads)
            .limits(Limits { batch: threads.min(self.batch), ..limits })
            .precision(match self.precision {
                Products::F32 => Precision::F32,
                Products::Bf16 => Precision::Bf16,
            });
        if let Some(catalog) = &self.catalog {
            builder = builder.catalog(catalog.clone());
        }
        Ok((options(builder).build()?, lines))
    }
}
