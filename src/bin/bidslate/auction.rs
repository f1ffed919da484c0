//! `bidslate auction`: stand-alone auctions in, winners and payments out, line by line.

use std::io::Write;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bidslate::auction::batch::AuctionBatch;
use bidslate::auction::psi::Bootstrap;
use bidslate::auction::regret::GammaGrid;
use bidslate::auction::request::AuctionRequest;
use bidslate::auction::standalone::{Outcomes, run};
use bidslate::cuda::auction::DeviceBatch;
use bidslate::cuda::launch::Stream;
use bidslate::engine::Device;
use bidslate::error::RequestError;
use bidslate::record::{AuctionRecord, Record, RecordWriter};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::auction_outcome::{Answer, Misreports};
use crate::auction_summary::Summary;
use crate::auction_table;
use crate::files::keep_apart;
use crate::lines::{self, Refusals};

/// Runs stand-alone auctions, one JSON object a line.
#[derive(clap::Args)]
pub struct AuctionArgs {
    /// Auctions, one JSON object a line; blank lines are passed over.
    #[arg(long)]
    input: PathBuf,
    /// Where to write; standard output unless given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// json: one outcome a line. table: for people.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Where to run: cpu or cuda:N. Regrets and landscapes are computed on the CPU either way.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Threads; as many as the machine has unless given.
    #[arg(long)]
    threads: Option<usize>,
    /// Auctions that are worked on at a time.
    #[arg(long, default_value_t = 4096)]
    batch: usize,
    /// A file to append a record of every auction to, for `replay` and `explain`.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Payments are multiples of this, reserves and bids excepted.
    #[arg(long, default_value_t = NonZeroU64::MIN)]
    billable_unit_micros: NonZeroU64,
    /// Leave out what each winner could gain by another bid (the best of the gammas, and the best of all bids), which
    /// takes longer than the auction.
    #[arg(long)]
    no_regret: bool,
    /// Add what each bidder would get for gamma times its bid: clicks, cost and utility. JSON alone.
    #[arg(long)]
    landscape: bool,
    /// A file for what the whole input adds up to, as JSON: counts, and Psi under each rule.
    #[arg(long)]
    summary: Option<PathBuf>,
    /// Samples of the bootstrap behind the confidence intervals of --summary.
    #[arg(long, default_value_t = Bootstrap::default().samples)]
    samples: usize,
    /// Factors by which bids are misreported; 0.2, 0.4, .. 2.0 unless given.
    #[arg(long, value_delimiter = ',')]
    gammas: Option<Vec<f64>>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
    Table,
}

/// A line of the input: its id, and the auction or why it is refused.
struct Line {
    id: Value,
    auction: Result<AuctionRequest, RequestError>,
}

impl AuctionArgs {
    /// Runs the command; false where an auction was refused.
    pub fn run(self) -> Result<bool> {
        if self.batch == 0 {
            bail!("--batch is 0, expected at least 1");
        }
        if self.landscape && self.format == Format::Table {
            bail!("--landscape is for --format json");
        }
        let outputs = [
            ("--out", self.out.as_deref()),
            ("--record", self.record.as_deref()),
            ("--summary", self.summary.as_deref()),
        ];
        keep_apart(&[("--input", Some(&self.input))], &outputs)?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads.unwrap_or(0)).build()?;
        let mut input = lines::lines(&self.input)?;
        let mut job = Job::new(&self)?;
        let mut out = lines::output(self.out.as_deref())?;
        let mut refusals = Refusals::default();
        let mut lines = 0;
        loop {
            let texts: Vec<(usize, Vec<u8>)> = input.by_ref().take(self.batch).collect::<Result<_>>()?;
            if texts.is_empty() {
                break;
            }
            lines += texts.len() as u64;
            let answers = pool.install(|| job.answers(&texts))?;
            for (answer, (number, _)) in answers.into_iter().zip(&texts) {
                if answer.is_err() {
                    refusals.note(*number);
                }
                job.summary.add(&answer);
                self.write(&mut out, answer)?;
            }
        }
        out.flush()?;
        if let Some(path) = &self.summary {
            let totals = serde_json::to_string_pretty(&job.summary.totals(self.samples))?;
            std::fs::write(path, totals + "\n").with_context(|| path.display().to_string())?;
        }
        refusals.tell(&self.input, lines);
        Ok(refusals.none())
    }

    fn write(&self, out: &mut dyn Write, answer: Answer) -> Result<()> {
        match (answer, self.format) {
            (Ok(mut outcome), format) => {
                // It may have been computed for the summary alone.
                outcome.regret.take_if(|_| self.no_regret);
                match format {
                    Format::Json => writeln!(out, "{}", serde_json::to_string(&outcome)?)?,
                    Format::Table => writeln!(out, "{}", auction_table::render(&outcome))?,
                }
            }
            (Err(error), _) => writeln!(out, "{error}")?,
        }
        Ok(())
    }
}

/// What lasts from batch to batch.
struct Job<'a> {
    args: &'a AuctionArgs,
    grid: GammaGrid,
    /// None where auctions run on the CPU.
    stream: Option<Arc<dyn Stream>>,
    records: Option<RecordWriter>,
    summary: Summary,
}

impl<'a> Job<'a> {
    fn new(args: &'a AuctionArgs) -> Result<Self> {
        let grid = args.gammas.clone().map_or(Ok(GammaGrid::default()), GammaGrid::new)?;
        let records = args.record.as_deref().map(RecordWriter::open).transpose()?;
        if let (Some(path), Some(records)) = (&args.record, &records) {
            lines::note_cut(path, records);
        }
        Ok(Self { args, grid, stream: args.device.streams(1)?.pop(), records, summary: Summary::default() })
    }

    /// The outcomes of a batch of lines, in their order.
    fn answers(&mut self, texts: &[(usize, Vec<u8>)]) -> Result<Vec<Answer>> {
        let mut lines: Vec<Line> = texts.par_iter().map(|(_, text)| parse(text)).collect();
        let mut batch = AuctionBatch::default();
        for line in &mut lines {
            if let Ok(auction) = &line.auction
                && let Err(error) = auction.push_to(&mut batch)
            {
                line.auction = Err(error);
            }
        }
        let outcomes = self.outcomes(&batch)?;
        self.record(&lines, &batch, &outcomes)?;
        let args = self.args;
        let misreports = Misreports {
            regret: !args.no_regret || args.summary.is_some(),
            landscape: args.landscape,
            grid: &self.grid,
            unit: args.billable_unit_micros,
        };
        let known = misreports.of(&batch);
        let mut auctions = 0..batch.len();
        let answer = |line: Line| match line.auction {
            Err(error) => Err(json!({"id": line.id, "error": error})),
            // As many auctions were pushed as there are lines without an error.
            Ok(auction) => {
                let index = auctions.next().unwrap_or_default();
                Ok(known.outcome(line.id, auction.rule, &batch, &outcomes, index))
            }
        };
        Ok(lines.into_iter().map(answer).collect())
    }

    fn outcomes(&self, batch: &AuctionBatch) -> Result<Outcomes> {
        let unit = self.args.billable_unit_micros;
        let Some(stream) = &self.stream else { return Ok(run(batch, unit)) };
        let mut device = DeviceBatch::new(stream, batch)?;
        device.run(&**stream, unit)?;
        Ok(device.outcomes()?)
    }

    /// Puts the auctions of a batch on record, where that is asked for.
    fn record(&mut self, lines: &[Line], batch: &AuctionBatch, outcomes: &Outcomes) -> Result<()> {
        let Some(writer) = &mut self.records else { return Ok(()) };
        let auctions = lines.iter().filter_map(|line| line.auction.as_ref().ok());
        let record = |(index, auction): (usize, &AuctionRequest)| {
            let slots = batch.slots(index);
            let (winners, payments) = (&outcomes.winners[slots.clone()], &outcomes.payments[slots]);
            let unit = self.args.billable_unit_micros;
            Record::Auction(Box::new(AuctionRecord::new(unit, auction.clone(), winners, payments)))
        };
        let records: Vec<Record> = auctions.enumerate().map(record).collect();
        Ok(writer.append(&records)?)
    }
}

fn parse(text: &[u8]) -> Line {
    match AuctionRequest::from_json(text) {
        Ok(auction) => Line { id: json!(auction.id), auction: Ok(auction) },
        Err(error) => Line { id: lines::id(text), auction: Err(error) },
    }
}
