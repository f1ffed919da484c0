//! `bidslate allocate`: requests in, priced lists out, line by line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bidslate::engine::{Engine, Report};
use bidslate::error::RequestError;
use bidslate::model::config::ModelConfig;
use bidslate::record::Recorder;
use bidslate::request::Request;
use bidslate::response::{Response, Trace};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::engine_args::EngineArgs;
use crate::lines;
use crate::progress::Progress;
use crate::request_file::{Line, requests};
use crate::table::{self, Labels};

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
        let (engine, count) = self.engine.engine(usize::MAX, |builder| builder)?;
        let labels = self.labels()?;
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
        let mut answering = Answering::new(&engine, self.record.as_deref())?;
        let mut traces = Traces::default();
        let mut progress = Progress::steps("answering");
        let mut done = 0;
        let mut all_good = true;
        let mut lines = requests(&self.engine.requests)?;
        loop {
            let batch: Vec<Line> = lines.by_ref().take(self.engine.batch).collect::<Result<_>>()?;
            if batch.is_empty() {
                break;
            }
            for (id, answer) in answers(&mut answering, batch, report)? {
                all_good &= answer.is_ok();
                if let (Ok(Response { trace: Some(trace), .. }), true) = (&answer, self.trace.is_some()) {
                    traces.add(&id, trace, engine.config())?;
                }
                self.write(&mut out, &id, &answer, labels.as_ref())?;
                done += 1;
                progress.at(done, count);
            }
        }
        out.flush()?;
        drop(progress);
        if let Some(path) = &self.trace {
            traces.write(path)?;
        }
        Ok(all_good)
    }

    fn labels(&self) -> Result<Option<Labels>> {
        match (&self.labels, self.format) {
            (Some(path), Format::Table) => Labels::read(path).map(Some),
            (None, Format::Table) => {
                let beside = self.engine.requests.with_file_name("labels.jsonl");
                beside.exists().then(|| Labels::read(&beside)).transpose()
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
        answer: &Result<Response, RequestError>,
        labels: Option<&Labels>,
    ) -> Result<()> {
        let json = match answer {
            Ok(response) => serde_json::to_value(response)?,
            Err(error) => json!({"id": id, "error": error}),
        };
        match self.format {
            Format::Table => writeln!(out, "{}", table::render(&json, labels))?,
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

    fn allocate(
        &mut self,
        requests: &[Request],
        report: Report,
    ) -> Result<Vec<Result<Response, RequestError>>> {
        match self {
            Self::Plain(engine) => Ok(engine.allocate_with(requests, report)),
            Self::Recorded(recorder) => Ok(recorder.allocate(requests, report)?),
        }
    }
}

/// The answers to a batch of lines, in their order.
fn answers(
    engine: &mut Answering,
    batch: Vec<Line>,
    report: Report,
) -> Result<Vec<(Value, Result<Response, RequestError>)>> {
    let requests: Vec<Request> = batch.iter().filter_map(|line| line.request.clone().ok()).collect();
    let mut responses = engine.allocate(&requests, report)?.into_iter();
    let answer = |line: Line| {
        let answer = line.request.and_then(|_| responses.next().unwrap_or_else(|| unreachable!()));
        (line.id, answer)
    };
    Ok(batch.into_iter().map(answer).collect())
}

/// Tensors of a trace file: name to type, shape and bytes.
#[derive(Default)]
struct Traces(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Traces {
    fn add(&mut self, id: &Value, trace: &Trace, config: &ModelConfig) -> Result<()> {
        let id = id.as_str().map_or_else(|| id.to_string(), String::from);
        let (k, w, d) = (config.list_len, config.codebook_size, config.hidden_size);
        let lists = trace.log_prob.len();
        if self.0.contains_key(&format!("{id}/encoder")) {
            bail!("--trace: two requests are named {id:?}, and their tensors would have the same names");
        }
        let mut put = |name: &str, dtype, shape: Vec<usize>, bytes: &[u8]| {
            self.0.insert(format!("{id}/{name}"), (dtype, shape, bytes.to_vec()));
        };
        put("encoder", Dtype::F32, vec![trace.encoder.len() / d, d], bytemuck::cast_slice(&trace.encoder));
        put("lists/items", Dtype::I64, vec![lists, k], bytemuck::cast_slice(&trace.items));
        put("lists/creatives", Dtype::I64, vec![lists, k], bytemuck::cast_slice(&trace.creatives));
        put("lists/log_prob", Dtype::F64, vec![lists], bytemuck::cast_slice(&trace.log_prob));
        put("lists/reward", Dtype::F64, vec![lists], bytemuck::cast_slice(&trace.reward));
        let steps = k * config.poi_code_layers;
        put("winner/poi_logits", Dtype::F32, vec![steps, w], bytemuck::cast_slice(&trace.poi_logits));
        put("winner/ln_w", Dtype::F32, vec![steps, w], bytemuck::cast_slice(&trace.ln_w));
        let d_r = config.reward_hidden_size;
        let features = bytemuck::cast_slice(&trace.reward_features);
        put("winner/reward_features", Dtype::F32, vec![k, d_r], features);
        put("winner/rate", Dtype::F64, vec![k], bytemuck::cast_slice(&trace.rate));
        Ok(())
    }

    fn write(&self, path: &Path) -> Result<()> {
        let views = self
            .0
            .iter()
            .map(|(name, (dtype, shape, bytes))| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>>>()?;
        let name = || path.display().to_string();
        // The serializer writes through a temporary file that only its owner may read.
        let permissions =
            File::create(path).and_then(|file| file.metadata()).with_context(name)?.permissions();
        safetensors::serialize_to_file(views, None, path).with_context(name)?;
        std::fs::set_permissions(path, permissions).with_context(name)
    }
}
