//! `bidslate quantize fit`.

use std::path::PathBuf;

use bidslate::catalog::{CodeReport, FitOptions, QuantizerKind, fit, read_embeddings, read_matrix};
use clap::{Args, Subcommand, ValueEnum};

use crate::catalog::split_tensor;
use crate::files::keep_apart;
use crate::lines;
use crate::progress::Progress;

/// Makes semantic ids of embeddings.
#[derive(Args)]
pub struct QuantizeArgs {
    #[command(subcommand)]
    command: QuantizeCommand,
}

#[derive(Subcommand)]
enum QuantizeCommand {
    /// Fit a residual quantizer to embeddings, and report how they spread over its codes.
    Fit(FitArgs),
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Poi,
    Creative,
}

#[derive(Args)]
struct FitArgs {
    /// Embeddings [rows, width]: a tensor of a safetensors file.
    #[arg(long, value_name = "FILE[:TENSOR]", required_unless_present = "jsonl")]
    embeddings: Option<String>,
    /// Embeddings of the items, or of the creatives, of JSON lines as `catalog build` reads them.
    #[arg(long, value_name = "FILE", conflicts_with = "embeddings", requires = "width")]
    jsonl: Option<PathBuf>,
    /// Values in an embedding of the JSON lines.
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// What the codes are for.
    #[arg(long, value_enum, default_value = "poi")]
    kind: Kind,
    /// Code layers.
    #[arg(long, value_name = "C", default_value_t = 3)]
    codes: usize,
    /// Codes per layer.
    #[arg(long, value_name = "W", default_value_t = 1024)]
    codebook: usize,
    /// Iterations per layer.
    #[arg(long, value_name = "N", default_value_t = 20)]
    iterations: usize,
    /// Seed of all that is drawn.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Aim at codes of equal size in the last layer: fewer items then share all their codes.
    #[arg(long)]
    balance: bool,
    /// The safetensors file to write: quantizer.{poi,creative}.codebook.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl QuantizeArgs {
    /// Runs the subcommand.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            QuantizeCommand::Fit(args) => args.run(),
        }
    }
}

impl FitArgs {
    fn run(self) -> anyhow::Result<()> {
        let kind = match self.kind {
            Kind::Poi => QuantizerKind::Poi,
            Kind::Creative => QuantizerKind::Creative,
        };
        let inputs = [
            ("--embeddings", self.embeddings.as_deref().map(|source| split_tensor(source).0)),
            ("--jsonl", self.jsonl.as_deref()),
        ];
        keep_apart(&inputs, &[("--out", Some(&self.out))])?;
        let (data, width) = self.data(kind)?;
        let options = FitOptions {
            layers: self.codes,
            codes: self.codebook,
            iterations: self.iterations,
            seed: self.seed,
            balance_last: self.balance,
        };
        let mut progress = Progress::steps("fitting");
        let quantizer =
            fit(&data, width, &options, &mut |done, total| progress.at(done as u64, total as u64))?;
        drop(progress);
        let codes = quantizer.encode(&data)?;
        quantizer.write(&self.out, kind)?;
        let (file, shape) = (self.out.display(), quantizer.shape());
        lines::print(format_args!("{file}: quantizer.{}.codebook {shape:?}", kind.name()))?;
        lines::print(CodeReport::of(&codes, self.codes, self.codebook))
    }

    fn data(&self, kind: QuantizerKind) -> anyhow::Result<(Vec<f32>, usize)> {
        if let Some(source) = &self.embeddings {
            let (path, tensor) = split_tensor(source);
            return Ok(read_matrix(path, tensor)?);
        }
        let (Some(path), Some(width)) = (&self.jsonl, self.width) else {
            anyhow::bail!("expected --embeddings, or --jsonl with --width");
        };
        anyhow::ensure!(width > 0, "--width is 0, expected at least 1");
        let mut progress = Progress::bytes("reading embeddings");
        Ok((read_embeddings(path, kind, width, &mut |done, total| progress.at(done, total))?, width))
    }
}
