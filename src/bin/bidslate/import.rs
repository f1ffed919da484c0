//! `bidslate import`: public data as a catalog's items and requests.
//!
//! No public set joins histories of visits with creatives, bids and placements. Histories are therefore real,
//! and what the sources lack is made up by the seeded rules of [`world`] and [`requests`], which
//! `docs/data.md` states in full.

mod checkins;
mod requests;
mod select;
mod world;
mod write;

use std::path::PathBuf;

use anyhow::{anyhow, ensure};
use clap::{Args, Subcommand};

/// Turns real data into items and requests.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[command(subcommand)]
    source: Source,
}

#[derive(Debug, Subcommand)]
enum Source {
    /// Foursquare check-ins of New York (scripts/fetch-nyc fetches them): real visits, made-up bids and creatives
    CheckIns(CheckInArgs),
}

impl ImportArgs {
    /// Runs the import.
    ///
    /// # Errors
    /// Names the file, line, column, value and what was expected, or the option that asks for too much.
    pub fn run(self) -> anyhow::Result<()> {
        match self.source {
            Source::CheckIns(args) => args.run(),
        }
    }
}

#[derive(Debug, Args)]
struct CheckInArgs {
    /// The check-ins: tid, lat_lon, date_time, time, rating, price, weather, day, root_type, type
    #[arg(long, value_name = "FILE")]
    csv: PathBuf,
    /// Directory to write items, requests, visits, held-out visits, labels and a summary to; made if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seed of everything made up
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests to write [default: one per user]; further ones of a user end at earlier visits
    #[arg(long, value_name = "N")]
    requests: Option<usize>,
    /// Users to keep, drawn by the seed [default: all]
    #[arg(long, value_name = "N")]
    users: Option<usize>,
    /// Keep only the N places with the most visitors, residences left out [default: all places]
    #[arg(long, value_name = "N")]
    pois: Option<usize>,
    /// Behaviours of a history, the latest ones
    #[arg(long, value_name = "N", default_value_t = 256)]
    history: usize,
}

impl CheckInArgs {
    fn run(self) -> anyhow::Result<()> {
        for (option, value) in [("--requests", self.requests), ("--users", self.users), ("--pois", self.pois)]
        {
            ensure!(value != Some(0), "{option} is 0, expected at least 1");
        }
        let mut data = checkins::read(&self.csv)?;
        if let Some(pois) = self.pois {
            select::keep_places(&mut data, pois);
        }
        select::keep_users(&mut data, self.users, self.seed)
            .map_err(|e| anyhow!("{}: {e}", self.csv.display()))?;
        let plan = requests::plan(&data, self.requests)?;
        let world = world::World::make(&data, &requests::popularity(&data, &plan), self.seed);
        write::all(
            &self.out,
            &data,
            &world,
            &plan,
            &write::Settings { seed: self.seed, history: self.history },
        )
    }
}
