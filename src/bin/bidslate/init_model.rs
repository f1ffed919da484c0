//! `bidslate init-model`: a model directory with random weights, of a standard size with a made-up catalog, or of
//! a given configuration for a catalog that is already there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::synthetic;
use clap::ValueEnum;

/// Make a model directory with random weights, for benches and tests: with --size also a made-up catalog and
/// requests, with --config the model alone.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("shape").required(true).args(["size", "config"])))]
pub struct InitModelArgs {
    /// Directory to make.
    dir: PathBuf,
    /// A standard size.
    #[arg(long, value_enum)]
    size: Option<Size>,
    /// A config.json whose sizes to take.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of everything random: the same seed gives the same files.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Element type of the weights.
    #[arg(long, value_enum, default_value_t = Type::F32)]
    dtype: Type,
    /// Items of the catalog; one in four is an ad.
    #[arg(long, conflicts_with = "config", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(4..=100_000_000))]
    items: u32,
    /// Requests to write into requests.jsonl.
    #[arg(long, conflicts_with = "config", default_value_t = 8)]
    requests: u32,
    /// Past behaviours (B), instead of those of the size or file.
    #[arg(long)]
    history_len: Option<usize>,
    /// Slots of the list (K).
    #[arg(long)]
    list_len: Option<usize>,
    /// Beams (N_S).
    #[arg(long)]
    beam_width: Option<usize>,
    /// Codes per layer (W).
    #[arg(long)]
    codebook_size: Option<usize>,
    /// Write into a directory that is not empty, over files of the same names.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Size {
    Tiny,
    Small,
    Base,
    Large,
}

impl From<Size> for ModelSize {
    fn from(size: Size) -> Self {
        match size {
            Size::Tiny => Self::Tiny,
            Size::Small => Self::Small,
            Size::Base => Self::Base,
            Size::Large => Self::Large,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Type {
    F32,
    Bf16,
    F16,
}

impl InitModelArgs {
    /// Writes the directory.
    pub fn run(self) -> anyhow::Result<()> {
        if !self.force && !is_empty(&self.dir)? {
            bail!("{} is not empty; --force writes into it all the same", self.dir.display());
        }
        let config = self.config()?;
        init_model(&self.dir, &config, self.weight_type(), self.seed)?;
        if self.config.is_some() {
            return Ok(());
        }
        let catalog = synthetic::catalog(&config, self.items as usize, self.seed);
        catalog.write(&self.dir.join("catalog.safetensors"), &config)?;
        let requests = synthetic::requests(&catalog, &config, self.requests as usize, self.seed);
        let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
        let path = self.dir.join("requests.jsonl");
        fs::write(&path, lines).with_context(|| path.display().to_string())
    }

    fn config(&self) -> anyhow::Result<ModelConfig> {
        let mut config = match (&self.config, self.size) {
            (Some(path), _) => ModelConfig::read(path)?,
            (None, Some(size)) => ModelConfig::of_size(size.into()),
            (None, None) => bail!("neither --size nor --config is given"),
        };
        for (key, value) in [
            (&mut config.history_len, self.history_len),
            (&mut config.list_len, self.list_len),
            (&mut config.beam_width, self.beam_width),
            (&mut config.codebook_size, self.codebook_size),
        ] {
            *key = value.unwrap_or(*key);
        }
        Ok(config)
    }

    fn weight_type(&self) -> WeightType {
        match self.dtype {
            Type::F32 => WeightType::F32,
            Type::Bf16 => WeightType::BF16,
            Type::F16 => WeightType::F16,
        }
    }
}

fn is_empty(dir: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| dir.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use bidslate::model::tokenizer::check_tokenizer;
    use bidslate::model::weights::Weights;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: InitModelArgs,
    }

    fn run(dir: &Path, options: &[&str]) -> anyhow::Result<()> {
        let line = ["init-model", "--size", "tiny", "--items", "40", "--requests", "3"];
        let dir = dir.to_str().unwrap();
        Cli::try_parse_from(line.into_iter().chain(options.iter().copied()).chain([dir]))?.args.run()
    }

    #[test]
    fn a_directory_is_complete_and_loads() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("new/model");
        run(&model, &["--codebook-size", "8", "--list-len", "4", "--dtype", "bf16"]).unwrap();
        let config = ModelConfig::read(&model.join("config.json")).unwrap();
        assert_eq!((config.codebook_size, config.list_len, config.history_len), (8, 4, 256));
        let weights = Weights::open(&model, &config).unwrap();
        assert_eq!(weights.dtype("embed.weight"), WeightType::BF16);
        check_tokenizer(&model, &config).unwrap();
        assert!(model.join("catalog.safetensors").exists());
        let requests = fs::read_to_string(model.join("requests.jsonl")).unwrap();
        assert_eq!(requests.lines().count(), 3);
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("note");
        fs::write(&note, "keep me").unwrap();
        let error = run(dir.path(), &["--codebook-size", "8"]).unwrap_err();
        assert!(error.to_string().contains("is not empty"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        run(dir.path(), &["--codebook-size", "8", "--force"]).unwrap();
        assert_eq!(fs::read_to_string(note).unwrap(), "keep me");
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = run(dir.path(), &["--list-len", "0"]).unwrap_err();
        assert!(error.to_string().contains("key `list_len`: is 0"), "{error}");
        assert!(run(dir.path(), &["--items", "3"]).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was written");
    }
}
