//! `bidslate auction`: stand-alone auctions in, winners and payments out, line by line.

use std::io::Write;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use bidslate::auction::batch::AuctionBatch;
use bidslate::auction::landscape::{Point, landscapes};
use bidslate::auction::regret::{GammaGrid, Regret, Sweep, sweep};
use bidslate::auction::request::AuctionRequest;
use bidslate::auction::standalone::{NO_WINNER, Outcomes, run};
use bidslate::cuda::auction::DeviceBatch;
use bidslate::cuda::launch::Stream;
use bidslate::engine::Device;
use bidslate::error::RequestError;
use bidslate::money::Micros;
use bidslate::record::{AuctionRecord, Record, RecordWriter};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use crate::auction_table;
use crate::lines;

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
    /// Add what each winner could gain by another bid: by the best of the gammas, and by the best of all bids.
    #[arg(long)]
    regret: bool,
    /// Add what each bidder would get for gamma times its bid: clicks, cost and utility. JSON alone.
    #[arg(long)]
    landscape: bool,
    /// Factors by which bids are misreported; 0.2, 0.4, .. 2.0 unless given.
    #[arg(long, value_delimiter = ',')]
    gammas: Option<Vec<f64>>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
    Table,
}

/// The outcome of one auction.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub id: Value,
    /// Index of each slot's winner among the bidders; none where the slot is not sold.
    pub winners: Vec<Option<u32>>,
    /// What a click costs each winner; 0 where the slot is not sold.
    pub payments_micros: Vec<Micros>,
    /// What the winners regret, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regret: Option<WinnersRegret>,
    /// Where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landscape: Option<Landscape>,
}

/// What the winners regret, by slot, in micros an impression; none where the slot is not sold.
#[derive(Debug, Serialize)]
pub struct WinnersRegret {
    /// What each has by the truth.
    pub utility: Vec<Option<f64>>,
    /// What the best of the gammas gains.
    pub grid: Vec<Option<f64>>,
    /// What the best of all bids gains.
    pub exact: Vec<Option<f64>>,
}

/// What every bidder would get by gamma times its bid, [bidders][gammas], expected per impression.
#[derive(Debug, Serialize)]
pub struct Landscape {
    gammas: Vec<f64>,
    clicks: Vec<Vec<f64>>,
    cost_micros: Vec<Vec<f64>>,
    utility_micros: Vec<Vec<f64>>,
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
        let grid = self.gammas.clone().map_or(Ok(GammaGrid::default()), GammaGrid::new)?;
        let stream = self.device.streams(1)?.pop();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads.unwrap_or(0)).build()?;
        let mut out = lines::output(self.out.as_deref())?;
        let mut input = lines::lines(&self.input)?;
        let mut records = self.record.as_deref().map(RecordWriter::open).transpose()?;
        if let (Some(path), Some(records)) = (&self.record, &records) {
            lines::note_cut(path, records);
        }
        let mut all_good = true;
        loop {
            let texts: Vec<Vec<u8>> = input.by_ref().take(self.batch).collect::<Result<_>>()?;
            if texts.is_empty() {
                break;
            }
            let answers = pool.install(|| self.answers(&texts, &grid, stream.as_ref(), records.as_mut()))?;
            for answer in answers {
                all_good &= answer.is_ok();
                self.write(&mut out, answer)?;
            }
        }
        out.flush()?;
        Ok(all_good)
    }

    /// The outcomes of a batch of lines, in their order; a refused one is its answer's JSON.
    fn answers(
        &self,
        texts: &[Vec<u8>],
        grid: &GammaGrid,
        stream: Option<&Arc<dyn Stream>>,
        records: Option<&mut RecordWriter>,
    ) -> Result<Vec<Result<Outcome, Value>>> {
        let mut lines: Vec<Line> = texts.par_iter().map(|text| parse(text)).collect();
        let mut batch = AuctionBatch::default();
        for line in &mut lines {
            if let Ok(auction) = &line.auction
                && let Err(error) = auction.push_to(&mut batch)
            {
                line.auction = Err(error);
            }
        }
        let outcomes = match stream {
            None => run(&batch, self.billable_unit_micros),
            Some(stream) => {
                let mut device = DeviceBatch::new(stream, &batch)?;
                device.run(&**stream, self.billable_unit_micros)?;
                device.outcomes()?
            }
        };
        if let Some(records) = records {
            records.append(&self.records(&lines, &batch, &outcomes))?;
        }
        let misreports = Misreports::of(self, &batch, grid);
        let mut auctions = 0..batch.len();
        let answer = |line: Line| match line.auction {
            Err(error) => Err(json!({"id": line.id, "error": error})),
            // As many auctions were pushed as there are lines without an error.
            Ok(_) => Ok(misreports.outcome(line.id, &batch, &outcomes, auctions.next().unwrap_or_default())),
        };
        Ok(lines.into_iter().map(answer).collect())
    }

    /// Records of the auctions of a batch.
    fn records(&self, lines: &[Line], batch: &AuctionBatch, outcomes: &Outcomes) -> Vec<Record> {
        let auctions = lines.iter().filter_map(|line| line.auction.as_ref().ok());
        let record = |(index, auction): (usize, &AuctionRequest)| {
            let slots = batch.slots(index);
            let (winners, payments) = (&outcomes.winners[slots.clone()], &outcomes.payments[slots]);
            let unit = self.billable_unit_micros;
            Record::Auction(Box::new(AuctionRecord::new(unit, auction.clone(), winners, payments)))
        };
        auctions.enumerate().map(record).collect()
    }

    fn write(&self, out: &mut dyn Write, answer: Result<Outcome, Value>) -> Result<()> {
        match (answer, self.format) {
            (Ok(outcome), Format::Json) => writeln!(out, "{}", serde_json::to_string(&outcome)?)?,
            (Ok(outcome), Format::Table) => writeln!(out, "{}", auction_table::render(&outcome))?,
            (Err(error), _) => writeln!(out, "{error}")?,
        }
        Ok(())
    }
}

fn parse(text: &[u8]) -> Line {
    match AuctionRequest::from_json(text) {
        Ok(auction) => Line { id: json!(auction.id), auction: Ok(auction) },
        Err(error) => Line { id: lines::id(text), auction: Err(error) },
    }
}

/// What the bidders of a batch would get by other bids, as far as it is asked for.
struct Misreports<'a> {
    grid: &'a GammaGrid,
    regrets: Option<Vec<Regret>>,
    points: Option<Vec<Point>>,
}

impl<'a> Misreports<'a> {
    fn of(args: &AuctionArgs, batch: &AuctionBatch, grid: &'a GammaGrid) -> Self {
        let sweep: Option<Sweep> =
            (args.regret || args.landscape).then(|| sweep(batch, grid, args.billable_unit_micros));
        let sweep = sweep.as_ref();
        Self {
            grid,
            regrets: sweep.filter(|_| args.regret).map(|sweep| sweep.regrets(batch)),
            points: sweep.filter(|_| args.landscape).map(|sweep| landscapes(batch, sweep)),
        }
    }

    fn outcome(&self, id: Value, batch: &AuctionBatch, outcomes: &Outcomes, auction: usize) -> Outcome {
        let (slots, bidders) = (batch.slots(auction), batch.bidders(auction));
        let winners: Vec<Option<u32>> = outcomes.winners[slots.clone()]
            .iter()
            .map(|&winner| (winner != NO_WINNER).then_some(winner))
            .collect();
        let regret = self.regrets.as_ref().map(|regrets| {
            let of = |part: fn(&Regret) -> f64| {
                let of_winner = |winner: u32| part(&regrets[bidders.start + winner as usize]);
                winners.iter().map(|winner| winner.map(of_winner)).collect()
            };
            WinnersRegret { utility: of(|r| r.utility), grid: of(|r| r.grid), exact: of(|r| r.exact) }
        });
        let landscape = self.points.as_ref().map(|points| {
            let gammas = self.grid.gammas();
            let of = |part: fn(&Point) -> f64| {
                let of_bidder = |b: usize| &points[b * gammas.len()..(b + 1) * gammas.len()];
                bidders.clone().map(|b| of_bidder(b).iter().map(part).collect()).collect()
            };
            Landscape {
                gammas: gammas.to_vec(),
                clicks: of(|p| p.clicks),
                cost_micros: of(|p| p.cost),
                utility_micros: of(|p| p.utility),
            }
        });
        let payments_micros = outcomes.payments[slots].to_vec();
        Outcome { id, winners, payments_micros, regret, landscape }
    }
}
