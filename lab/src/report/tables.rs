//! The paper's tables, from what was measured.

use super::bootstrap::{Bootstrap, Estimate, Samples, estimate, paired, samples};
use super::experiment::{Experiment, Group, Table};
use super::grid::{Cell, Grid, signed};
use super::paper;
use super::sums::{
    AD_LOAD, CHARGED, CONVERSIONS, CTR_IMG, CTR_POI, Metric, NO_UTILITY, PREDICTED_CTR_IMG,
    PREDICTED_CTR_POI, PREDICTED_RPM, PSI, PSI_MEAN, RPM, Sums, VALUE,
};

/// The variant that all others are held against.
pub const REFERENCE: &str = "EGA";

/// A group and its sums in each sample.
#[derive(Debug)]
pub struct Measured<'a> {
    /// The group.
    pub group: &'a Group,
    sums: Vec<Vec<Sums>>,
}

impl<'a> Measured<'a> {
    /// Every group of an experiment.
    pub fn all(experiment: &'a Experiment, bootstrap: &Bootstrap) -> Vec<Self> {
        experiment.groups.iter().map(|group| Self { group, sums: bootstrap.sums(group) }).collect()
    }

    fn samples(&self, metric: &Metric) -> Samples {
        samples(&self.sums, metric)
    }

    /// A metric with its interval.
    pub fn estimate(&self, metric: &Metric) -> Option<Estimate> {
        estimate(&self.samples(metric))
    }

    fn cell(&self, metric: &Metric) -> Cell {
        Cell::estimate(self.estimate(metric), metric)
    }
}

/// The tables of a report, those without rows left out.
pub fn tables(measured: &[Measured]) -> Vec<Grid> {
    let reference = || reference(measured);
    let of = |wanted: Table| measured.iter().filter(move |m| m.group.table == wanted);
    let competitors: Vec<&Measured> = of(Table::Competitors).collect();
    let bounded: Vec<&Measured> = competitors.iter().copied().chain(of(Table::Bounds)).collect();
    let ablations: Vec<&Measured> = of(Table::Ablations).collect();
    let ablations = match reference() {
        Some(ega) if !ablations.is_empty() && ablations.iter().all(|m| m.group.variant != REFERENCE) => {
            [vec![ega], ablations].concat()
        }
        _ => ablations,
    };
    let mut grids = vec![
        by_truth("Table 2. EGA and its competitors", &bounded),
        differences("Table 2. Against EGA", &competitors, reference()),
        by_predictions("Table 2 by the reward model", &competitors),
        by_truth("Table 3. EGA less one of its parts", &ablations),
        differences("Table 3. Against EGA", &ablations, reference()),
        by_predictions("Table 3 by the reward model", &ablations),
        regrets(measured),
    ];
    grids.retain(|grid| !grid.rows.is_empty());
    grids
}

/// The points of each sweep.
pub fn sweeps(measured: &[Measured]) -> Vec<Grid> {
    let of = |table: Table| measured.iter().filter(|m| m.group.table == table).collect::<Vec<_>>();
    let named = [(Table::Alpha, "alpha"), (Table::Beta, "beta"), (Table::Rho, "rho")];
    let grids = named.into_iter().map(|(table, name)| sweep(name, &of(table)));
    grids.filter(|grid| !grid.rows.is_empty()).collect()
}

fn reference<'a, 'b>(measured: &'b [Measured<'a>]) -> Option<&'b Measured<'a>> {
    let in_tables = |m: &&Measured| matches!(m.group.table, Table::Competitors | Table::Ablations);
    measured.iter().filter(in_tables).find(|m| m.group.variant == REFERENCE)
}

fn grid(title: &str, caption: &str, first: &str, metrics: &[Metric], rows: &[&Measured]) -> Grid {
    let head = std::iter::once(first).chain(metrics.iter().map(|metric| metric.name));
    let row = |m: &&Measured| -> Vec<Cell> {
        let cells = metrics.iter().map(|metric| m.cell(metric));
        std::iter::once(Cell::text(&m.group.variant)).chain(cells).collect()
    };
    Grid {
        title: title.to_owned(),
        caption: caption.to_owned(),
        head: head.map(str::to_owned).collect(),
        rows: rows.iter().map(row).collect(),
    }
}

fn by_truth(title: &str, rows: &[&Measured]) -> Grid {
    let mut caption =
        "By the world's truth. Value is what RPM would be if all paid what a click is worth to them; \
                       Charged is the share of it that is paid."
            .to_owned();
    if rows.iter().any(|m| m.group.table == Table::Bounds) {
        caption.push_str(
            " Random lists and the oracle, which knows the truth and the future, pay their bids; they bound the table.",
        );
    }
    let metrics = [RPM, VALUE, CHARGED, CTR_POI, CTR_IMG, CONVERSIONS, AD_LOAD, PSI, PSI_MEAN];
    grid(title, &caption, "Model", &metrics, rows)
}

fn by_predictions(title: &str, rows: &[&Measured]) -> Grid {
    let caption = "By each model's own predictions, as the paper measures. A model that chooses among lists by its own \
                   predictions favours those that it overrates.";
    grid(title, caption, "Model", &[PREDICTED_RPM, PREDICTED_CTR_POI, PREDICTED_CTR_IMG], rows)
}

/// RPM and click rates relative to the reference, Psi in points, each beside the paper's figure.
fn differences(title: &str, rows: &[&Measured], reference: Option<&Measured>) -> Grid {
    let mut grid = Grid {
        title: title.to_owned(),
        caption: "Relative differences by the world's truth, Ψ (ratio of sums) in points; intervals are of the \
                  difference itself, both variants answering the same users. In italics the paper's figures on its own \
                  data. The last column says whether RPM differs as in the paper."
            .to_owned(),
        head: ["Model", RPM.name, VALUE.name, CTR_POI.name, CTR_IMG.name, PSI.name, "As in the paper"]
            .map(str::to_owned)
            .to_vec(),
        rows: Vec::new(),
    };
    let Some(reference) = reference else { return grid };
    for m in rows.iter().filter(|m| m.group.variant != REFERENCE) {
        let paper = paper::row(&m.group.variant);
        let against = |metric: &Metric, of: fn(f64, f64) -> f64| {
            estimate(&paired(&m.samples(metric), &reference.samples(metric), of))
        };
        let relative = |a: f64, b: f64| 100.0 * (a / b - 1.0);
        let mut row = vec![Cell::text(&m.group.variant)];
        let lift = |i: usize| paper.map(|row| row.lifts[i]);
        let metrics = [(RPM, lift(0)), (VALUE, None), (CTR_POI, lift(1)), (CTR_IMG, lift(2))];
        for (metric, paper) in metrics {
            let cell = Cell::difference(against(&metric, relative), 1, " %");
            row.push(beside(cell, paper, " %"));
        }
        let psi = Cell::difference(against(&PSI, |a, b| a - b), 2, "");
        row.push(beside(psi, paper.map(|row| row.psi - paper::EGA_PSI), ""));
        let verdict = paper.map_or("–", |row| verdict(against(&RPM, relative), row.lifts[0]));
        row.push(Cell::text(verdict));
        grid.rows.push(row);
    }
    grid
}

/// A cell with the paper's figure beside the interval.
fn beside(mut cell: Cell, paper: Option<f64>, unit: &str) -> Cell {
    if let Some(paper) = paper {
        cell.note = format!("{} *{}{unit}*", cell.note, signed(paper, 1));
    }
    cell
}

/// Whether a difference goes where the paper's goes, as far as its interval tells.
fn verdict(difference: Option<Estimate>, paper: f64) -> &'static str {
    match difference {
        None => "–",
        Some(d) if d.low <= 0.0 && d.high >= 0.0 => "not told apart",
        Some(d) if d.value.signum() == paper.signum() => "yes",
        Some(_) => "no, the other way",
    }
}

/// Psi of every audited variant, tier by tier.
fn regrets(measured: &[Measured]) -> Grid {
    let audited = |m: &&Measured| {
        m.group.tier.is_some()
            && matches!(m.group.table, Table::Competitors | Table::Ablations | Table::Psi | Table::Bounds)
    };
    let row = |m: &Measured| {
        vec![
            Cell::text(&m.group.variant),
            Cell::text(m.group.tier.as_deref().unwrap_or_default()),
            m.cell(&PSI),
            m.cell(&PSI_MEAN),
            m.cell(&NO_UTILITY),
        ]
    };
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for m in measured.iter().filter(audited) {
        let row = row(m);
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    Grid {
        title: "Ψ, what advertisers could gain by other bids".to_owned(),
        caption: "By each model's own predictions. Tiers measure different things: fixed keeps the list, reselect \
                  picks again among the candidate lists, redecode runs everything again. The ratio of sums is all \
                  regrets over all truthful utilities; the mean of ratios is the paper's formula, of ads with \
                  utility alone."
            .to_owned(),
        head: ["Model", "Tier", PSI.name, PSI_MEAN.name, NO_UTILITY.name].map(str::to_owned).to_vec(),
        rows,
    }
}

/// The points of a sweep.
fn sweep(name: &str, rows: &[&Measured]) -> Grid {
    let metrics = [RPM, VALUE, CHARGED, CTR_POI, CTR_IMG, AD_LOAD, PSI];
    let mut grid = grid(&format!("Over {name}"), "By the world's truth.", "Model", &metrics, rows);
    grid.head.insert(1, name.to_owned());
    for (cells, m) in grid.rows.iter_mut().zip(rows) {
        cells.insert(1, Cell::text(m.group.x.map_or_else(String::new, |x| x.to_string())));
    }
    grid
}
