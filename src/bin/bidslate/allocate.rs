//! `bidslate allocate`: requests in, priced lists out, line by line.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use bidslate::engine::{Engine, Report};
use bidslate::model::config::ModelConfig;
use bidslate::record::Recorder;
use bidslate::request::Request;
use bidslate::response::{Response, Trace};
use serde_json::{Value, json};

use crate::engine_args::EngineArgs;
use crate::held_out::{HeldOut, Next};
use crate::lines::{self, Refusals};
use crate::progress::Progress;
use crate::request_file::{Answer, Answered, Line, answers, batches, requests};
use crate::table::{self, Labels};
use crate::tensor_file::TensorFile;

/// Answers the requests of a file, one JSON object a line.
#[derive(clap::Args)]
pub struct AllocateArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// json: one response a line. table: for people.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Where to write; standard output unless given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A file to append a record of every answer to, for `replay` and `explain`; each is on the disk before its answer
    /// is written.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Intermediate tensors, as safetensors.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// What items are, for the table; labels.jsonl beside the requests unless given.
    #[arg(long)]
    labels: Option<PathBuf>,
    /// Where users went next, for the table; heldout.jsonl beside the requests unless given.
    #[arg(long)]
    heldout: Option<PathBuf>,
    /// Add the time of each stage to the responses.
    #[arg(long)]
    timings: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
    Table,
}

impl AllocateArgs {
    /// Runs the command; false where a request was refused.
    pub fn run(self) -> Result<bool> {
        self.engine.keep_apart(&[
            ("--out", self.out.as_deref()),
            ("--record", self.record.as_deref()),
            ("--trace", self.trace.as_deref()),
        ])?;
        let (engine, count) = self.engine.engine(usize::MAX, |builder| builder)?;
        let labels = self.beside(self.labels.as_ref(), "labels.jsonl", Labels::read)?;
        let mut held_out = self.beside(self.heldout.as_ref(), "heldout.jsonl", HeldOut::read)?;
        let mut answering = Answering::new(&engine, self.record.as_deref())?;
        let mut out = lines::output(self.out.as_deref())?;
        if self.format == Format::Table {
            self.write_heading(&engine, &mut out)?;
        }
        let report = Report {
            timings: self.timings,
            quotes: self.format == Format::Table,
            trace: self.trace.is_some(),
            ..Report::default()
        };
        let mut traces = Traces::default();
        let mut progress = Progress::steps("answering");
        let mut done = 0;
        let mut refusals = Refusals::default();
        for batch in batches(requests(&self.engine.requests)?, self.engine.batch) {
            let batch = batch?;
            let ask = |line: &Line| held_out.as_ref()?.of(line.request.as_ref().ok()?);
            let next: Vec<Option<Next>> = batch.iter().map(ask).collect();
            let answers = answers(batch, |requests| answering.allocate(requests, report))?;
            for (Answered { number, id, answer }, next) in answers.into_iter().zip(next) {
                if answer.is_err() {
                    refusals.note(number);
                }
                if let (Ok(Response { trace: Some(trace), .. }), true) = (&answer, self.trace.is_some()) {
                    traces.add(&id, trace, engine.config())?;
                }
                let note = match (&mut held_out, next, &answer) {
                    (Some(held_out), Some(next), Ok(response)) => {
                        Some(held_out.count(&next, response, labels.as_ref()))
                    }
                    _ => None,
                };
                self.write(&mut out, &id, &answer, labels.as_ref(), note.as_deref())?;
                done += 1;
                progress.at(done, count);
            }
        }
        if let Some(held_out) = &held_out {
            writeln!(out, "{}", held_out.summary())?;
        }
        out.flush()?;
        drop(progress);
        if let Some(path) = &self.trace {
            traces.0.write(path, None)?;
        }
        refusals.tell(&self.engine.requests, count);
        Ok(refusals.none())
    }

    /// What a table shows from a file that is given, or else lies beside the requests.
    fn beside<T>(
        &self,
        given: Option<&PathBuf>,
        name: &str,
        read: impl Fn(&Path) -> Result<T>,
    ) -> Result<Option<T>> {
        match (given, self.format) {
            (Some(path), Format::Table) => read(path).map(Some),
            (None, Format::Table) => {
                let beside = self.engine.requests.with_file_name(name);
                beside.exists().then(|| read(&beside)).transpose()
            }
            _ => Ok(None),
        }
    }

    fn write_heading(&self, engine: &Engine, out: &mut dyn Write) -> Result<()> {
        let memory = engine.memory();
        if let Some(origin) = engine.origin() {
            writeln!(out, "{origin}")?;
        }
        writeln!(
            out,
            "model {} | catalog version {} with {} items | {:.0} MB ({:.0} weights, {:.0} workspaces)",
            self.engine.model.display(),
            engine.catalog().snapshot().version(),
            engine.catalog().snapshot().len(),
            memory.total() as f64 / 1e6,
            memory.weights as f64 / 1e6,
            memory.workspaces as f64 / 1e6,
        )?;
        Ok(())
    }

    fn write(
        &self,
        out: &mut dyn Write,
        id: &Value,
        answer: &Answer,
        labels: Option<&Labels>,
        note: Option<&str>,
    ) -> Result<()> {
        let json = match answer {
            Ok(response) => serde_json::to_value(response)?,
            Err(error) => json!({"id": id, "error": error}),
        };
        match self.format {
            Format::Table => {
                write!(out, "{}", table::render(&json, labels))?;
                note.map_or(Ok(()), |note| writeln!(out, "{note}"))?;
                writeln!(out)?;
            }
            Format::Json => match answer {
                // Straight from the struct, so that the keys keep their order.
                Ok(response) => writeln!(out, "{}", serde_json::to_string(response)?)?,
                Err(_) => writeln!(out, "{json}")?,
            },
        }
        Ok(())
    }
}

/// An engine, with a record or without.
enum Answering<'e> {
    Plain(&'e Engine),
    Recorded(Recorder<'e>),
}

impl<'e> Answering<'e> {
    fn new(engine: &'e Engine, record: Option<&Path>) -> Result<Self> {
        let Some(path) = record else { return Ok(Self::Plain(engine)) };
        let recorder = Recorder::open(engine, path)?;
        lines::note_cut(path, recorder.writer());
        Ok(Self::Recorded(recorder))
    }

    fn allocate(&mut self, requests: &[Request], report: Report) -> Result<Vec<Answer>> {
        match self {
            Self::Plain(engine) => Ok(engine.allocate_with(requests, report)),
            Self::Recorded(recorder) => Ok(recorder.allocate(requests, report)?),
        }
    }
}

/// The tensors of a trace file.
#[derive(Default)]
struct Traces(TensorFile);

impl Traces {
    fn add(&mut self, id: &Value, trace: &Trace, config: &ModelConfig) -> Result<()> {
        let id = id.as_str().map_or_else(|| id.to_string(), String::from);
        let (k, w, d) = (config.list_len, config.codebook_size, config.hidden_size);
        let name = |name: &str| format!("{id}/{name}");
        if self.0.holds(&name("encoder")) {
            bail!("--trace: two requests are named {id:?}, and their tensors would have the same names");
        }
        let (lists, steps) = (trace.log_prob.len(), k * config.poi_code_layers);
        let tensors = &mut self.0;
        tensors.put(name("encoder"), &[trace.encoder.len() / d, d], &trace.encoder);
        tensors.put(name("lists/items"), &[lists, k], &trace.items);
        tensors.put(name("lists/creatives"), &[lists, k], &trace.creatives);
        tensors.put(name("lists/log_prob"), &[lists], &trace.log_prob);
        tensors.put(name("lists/reward"), &[lists], &trace.reward);
        tensors.put(name("winner/poi_logits"), &[steps, w], &trace.poi_logits);
        tensors.put(name("winner/ln_w"), &[steps, w], &trace.ln_w);
        let creative = [k, config.creative_code_layers, w];
        tensors.put(name("winner/creative_logits"), &creative, &trace.creative_logits);
        let features = [k, config.reward_hidden_size];
        tensors.put(name("winner/reward_features"), &features, &trace.reward_features);
        tensors.put(name("winner/rate"), &[k], &trace.rate);
        Ok(())
    }
}
