//! The report: the paper's tables and figures with intervals, of an experiment's outcomes.

mod bootstrap;
mod curves;
mod experiment;
mod figures;
mod grid;
mod html;
mod markdown;
mod paper;
mod sums;
mod svg;
mod tables;

use std::path::Path;

use bootstrap::Bootstrap;
use experiment::Experiment;
use grid::Grid;
use svg::Chart;

use crate::files;
use tables::Measured;

/// How intervals are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Samples of the bootstrap.
    pub samples: usize,
    /// Its seed.
    pub seed: u64,
}

/// What is to be shown.
#[derive(Debug)]
struct Report {
    title: String,
    about: String,
    tables: Vec<Grid>,
    figures: Vec<Chart>,
    sweeps: Vec<Grid>,
    curves: Vec<Chart>,
    notes: Vec<String>,
}

/// Writes `index.html` and `report.md` of an experiment into `out`.
///
/// # Errors
/// Names file, row or line, field, value and what was expected.
pub fn write(experiment: &Path, intervals: Intervals, out: &Path) -> anyhow::Result<()> {
    let experiment = Experiment::read(experiment)?;
    let users = experiment.users();
    let about = about(&experiment, users.len(), intervals);
    let bootstrap = Bootstrap::new(users, intervals.samples, intervals.seed);
    let measured = Measured::all(&experiment, &bootstrap);
    let mut curves = Vec::new();
    for curve in &experiment.curves {
        curves.extend(curves::panels(curve)?);
    }
    let report = Report {
        title: experiment.title.clone(),
        about,
        tables: tables::tables(&measured),
        figures: figures::figures(&measured),
        sweeps: tables::sweeps(&measured),
        curves,
        notes: experiment.notes.clone(),
    };
    files::write(&out.join("index.html"), html::page(&report).as_bytes())?;
    files::write(&out.join("report.md"), markdown::document(&report).as_bytes())
}

/// How many of what, and how intervals are meant.
fn about(experiment: &Experiment, users: usize, intervals: Intervals) -> String {
    let range = |of: fn(&experiment::Group) -> usize| {
        let (least, most) = experiment
            .groups
            .iter()
            .map(of)
            .fold((usize::MAX, 0), |(least, most), n| (least.min(n), most.max(n)));
        if least == most { most.to_string() } else { format!("{least} to {most}") }
    };
    format!(
        "{} requests of {users} users; {} seeds a variant, averaged. In brackets 95 % intervals: percentiles of a \
         bootstrap of {} samples that draws whole users.",
        range(|group| group.requests),
        range(|group| group.seeds.len()),
        intervals.samples
    )
}
