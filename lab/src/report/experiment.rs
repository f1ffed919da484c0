//! What was run: `experiment.json`, and the outcomes that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use serde::Deserialize;

use super::sums::Sums;
use crate::files;
use crate::judge::Outcome;

/// The experiment as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExperimentFile {
    title: String,
    rows: Vec<Row>,
    #[serde(default)]
    curves: Vec<Curve>,
    #[serde(default)]
    notes: Vec<String>,
}

/// One run of one variant: where its outcomes are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    table: Table,
    variant: String,
    seed: u64,
    #[serde(default)]
    x: Option<f64>,
    outcomes: PathBuf,
}

/// Columns of a CSV file that make a curve.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// What it is called.
    pub name: String,
    /// The file; relative paths start at the experiment's directory.
    pub csv: PathBuf,
    /// Column along the axis.
    pub x: String,
    /// Columns to draw, a panel each.
    pub y: Vec<String>,
}

/// Where a row belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Table {
    /// Table 2: EGA and its competitors.
    #[serde(rename = "2")]
    Competitors,
    /// Table 3: EGA less one of its parts.
    #[serde(rename = "3")]
    Ablations,
    /// What bounds the tables.
    #[serde(rename = "bound")]
    Bounds,
    /// Further tiers of the audit.
    #[serde(rename = "psi")]
    Psi,
    /// Figure 5, over alpha.
    #[serde(rename = "alpha")]
    Alpha,
    /// Figure 5, over beta.
    #[serde(rename = "beta")]
    Beta,
    /// Revenue and regret over the payment network's rho.
    #[serde(rename = "rho")]
    Rho,
}

impl Table {
    /// Whether its rows are points of a sweep.
    fn is_sweep(self) -> bool {
        matches!(self, Self::Alpha | Self::Beta | Self::Rho)
    }
}

/// The runs of one variant that differ in their seed alone.
#[derive(Debug)]
pub struct Group {
    /// Where it belongs.
    pub table: Table,
    /// Name of the variant.
    pub variant: String,
    /// The swept value.
    pub x: Option<f64>,
    /// Tier of the audit, where there was one.
    pub tier: Option<String>,
    /// Seeds in order, each with its sums by user.
    pub seeds: BTreeMap<u64, BTreeMap<u64, Sums>>,
    /// Requests of every seed.
    pub requests: usize,
}

/// An experiment with its outcomes read.
#[derive(Debug)]
pub struct Experiment {
    /// What the report is called.
    pub title: String,
    /// In the order in which their first rows were written; sweeps by value.
    pub groups: Vec<Group>,
    /// Curves, their paths resolved.
    pub curves: Vec<Curve>,
    /// What else is to be said.
    pub notes: Vec<String>,
}

impl Experiment {
    /// Reads an experiment and all outcomes that it names.
    ///
    /// # Errors
    /// Names file, row, field, value and what was expected. Rows of one table must be of the same requests, or their
    /// differences would mean nothing.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        let mut json = serde_json::Deserializer::from_str(&text);
        let file: ExperimentFile = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| anyhow!("{}: `{}`: {}", path.display(), e.path(), e.inner()))?;
        let dir = path.parent().unwrap_or(Path::new(""));
        let mut reader = Reader::default();
        for (number, row) in file.rows.into_iter().enumerate() {
            let place = || format!("{}: `rows[{number}]`", path.display());
            let outcomes = dir.join(&row.outcomes);
            reader.add(row, &outcomes).map_err(|e| anyhow!("{}: {e:#}", place()))?;
        }
        ensure!(!reader.groups.is_empty(), "{}: `rows`: is empty, expected at least one", path.display());
        let mut groups = reader.groups;
        groups.sort_by(|a, b| {
            a.table.cmp(&b.table).then(a.x.unwrap_or_default().total_cmp(&b.x.unwrap_or_default()))
        });
        let curves =
            file.curves.into_iter().map(|curve| Curve { csv: dir.join(&curve.csv), ..curve }).collect();
        Ok(Self { title: file.title, groups, curves, notes: file.notes })
    }

    /// Every user of any group, in order.
    pub fn users(&self) -> Vec<u64> {
        let seeds = self.groups.iter().flat_map(|group| group.seeds.values());
        seeds.flat_map(BTreeMap::keys).copied().collect::<BTreeSet<u64>>().into_iter().collect()
    }
}

/// Groups so far.
#[derive(Default)]
struct Reader {
    groups: Vec<Group>,
    /// Requests of the first outcomes of each table.
    requests: BTreeMap<Table, BTreeSet<String>>,
}

impl Reader {
    fn add(&mut self, row: Row, outcomes: &Path) -> anyhow::Result<()> {
        let Row { table, variant, seed, x, .. } = row;
        ensure!(
            x.is_some() == table.is_sweep(),
            "`x`: expected of rows of alpha, beta and rho, and of no others"
        );
        ensure!(x.is_none_or(f64::is_finite), "`x`: is not finite");
        let lines: Vec<(usize, Outcome)> = files::read_lines(outcomes)?;
        let file = outcomes.display();
        let ids: BTreeSet<String> = lines.iter().map(|(_, outcome)| outcome.id.to_string()).collect();
        ensure!(!ids.is_empty(), "{file}: holds no outcomes, expected one a line");
        ensure!(ids.len() == lines.len(), "{file}: has a request twice, expected each once");
        let expected = self.requests.entry(table).or_insert_with(|| ids.clone());
        ensure!(*expected == ids, "{file}: is of other requests than the rows above it in the same table");

        let tier = tier(&lines).map_err(|e| anyhow!("{file}: {e}"))?;
        let mut users = BTreeMap::<u64, Sums>::new();
        lines
            .iter()
            .for_each(|(_, outcome)| users.entry(outcome.user).or_default().add(1.0, &Sums::of(outcome)));
        let same = |group: &&mut Group| {
            (group.table, group.x, &group.variant, &group.tier) == (table, x, &variant, &tier)
        };
        let seeds = match self.groups.iter_mut().find(same) {
            Some(group) => &mut group.seeds,
            None => {
                let seeds = BTreeMap::new();
                let group = Group { table, variant, x, tier, seeds, requests: ids.len() };
                self.groups.push(group);
                let last = self.groups.len() - 1;
                &mut self.groups[last].seeds
            }
        };
        ensure!(seeds.insert(seed, users).is_none(), "`seed`: is {seed} again, expected each once");
        Ok(())
    }
}

/// The tier of all audits of a file; none where there are none.
fn tier(lines: &[(usize, Outcome)]) -> anyhow::Result<Option<String>> {
    let mut tiers = lines.iter().filter_map(|(_, outcome)| Some(&outcome.audit.as_ref()?.tier));
    let first = tiers.next();
    if let Some(first) = first {
        ensure!(tiers.all(|tier| tier == first), "`audit.tier`: differs, expected one tier in a file");
    }
    Ok(first.cloned())
}
