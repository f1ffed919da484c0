//! Every visit of every user.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use serde::Deserialize;

use super::Catalog;
use crate::files;

/// Visits nearer to the user's last one than this may not be learned from: those of test requests and their futures.
pub const HELD_BACK: usize = 10;

/// The visits of all users, in the order of user numbers.
#[derive(Debug)]
pub struct Visits {
    /// Number of each user.
    pub users: Vec<u64>,
    /// Each user's visits in time order.
    pub of: Vec<Vec<Visit>>,
}

/// One visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// Index of the item.
    pub item: usize,
    /// Index of the creative that the user came by.
    pub creative: usize,
    /// Hour of the day.
    pub hour: usize,
}

#[derive(Deserialize)]
struct VisitLine {
    user: u64,
    visit: usize,
    second: i64,
    item: u64,
    creative: u64,
    context: ContextLine,
}

#[derive(Deserialize)]
struct ContextLine {
    hour: usize,
}

impl Visits {
    /// Reads `visits.jsonl`.
    ///
    /// # Errors
    /// Names file, line, field, value and what was expected: items and creatives that are unknown, hours that are
    /// none, visits of a user out of order or going back in time, no visits at all.
    pub fn read(path: &Path, catalog: &Catalog) -> anyhow::Result<Self> {
        let mut users = BTreeMap::<u64, (i64, Vec<Visit>)>::new();
        for (line, visit) in files::read_lines::<VisitLine>(path)? {
            let (last, visits) = users.entry(visit.user).or_insert_with(|| (visit.second, Vec::new()));
            let checked = check(&visit, *last, visits.len(), catalog)
                .map_err(|e| anyhow!("{}:{line}: {e:#}", path.display()))?;
            *last = visit.second;
            visits.push(checked);
        }
        ensure!(!users.is_empty(), "{}: holds no visits, expected one a line", path.display());
        let (users, of) = users.into_iter().map(|(user, (_, visits))| (user, visits)).unzip();
        Ok(Self { users, of })
    }

    /// Index of a user.
    ///
    /// # Errors
    /// If the user has no visits.
    pub fn user(&self, number: u64) -> anyhow::Result<usize> {
        self.users.binary_search(&number).map_err(|_| anyhow!("is {number}, expected a user of visits.jsonl"))
    }

    /// The visits of a user that may be learned from: all but the last [`HELD_BACK`].
    pub fn known(&self, user: usize) -> &[Visit] {
        let visits = &self.of[user];
        &visits[..visits.len().saturating_sub(HELD_BACK)]
    }
}

fn check(line: &VisitLine, last: i64, expected: usize, catalog: &Catalog) -> anyhow::Result<Visit> {
    ensure!(line.visit == expected, "`visit`: is {}, expected {expected}, the user's next", line.visit);
    ensure!(line.second >= last, "`second`: is {}, expected at least {last}, the visit before", line.second);
    ensure!(line.context.hour < 24, "`context.hour`: is {}, expected 0 to 23", line.context.hour);
    let item = catalog.item(line.item).context("`item`")?;
    let creative = catalog.creative(item, line.creative).context("`creative`")?;
    Ok(Visit { item, creative, hour: line.context.hour })
}
