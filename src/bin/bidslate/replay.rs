//! `bidslate replay` and `bidslate explain`: what record files hold, run again or in words.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use bidslate::cpu::Precision;
use bidslate::engine::{Device, Engine, Kernels, Limits};
use bidslate::model::config::{CONFIG_FILE, ModelConfig};
use bidslate::record::{AllocationRecord, LineFault, Record, RecordReader, explain};

use crate::lines;

/// Runs recorded requests and auctions again and compares every bit; exit code 1 if anything differs.
#[derive(clap::Args)]
pub struct ReplayArgs {
    /// Records, as `allocate --record` and `auction --record` write them.
    file: PathBuf,
    /// Model directory; needed where the file holds requests.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Catalog; catalog.safetensors of the model directory unless given.
    #[arg(long)]
    catalog: Option<PathBuf>,
    /// Where to run: cpu or cuda:N. On the CPU products are in the precision of the record.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Kernels of the GPU, as they were when the records were written: measured, portable, hopper or persistent.
    #[arg(long, default_value_t)]
    gpu_kernels: Kernels,
    /// Threads; as many as the machine has unless given.
    #[arg(long)]
    threads: Option<usize>,
}

/// Says in words why each recorded ad won, and why it pays what it pays.
#[derive(clap::Args)]
pub struct ExplainArgs {
    /// Records, as `allocate --record` and `auction --record` write them.
    file: PathBuf,
    /// Only the requests and auctions of this id.
    #[arg(long)]
    id: Option<String>,
}

/// A line's number, and its record or what is wrong with it.
type Line = (u64, Result<Record, LineFault>);

fn records(path: &Path) -> Result<impl Iterator<Item = Result<Line>> + use<>> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| name.clone())?;
    Ok(RecordReader::new(BufReader::new(file)).map(move |line| line.with_context(|| name.clone())))
}

impl ReplayArgs {
    /// Runs the command; false where a record differs or cannot be read.
    pub fn run(self) -> Result<bool> {
        lines::check_rereadable(&self.file)?;
        let mut engines = Engines { args: &self, limits: self.limits()?, built: BTreeMap::new() };
        let mut out = lines::output(None)?;
        let (mut same, mut bad) = (0, 0);
        for line in records(&self.file)? {
            let (number, record) = line?;
            let place = format!("{}:{number}", self.file.display());
            let faults = match record {
                Err(fault) => vec![format!("{place}: the line {fault}")],
                Ok(record) => {
                    let id = record.id().to_string();
                    let found = engines.differences(&record)?;
                    found.into_iter().map(|fault| format!("{place}: {id}: {fault}")).collect()
                }
            };
            faults.iter().try_for_each(|fault| writeln!(out, "{fault}"))?;
            *(if faults.is_empty() { &mut same } else { &mut bad }) += 1;
        }
        writeln!(out, "{same} records replayed to the bit, {bad} not")?;
        out.flush()?;
        Ok(bad == 0)
    }

    /// Room for every request on record; none where there is none.
    fn limits(&self) -> Result<Option<Limits>> {
        let mut limits: Option<Limits> = None;
        let mut config = None;
        for line in records(&self.file)? {
            let (_, Ok(Record::Allocation(record))) = line? else { continue };
            let config = match &config {
                Some(config) => config,
                None => config.insert(ModelConfig::read(&self.model()?.join(CONFIG_FILE))?),
            };
            let own = record.limits(config);
            let so_far = limits.unwrap_or(own);
            limits = Some(Limits {
                batch: 1,
                history: so_far.history.max(own.history),
                beams: so_far.beams.max(own.beams),
                candidates: so_far.candidates.max(own.candidates),
                slots: so_far.slots.max(own.slots),
            });
        }
        Ok(limits)
    }

    fn model(&self) -> Result<&PathBuf> {
        self.model.as_ref().ok_or_else(|| {
            anyhow!("--model is missing: {} holds requests, which need their model", self.file.display())
        })
    }
}

/// An engine for each precision on record, built when it is first needed.
struct Engines<'a> {
    args: &'a ReplayArgs,
    limits: Option<Limits>,
    built: BTreeMap<bool, Engine>,
}

impl Engines<'_> {
    /// What is not the same when a record is run again.
    fn differences(&mut self, record: &Record) -> Result<Vec<String>> {
        let texts =
            |found: Vec<bidslate::record::Difference>| found.iter().map(ToString::to_string).collect();
        Ok(match record {
            Record::Auction(record) => record.replay().map_or_else(|e| vec![e.to_string()], texts),
            Record::Allocation(record) => {
                let engine = self.engine(record)?;
                let opened = engine.catalog().snapshot();
                record.replay(engine, &opened).map_or_else(|e| vec![e.to_string()], texts)
            }
        })
    }

    fn engine(&mut self, record: &AllocationRecord) -> Result<&Engine> {
        let bf16 = record.backend == "cpu bf16";
        if !self.built.contains_key(&bf16) {
            self.built.insert(bf16, self.build(bf16)?);
        }
        self.built.get(&bf16).ok_or_else(|| anyhow!("no engine was built"))
    }

    fn build(&self, bf16: bool) -> Result<Engine> {
        let args = self.args;
        let Some(limits) = self.limits else { bail!("{} holds no requests", args.file.display()) };
        let mut builder = Engine::builder()
            .model(args.model()?)
            .device(args.device)
            .gpu_kernels(args.gpu_kernels)
            .limits(limits)
            .precision(if bf16 { Precision::Bf16 } else { Precision::F32 });
        if let Some(threads) = args.threads {
            builder = builder.threads(threads);
        }
        if let Some(catalog) = &args.catalog {
            builder = builder.catalog(catalog.clone());
        }
        Ok(builder.build()?)
    }
}

impl ExplainArgs {
    /// Runs the command; false where a line cannot be read.
    pub fn run(self) -> Result<bool> {
        let mut out = lines::output(None)?;
        let (mut all_good, mut found) = (true, false);
        for line in records(&self.file)? {
            match line? {
                (number, Err(fault)) => {
                    all_good = false;
                    writeln!(out, "{}:{number}: the line {fault}", self.file.display())?;
                }
                (_, Ok(record)) if self.id.as_ref().is_none_or(|id| *id == record.id().to_string()) => {
                    found = true;
                    writeln!(out, "{}", explain(&record))?;
                }
                _ => {}
            }
        }
        out.flush()?;
        match self.id {
            Some(id) if !found => bail!("no record of {id:?}"),
            _ => Ok(all_good),
        }
    }
}
