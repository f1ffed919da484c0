//! A request's JSON, checked against the catalog and the configuration.

use std::collections::HashSet;

use serde_json::Value;

use super::files::{Item, Model};

/// A request that is refused, and the field that is at fault (top-level name of the request's JSON; for an
/// unknown key, that key).
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub field: String,
}

fn refuse<T>(field: &str) -> Result<T, Refusal> {
    Err(Refusal { field: field.into() })
}

/// One past behaviour: what it was about, and its features' values.
#[derive(Debug, Clone)]
pub struct Behavior {
    pub codes: Vec<u16>,
    pub creative_codes: Vec<u16>,
    pub features: Vec<(String, usize)>,
}

/// Where ads may stand in the list.
#[derive(Debug, Clone)]
pub struct Policy {
    pub max_ads: usize,
    pub min_gap: usize,
    pub first_ad_slot: usize,
}

/// Multipliers of the list reward.
#[derive(Debug, Clone)]
pub struct Objective {
    pub revenue: f64,
    pub ctr_poi: f64,
    pub ctr_creative: f64,
    pub cvr: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Payment {
    Network,
    Gsp,
    Vcg,
    FirstPrice,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Audit {
    None,
    Fixed,
    Reselect,
    Redecode,
}

/// A request with every default filled in and every id resolved to a row of the catalog.
#[derive(Debug, Clone)]
pub struct Request {
    pub context: Vec<(String, usize)>,
    /// The last B behaviours, oldest first.
    pub history: Vec<Behavior>,
    /// Rows of the ads that take part.
    pub ads: Vec<usize>,
    /// Rows of the organic items that take part, in the request's order.
    pub organic: Vec<usize>,
    pub rejected: Vec<(u64, String)>,
    pub policy: Policy,
    pub alpha: f64,
    pub beta: f64,
    pub objective: Objective,
    pub payment: Payment,
    /// `bid_aggregate` is `mean`, not `max`.
    pub mean: bool,
    /// `bid_scope` is `code`, not `prefix`.
    pub code_scope: bool,
    pub list_len: usize,
    pub beam_width: usize,
    pub tie_seed: u64,
    pub squash: f64,
    pub redecode: bool,
    pub marginal: bool,
    pub audit: Audit,
}

const KEYS: [&str; 19] = [
    "id",
    "context",
    "history",
    "candidates",
    "organic",
    "policy",
    "alpha",
    "beta",
    "objective",
    "payment",
    "bid_aggregate",
    "bid_scope",
    "list_len",
    "beam_width",
    "tie_seed",
    "squash",
    "counterfactual",
    "marginal",
    "audit",
];

impl Request {
    /// Reads and checks a request.
    pub fn read(model: &Model, json: &Value) -> Result<Self, Refusal> {
        let config = &model.config;
        known_keys(json, &KEYS)?;
        if !json["id"].is_string() {
            return refuse("id");
        }
        let context = match json.get("context") {
            None => Vec::new(),
            Some(values) => features(values, &config.context_features, "context")?,
        };
        let history = read_history(model, json)?;
        let mut rejected = Vec::new();
        let ads = read_candidates(model, json, &mut rejected)?;
        let organic = read_organic(model, json, &mut rejected)?;
        let payment = match choice(json, "payment", &["network", "gsp", "vcg", "first_price"])? {
            0 => Payment::Network,
            1 => Payment::Gsp,
            2 => Payment::Vcg,
            _ => Payment::FirstPrice,
        };
        let audit = match choice(json, "audit", &["none", "fixed", "reselect", "redecode"])? {
            0 => Audit::None,
            1 => Audit::Fixed,
            2 => Audit::Reselect,
            _ => Audit::Redecode,
        };
        let objective = read_objective(json)?;
        if payment == Payment::Vcg && objective.revenue == 0.0 {
            return refuse("objective");
        }
        let list_len = count(json, "list_len", config.list_len)?;
        if list_len == 0 || list_len > config.list_len {
            return refuse("list_len");
        }
        let beam_width = count(json, "beam_width", config.beam_width)?;
        if beam_width == 0 {
            return refuse("beam_width");
        }
        let marginal = match json.get("marginal") {
            None => false,
            Some(Value::Bool(asked)) => *asked,
            Some(_) => return refuse("marginal"),
        };
        Ok(Self {
            context,
            history,
            ads,
            organic,
            rejected,
            policy: read_policy(json)?,
            alpha: real(json, "alpha", config.alpha, 16.0)?,
            beta: real(json, "beta", config.beta, 1e12)?,
            objective,
            payment,
            mean: choice(json, "bid_aggregate", &["max", "mean"])? == 1,
            code_scope: choice(json, "bid_scope", &["prefix", "code"])? == 1,
            list_len,
            beam_width,
            tie_seed: match json.get("tie_seed") {
                None => 0,
                Some(seed) => seed.as_u64().ok_or(Refusal { field: "tie_seed".into() })?,
            },
            squash: real(json, "squash", 1.0, f64::MAX)?,
            redecode: choice(json, "counterfactual", &["beams", "redecode"])? == 1,
            marginal,
            audit,
        })
    }
}

fn known_keys(json: &Value, keys: &[&str]) -> Result<(), Refusal> {
    let Some(object) = json.as_object() else { return refuse("") };
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => refuse(key),
        None => Ok(()),
    }
}

/// A number in `[0, high]`.
fn real(json: &Value, key: &str, default: f64, high: f64) -> Result<f64, Refusal> {
    match json.get(key).map(Value::as_f64) {
        None => Ok(default),
        Some(Some(x)) if (0.0..=high).contains(&x) => Ok(x),
        Some(_) => refuse(key),
    }
}

fn count(json: &Value, key: &str, default: usize) -> Result<usize, Refusal> {
    match json.get(key).map(Value::as_u64) {
        None => Ok(default),
        Some(Some(n)) => Ok(n as usize),
        Some(None) => refuse(key),
    }
}

/// Index of the chosen word; the first one is the default.
fn choice(json: &Value, key: &str, words: &[&str]) -> Result<usize, Refusal> {
    match json.get(key) {
        None => Ok(0),
        Some(word) => words.iter().position(|w| word == w).ok_or(Refusal { field: key.into() }),
    }
}

fn read_policy(json: &Value) -> Result<Policy, Refusal> {
    let none = Value::Object(Default::default());
    let policy = json.get("policy").unwrap_or(&none);
    known_keys(policy, &["max_ads", "min_gap", "first_ad_slot"])?;
    let read = |key, default| count(policy, key, default).or_else(|_| refuse("policy"));
    Ok(Policy {
        max_ads: read("max_ads", usize::MAX)?,
        min_gap: read("min_gap", 0)?,
        first_ad_slot: read("first_ad_slot", 0)?,
    })
}

fn read_objective(json: &Value) -> Result<Objective, Refusal> {
    let none = Value::Object(Default::default());
    let objective = json.get("objective").unwrap_or(&none);
    known_keys(objective, &["revenue", "ctr_poi", "ctr_creative", "cvr"])?;
    let read = |key, default| real(objective, key, default, f64::MAX).or_else(|_| refuse("objective"));
    Ok(Objective {
        revenue: read("revenue", 1.0)?,
        ctr_poi: read("ctr_poi", 0.0)?,
        ctr_creative: read("ctr_creative", 0.0)?,
        cvr: read("cvr", 0.0)?,
    })
}

/// Feature values by name; a feature that is not given adds nothing to its token.
fn features(
    json: &Value,
    sizes: &std::collections::HashMap<String, usize>,
    field: &str,
) -> Result<Vec<(String, usize)>, Refusal> {
    let Some(object) = json.as_object() else { return refuse(field) };
    let mut values = Vec::new();
    for (name, value) in object {
        match (sizes.get(name), value.as_u64()) {
            (Some(&size), Some(value)) if (value as usize) < size => {
                values.push((name.clone(), value as usize))
            }
            _ => return refuse(field),
        }
    }
    Ok(values)
}

fn read_history(model: &Model, json: &Value) -> Result<Vec<Behavior>, Refusal> {
    let Some(entries) = json["history"].as_array() else { return refuse("history") };
    let mut history = Vec::new();
    for entry in entries {
        known_keys(entry, &["item", "creative", "codes", "creative_codes", "features"])?;
        history.push(read_behavior(model, entry).ok_or(Refusal { field: "history".into() })?);
    }
    let first = history.len().saturating_sub(model.config.history_len);
    Ok(history.split_off(first))
}

fn read_behavior(model: &Model, entry: &Value) -> Option<Behavior> {
    let config = &model.config;
    let codes_of = |value: &Value, layers: usize| -> Option<Vec<u16>> {
        let codes: Vec<u64> = value.as_array()?.iter().map(Value::as_u64).collect::<Option<_>>()?;
        let fits = codes.len() == layers && codes.iter().all(|&code| code < config.codebook_size as u64);
        fits.then(|| codes.iter().map(|&code| code as u16).collect())
    };
    // Reading: ids or codes, never both, and not one of each.
    let (codes, creative_codes) = match (entry.get("item"), entry.get("codes")) {
        (Some(item), None) if entry.get("creative_codes").is_none() => {
            let item = model.item(item.as_u64()?)?;
            let creative = entry.get("creative")?.as_u64()?;
            let creative = item.creatives.iter().find(|c| c.id == creative)?;
            (item.codes.clone(), creative.codes.clone())
        }
        (None, Some(codes)) if entry.get("creative").is_none() => (
            codes_of(codes, config.poi_code_layers)?,
            codes_of(entry.get("creative_codes")?, config.creative_code_layers)?,
        ),
        _ => return None,
    };
    let features = match entry.get("features") {
        None => Vec::new(),
        Some(values) => features(values, &config.behavior_features, "history").ok()?,
    };
    Some(Behavior { codes, creative_codes, features })
}

/// Why an item that the request may name takes no part in it.
fn reason_to_reject(item: &Item) -> Option<&'static str> {
    if !item.active {
        Some("inactive")
    } else if item.creatives.is_empty() {
        Some("no creative")
    } else if item.budget_spent {
        Some("budget spent")
    } else if item.is_ad && item.bid < item.reserve {
        Some("bid below reserve")
    } else {
        None
    }
}

/// Rows of distinct items of one kind that the request names in `field`.
fn rows_of(model: &Model, ids: &Value, ads: bool, field: &str) -> Result<Vec<usize>, Refusal> {
    let Some(ids) = ids.as_array() else { return refuse(field) };
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    for id in ids {
        let row = id.as_u64().and_then(|id| model.items.iter().position(|item| item.id == id));
        match row {
            Some(row) if model.items[row].is_ad == ads && seen.insert(row) => rows.push(row),
            _ => return refuse(field),
        }
    }
    Ok(rows)
}

fn admit(model: &Model, rows: Vec<usize>, rejected: &mut Vec<(u64, String)>) -> Vec<usize> {
    let mut admitted = Vec::new();
    for row in rows {
        match reason_to_reject(&model.items[row]) {
            Some(reason) => rejected.push((model.items[row].id, reason.into())),
            None => admitted.push(row),
        }
    }
    admitted
}

fn read_candidates(
    model: &Model,
    json: &Value,
    rejected: &mut Vec<(u64, String)>,
) -> Result<Vec<usize>, Refusal> {
    // Reading: "all" names every ad of the catalog, so those that cannot take part are reported as rejected too.
    let rows = if json["candidates"] == "all" {
        (0..model.items.len()).filter(|&row| model.items[row].is_ad).collect()
    } else {
        rows_of(model, &json["candidates"], true, "candidates")?
    };
    Ok(admit(model, rows, rejected))
}

fn read_organic(
    model: &Model,
    json: &Value,
    rejected: &mut Vec<(u64, String)>,
) -> Result<Vec<usize>, Refusal> {
    match json.get("organic") {
        None => Ok(Vec::new()),
        Some(ids) => Ok(admit(model, rows_of(model, ids, false, "organic")?, rejected)),
    }
}
