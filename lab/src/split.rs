//! Which requests are trained on and which are judged, by how far their visit is from the user's last.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{anyhow, ensure};
use serde::Deserialize;

use crate::data::{self, HELD_BACK, Id, Visits};
use crate::files::{self, Lines};

/// Visits from a request's own to the user's last, both counted: of requests that are judged. Each has at least five
/// real next visits.
pub const TEST: RangeInclusive<usize> = 5..=HELD_BACK;
/// The same of requests that may be trained on.
pub const TRAIN: RangeInclusive<usize> = HELD_BACK + 1..=30;

/// The file of the requests of [`TRAIN`].
pub const TRAIN_FILE: &str = "requests-train.jsonl";
/// The file of the requests of [`TEST`].
pub const TEST_FILE: &str = "requests-test.jsonl";

#[derive(Deserialize)]
struct Named {
    id: Id,
}

/// Writes `requests-train.jsonl` and `requests-test.jsonl` of an import into its directory, lines as they are in
/// `requests.jsonl`; says how many there are of each.
///
/// # Errors
/// Names file, line, field and value; a part without requests is an error.
pub fn split(dir: &Path, visits: &Visits) -> anyhow::Result<(usize, usize)> {
    let held_out = data::held_out(dir, visits)?;
    let path = dir.join("requests.jsonl");
    let (mut train, mut test) = (Part::create(dir, TRAIN_FILE, TRAIN)?, Part::create(dir, TEST_FILE, TEST)?);
    for (line, text) in files::read_text(&path)? {
        let place = || format!("{}:{line}", path.display());
        let Named { id } = serde_json::from_str(&text).map_err(|e| anyhow!("{}: {e}", place()))?;
        let &(user, visit) = held_out
            .get(&id)
            .ok_or_else(|| anyhow!("{}: `id`: is {id}, expected a request of heldout.jsonl", place()))?;
        let back = visits.of[user].len() - visit;
        train.push(back, &text)?;
        test.push(back, &text)?;
    }
    Ok((train.finish()?, test.finish()?))
}

/// One of the two files.
struct Part {
    name: &'static str,
    backs: RangeInclusive<usize>,
    lines: Lines,
    count: usize,
}

impl Part {
    fn create(dir: &Path, name: &'static str, backs: RangeInclusive<usize>) -> anyhow::Result<Self> {
        Ok(Self { name, backs, lines: Lines::create(&dir.join(name))?, count: 0 })
    }

    fn push(&mut self, back: usize, text: &str) -> anyhow::Result<()> {
        if self.backs.contains(&back) {
            self.count += 1;
            self.lines.push_text(text)?;
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<usize> {
        let Self { name, backs, count, .. } = &self;
        ensure!(*count > 0, "{name}: no request is {backs:?} visits from its user's last, expected some");
        let count = *count;
        self.lines.finish()?;
        Ok(count)
    }
}
