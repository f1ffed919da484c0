//! `lab`: the world in which models are trained and judged.

use std::path::{Path, PathBuf};

use bidslate_lab::data::{self, Ask, Data};
use bidslate_lab::lists::{self, Bound};
use bidslate_lab::report::{self, Intervals};
use bidslate_lab::world::{self, Parameters, World};
use bidslate_lab::{judge, logs, split};
use clap::{Args, Parser, Subcommand};

/// The world in which Bidslate's models are trained and judged
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Splits the requests of an import into those to train on and those to judge by
    Split(SplitArgs),
    /// Makes the world of an import: world.json and truth.safetensors
    World(WorldArgs),
    /// Shows lists of a logging policy to the world and writes its feedback
    Logs(LogsArgs),
    /// Writes lists of a policy that bounds what others can do, in the format of responses
    Lists(ListsArgs),
    /// Judges responses by the truth and writes what each brings
    Evaluate(EvaluateArgs),
    /// Writes tables and figures of an experiment's outcomes: index.html and report.md
    Report(ReportArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Split(args) => args.run(),
        Command::World(args) => args.run(),
        Command::Logs(args) => args.run(),
        Command::Lists(args) => args.run(),
        Command::Evaluate(args) => args.run(),
        Command::Report(args) => args.run(),
    }
}

#[derive(Debug, Args)]
struct DataArgs {
    /// What `bidslate import` wrote
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Slots of a request that does not say
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1024))]
    list_len: u16,
}

impl DataArgs {
    fn asks(&self, data: &Data, requests: &Path) -> anyhow::Result<Vec<Ask>> {
        let held_out = data::held_out(&self.data, &data.visits)?;
        data::asks(requests, data, &held_out, usize::from(self.list_len))
    }
}

#[derive(Debug, Args)]
struct SplitArgs {
    /// What `bidslate import` wrote; requests-train.jsonl and requests-test.jsonl are added to it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl SplitArgs {
    fn run(self) -> anyhow::Result<()> {
        let data = Data::read(&self.data)?;
        let (train, test) = split::split(&self.data, &data.visits)?;
        println!("{}", serde_json::json!({ "train": train, "test": test }));
        Ok(())
    }
}

#[derive(Debug, Args)]
struct WorldArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Directory to write the world to; made if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seed of the world
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl WorldArgs {
    fn run(self) -> anyhow::Result<()> {
        let data = Data::read(&self.data.data)?;
        let asks = self.data.asks(&data, &self.data.data.join("requests.jsonl"))?;
        let parameters = Parameters { seed: self.seed, ..Parameters::default() };
        world::make(&data, &asks, parameters)?.write(&self.out)
    }
}

#[derive(Debug, Args)]
struct WorldedArgs {
    #[command(flatten)]
    data: DataArgs,
    /// What `lab world` wrote
    #[arg(long, value_name = "DIR")]
    world: PathBuf,
    /// Requests, one a line
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
}

impl WorldedArgs {
    fn read<'a>(&self, data: &'a Data) -> anyhow::Result<(World<'a>, Vec<Ask>)> {
        Ok((World::read(&self.world, data)?, self.data.asks(data, &self.requests)?))
    }
}

#[derive(Debug, Args)]
struct LogsArgs {
    #[command(flatten)]
    worlded: WorldedArgs,
    /// Lists of each request
    #[arg(long, value_name = "N", default_value_t = 8)]
    lists: usize,
    /// Seed of lists and feedback
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File to write the feedback to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl LogsArgs {
    fn run(self) -> anyhow::Result<()> {
        let data = Data::read(&self.worlded.data.data)?;
        let (world, asks) = self.worlded.read(&data)?;
        logs::write(&world, &asks, self.lists, self.seed, &self.out)
    }
}

#[derive(Debug, Args)]
struct ListsArgs {
    #[command(flatten)]
    worlded: WorldedArgs,
    /// What to make
    #[arg(long)]
    policy: Bound,
    /// Seed of random lists
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File to write the lists to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl ListsArgs {
    fn run(self) -> anyhow::Result<()> {
        let data = Data::read(&self.worlded.data.data)?;
        let (world, asks) = self.worlded.read(&data)?;
        lists::write(&world, &asks, self.policy, self.seed, &self.out)
    }
}

#[derive(Debug, Args)]
struct EvaluateArgs {
    #[command(flatten)]
    worlded: WorldedArgs,
    /// Answers to the requests, one a line
    #[arg(long, value_name = "FILE")]
    responses: PathBuf,
    /// File to write the outcomes to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl EvaluateArgs {
    fn run(self) -> anyhow::Result<()> {
        let data = Data::read(&self.worlded.data.data)?;
        let (world, asks) = self.worlded.read(&data)?;
        judge::judge(&world, &asks, &self.responses, &self.out)
    }
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// What was run: experiment.json
    #[arg(long, value_name = "FILE")]
    experiment: PathBuf,
    /// Directory to write the report to; made if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Samples of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 2000)]
    samples: usize,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl ReportArgs {
    fn run(self) -> anyhow::Result<()> {
        let intervals = Intervals { samples: self.samples, seed: self.seed };
        report::write(&self.experiment, intervals, &self.out)
    }
}
