//! Requests, and who asks when.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::{Data, Visits};
use crate::files;

/// Name of a request: a text or a number, given back as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(id) => f.write_str(id),
            Self::Number(id) => write!(f, "{id}"),
        }
    }
}

/// A request with what it names looked up: indices, not ids.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Name of the request.
    pub id: Id,
    /// Index of the user.
    pub user: usize,
    /// Index, within the user's visits, of the visit that the request comes just before.
    pub visit: usize,
    /// Hour of the day.
    pub hour: usize,
    /// Items that may be shown as ads, in the request's order.
    pub ads: Vec<usize>,
    /// Organic items in the order in which they must appear.
    pub organic: Vec<usize>,
    /// Where ads may stand.
    pub policy: Policy,
    /// Slots to fill.
    pub list_len: usize,
}

/// Where ads may stand. Slots count from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Most ads in the list; no limit unless given.
    pub max_ads: Option<usize>,
    /// Least number of items between two ads.
    pub min_gap: usize,
    /// First slot an ad may take.
    pub first_ad_slot: usize,
}

/// Who asked: a line of `heldout.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HeldOut {
    /// Name of the request.
    pub id: Id,
    /// Number of the user.
    pub user: u64,
    /// The visit that the request comes just before, within the user's visits.
    pub visit: usize,
}

#[derive(Deserialize)]
struct RequestLine {
    id: Id,
    context: ContextLine,
    candidates: Vec<u64>,
    #[serde(default)]
    organic: Vec<u64>,
    #[serde(default)]
    policy: Policy,
    list_len: Option<usize>,
}

#[derive(Deserialize)]
struct ContextLine {
    hour: usize,
}

/// Reads `heldout.jsonl` of a directory: by request, the user's index and the visit.
///
/// # Errors
/// Names file, line, field, value and what was expected.
pub fn held_out(dir: &Path, visits: &Visits) -> anyhow::Result<HashMap<Id, (usize, usize)>> {
    let path = dir.join("heldout.jsonl");
    let mut by_id = HashMap::new();
    for (line, HeldOut { id, user, visit }) in files::read_lines::<HeldOut>(&path)? {
        let place = || format!("{}:{line}", path.display());
        let user = visits.user(user).context("`user`").with_context(place)?;
        let count = visits.of[user].len();
        ensure!(visit < count, "{}: `visit`: is {visit}, expected below {count}, the user's visits", place());
        let before = by_id.insert(id.clone(), (user, visit));
        ensure!(before.is_none(), "{}: `id`: is {id} again, expected each once", place());
    }
    Ok(by_id)
}

/// Reads requests and looks up what they name. A request without `list_len` has `list_len` slots.
///
/// # Errors
/// Names file, line, field, value and what was expected.
pub fn asks(
    path: &Path,
    data: &Data,
    held_out: &HashMap<Id, (usize, usize)>,
    list_len: usize,
) -> anyhow::Result<Vec<Ask>> {
    let mut asks = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (line, request) in files::read_lines::<RequestLine>(path)? {
        let ask = resolve(request, data, held_out, list_len)
            .and_then(|ask| {
                ensure!(seen.insert(ask.id.clone()), "`id`: is {} again, expected each once", ask.id);
                Ok(ask)
            })
            .map_err(|e| anyhow!("{}:{line}: {e:#}", path.display()))?;
        asks.push(ask);
    }
    ensure!(!asks.is_empty(), "{}: holds no requests, expected one a line", path.display());
    Ok(asks)
}

fn resolve(
    line: RequestLine,
    data: &Data,
    held_out: &HashMap<Id, (usize, usize)>,
    list_len: usize,
) -> anyhow::Result<Ask> {
    let &(user, visit) = held_out
        .get(&line.id)
        .ok_or_else(|| anyhow!("`id`: is {}, expected a request of heldout.jsonl", line.id))?;
    ensure!(line.context.hour < 24, "`context.hour`: is {}, expected 0 to 23", line.context.hour);
    Ok(Ask {
        user,
        visit,
        hour: line.context.hour,
        ads: look_up(&line.candidates, "candidates", true, data)?,
        organic: look_up(&line.organic, "organic", false, data)?,
        policy: line.policy,
        list_len: line.list_len.unwrap_or(list_len),
        id: line.id,
    })
}

fn look_up(ids: &[u64], field: &str, ads: bool, data: &Data) -> anyhow::Result<Vec<usize>> {
    let catalog = &data.catalog;
    let mut seen = std::collections::HashSet::new();
    let mut items = Vec::with_capacity(ids.len());
    for (i, &id) in ids.iter().enumerate() {
        let item = catalog.item(id).with_context(|| format!("`{field}[{i}]`"))?;
        let kind = if ads { "an ad" } else { "an organic item" };
        ensure!(catalog.items[item].ad.is_some() == ads, "`{field}[{i}]`: is {id}, expected {kind}");
        ensure!(seen.insert(item), "`{field}[{i}]`: is {id} again, expected each once");
        items.push(item);
    }
    Ok(items)
}
