//! `lab`: the world in which models are trained and judged.

use std::path::PathBuf;

use bidslate_lab::data::{self, Data};
use bidslate_lab::world::{self, Parameters};
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
    /// Makes the world of an import: world.json and truth.safetensors
    World(WorldArgs),
}

#[derive(Debug, Args)]
struct DataArgs {
    /// What `bidslate import` wrote
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Slots of a request that does not say
    #[arg(long, value_name = "N", default_value_t = 10)]
    list_len: usize,
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

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::World(args) => args.run(),
    }
}

impl WorldArgs {
    fn run(self) -> anyhow::Result<()> {
        let dir = &self.data.data;
        let data = Data::read(dir)?;
        let held_out = data::held_out(dir, &data.visits)?;
        let asks = data::asks(&dir.join("requests.jsonl"), &data, &held_out, self.data.list_len)?;
        let parameters = Parameters { seed: self.seed, ..Parameters::default() };
        world::make_and_write(&data, &asks, parameters, &self.out)
    }
}
