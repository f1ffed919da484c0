//! A request checked against the model, the snapshot and the engine's limits, and turned into rows and codes.

use std::collections::{BTreeMap, HashSet};

use crate::catalog::{ItemKind, Rejection, Snapshot};
use crate::decode::candidates::Ads;
use crate::decode::search::SearchRules;
use crate::engine::Limits;
use crate::error::RequestErrorKind::{Duplicate, Invalid, Limit, Unknown};
use crate::error::{RequestError, RequestErrorKind};
use crate::model::config::ModelConfig;
use crate::model::encoder::{History, HistoryEntry};
use crate::request::{Behavior, Candidates, PaymentRule, Request};
use crate::response::{MAX_REJECTED_OF_ALL, RejectedItem};

/// A request that can be run.
pub struct Resolved<'s> {
    /// The history as codes.
    pub history: History,
    /// The ads that may be shown.
    pub ads: Ads<'s>,
    /// The organic items that may be shown, in their order (rows of the snapshot).
    pub organic: Vec<u32>,
    /// Items that were named but cannot take part.
    pub rejected: Vec<RejectedItem>,
    /// The rules of the search.
    pub rules: SearchRules,
}

type Outcome<T> = Result<T, RequestError>;

fn refuse<T>(kind: RequestErrorKind, field: impl Into<String>, message: String) -> Outcome<T> {
    Err(RequestError::new(kind, field, message))
}

/// Checks a request against everything it refers to.
///
/// # Errors
/// The first fault found, naming its field.
pub fn resolve<'s>(
    request: &Request,
    config: &ModelConfig,
    limits: &Limits,
    snapshot: &'s Snapshot,
) -> Outcome<Resolved<'s>> {
    let rules = rules(request, config, limits)?;
    check_objective(request)?;
    let history = history(request, config, limits, snapshot)?;
    let mut rejected = Vec::new();
    let ads = ads(request, limits, snapshot, &mut rejected)?;
    let organic = organic(request, limits, snapshot, &mut rejected)?;
    Ok(Resolved { history, ads, organic, rejected, rules })
}

fn rules(request: &Request, config: &ModelConfig, limits: &Limits) -> Outcome<SearchRules> {
    let list_len = request.list_len.unwrap_or(config.list_len);
    if list_len == 0 || list_len > config.list_len {
        return refuse(Invalid, "list_len", format!("is {list_len}, expected 1 to {}", config.list_len));
    }
    if list_len > limits.slots {
        return refuse(Limit, "list_len", format!("is {list_len}, the engine's limit is {}", limits.slots));
    }
    let beam_width = request.beam_width.unwrap_or(config.beam_width);
    if beam_width == 0 {
        return refuse(Invalid, "beam_width", "is 0, expected at least 1".into());
    }
    if beam_width > limits.beams {
        return refuse(
            Limit,
            "beam_width",
            format!("is {beam_width}, the engine's limit is {}", limits.beams),
        );
    }
    let alpha = request.alpha.unwrap_or(config.alpha);
    let beta = request.beta.unwrap_or(config.beta);
    in_range("alpha", alpha, 16.0)?;
    in_range("beta", beta, 1e12)?;
    in_range("squash", request.squash, f64::MAX)?;
    Ok(SearchRules {
        list_len,
        beam_width,
        policy: request.policy.clone(),
        alpha,
        beta,
        aggregate: request.bid_aggregate,
        scope: request.bid_scope,
        tie_seed: request.tie_seed,
        bid_unit: config.bid_unit_micros,
        code_layers: config.poi_code_layers,
        codebook_size: config.codebook_size,
    })
}

fn in_range(field: &str, value: f64, high: f64) -> Outcome<()> {
    if (0.0..=high).contains(&value) {
        return Ok(());
    }
    let expected =
        if high == f64::MAX { "a finite number, 0 or more".into() } else { format!("0 to {high}") };
    refuse(Invalid, field, format!("is {value}, expected {expected}"))
}

fn check_objective(request: &Request) -> Outcome<()> {
    let o = &request.objective;
    let parts =
        [("revenue", o.revenue), ("ctr_poi", o.ctr_poi), ("ctr_creative", o.ctr_creative), ("cvr", o.cvr)];
    for (name, value) in parts {
        in_range(&format!("objective.{name}"), value, f64::MAX)?;
    }
    if request.payment == PaymentRule::Vcg && o.revenue == 0.0 {
        return refuse(Invalid, "objective.revenue", "is 0, but vcg prices need it above 0".into());
    }
    Ok(())
}

fn history(
    request: &Request,
    config: &ModelConfig,
    limits: &Limits,
    snapshot: &Snapshot,
) -> Outcome<History> {
    let skip = request.history.len().saturating_sub(config.history_len);
    let kept = &request.history[skip..];
    if kept.len() > limits.history {
        let message = format!("has {} behaviours, the engine's limit is {}", kept.len(), limits.history);
        return refuse(Limit, "history", message);
    }
    Ok(History {
        context: features("context", &request.context, &config.context_features)?,
        behaviors: kept
            .iter()
            .enumerate()
            .map(|(i, behavior)| entry(&format!("history[{}]", skip + i), behavior, config, snapshot))
            .collect::<Outcome<_>>()?,
    })
}

fn features(
    field: &str,
    given: &BTreeMap<String, u32>,
    known: &BTreeMap<String, usize>,
) -> Outcome<Vec<(usize, u32)>> {
    let mut out = Vec::with_capacity(given.len());
    for (name, &value) in given {
        let field = format!("{field}.{name}");
        let Some(index) = known.keys().position(|k| k == name) else {
            let names: Vec<_> = known.keys().collect();
            return refuse(
                Unknown,
                field,
                format!("is not a feature of the model, expected one of {names:?}"),
            );
        };
        let size = known[name];
        if value as usize >= size {
            return refuse(Invalid, field, format!("is {value}, expected 0 to {}", size - 1));
        }
        out.push((index, value));
    }
    Ok(out)
}

fn entry(field: &str, b: &Behavior, config: &ModelConfig, snapshot: &Snapshot) -> Outcome<HistoryEntry> {
    let item = match (b.item, &b.codes) {
        (Some(id), None) => match snapshot.find(id) {
            Some(item) => Some(item),
            None => {
                return refuse(Unknown, format!("{field}.item"), format!("item {id} is not in the catalog"));
            }
        },
        (None, Some(_)) => None,
        _ => return refuse(Invalid, field, "expected either `item` or `codes`".into()),
    };
    let codes = match (item, &b.codes) {
        (Some(item), _) => snapshot.codes(item).to_vec(),
        (None, codes) => {
            let codes = codes.as_deref().unwrap_or_default();
            check_codes(&format!("{field}.codes"), codes, config.poi_code_layers, config)?
        }
    };
    let creative_codes = match (b.creative, &b.creative_codes) {
        (Some(id), None) => creative_codes(field, id, item, snapshot)?,
        (None, Some(codes)) => {
            check_codes(&format!("{field}.creative_codes"), codes, config.creative_code_layers, config)?
        }
        _ => return refuse(Invalid, field, "expected either `creative` or `creative_codes`".into()),
    };
    let features = features(&format!("{field}.features"), &b.features, &config.behavior_features)?;
    Ok(HistoryEntry { codes, creative_codes, features })
}

fn creative_codes(field: &str, id: u64, item: Option<u32>, snapshot: &Snapshot) -> Outcome<Vec<u16>> {
    let Some(item) = item else {
        return refuse(
            Invalid,
            format!("{field}.creative"),
            format!("is {id}, but a creative is named within an `item`; expected `creative_codes`"),
        );
    };
    match snapshot.creatives(item).find(|&c| snapshot.creative_id(c) == id) {
        Some(creative) => Ok(snapshot.creative_codes(creative).to_vec()),
        None => refuse(
            Unknown,
            format!("{field}.creative"),
            format!("item {} has no creative {id}", snapshot.id(item)),
        ),
    }
}

fn check_codes(field: &str, codes: &[u16], layers: usize, config: &ModelConfig) -> Outcome<Vec<u16>> {
    if codes.len() != layers {
        return refuse(Invalid, field, format!("has {} codes, expected {layers}", codes.len()));
    }
    match codes.iter().find(|&&code| usize::from(code) >= config.codebook_size) {
        Some(code) => {
            refuse(Invalid, field, format!("holds code {code}, expected below {}", config.codebook_size))
        }
        None => Ok(codes.to_vec()),
    }
}

fn ads<'s>(
    request: &Request,
    limits: &Limits,
    snapshot: &'s Snapshot,
    rejected: &mut Vec<RejectedItem>,
) -> Outcome<Ads<'s>> {
    let Candidates::Items(ids) = &request.candidates else {
        reject_of_all(snapshot, rejected);
        return Ok(Ads::all(snapshot));
    };
    if ids.len() > limits.candidates {
        let message = format!("names {} ads, the engine's limit is {}", ids.len(), limits.candidates);
        return refuse(Limit, "candidates", message);
    }
    let items = rows("candidates", ids, ItemKind::Ad, snapshot)?;
    Ok(Ads::listed(snapshot, &shown(items, snapshot, rejected)))
}

fn organic(
    request: &Request,
    limits: &Limits,
    snapshot: &Snapshot,
    rejected: &mut Vec<RejectedItem>,
) -> Outcome<Vec<u32>> {
    let ids = &request.organic;
    if ids.len() > limits.candidates {
        let message = format!("names {} items, the engine's limit is {}", ids.len(), limits.candidates);
        return refuse(Limit, "organic", message);
    }
    Ok(shown(rows("organic", ids, ItemKind::Organic, snapshot)?, snapshot, rejected))
}

/// The rows of named items, each of the right kind and named once.
fn rows(field: &str, ids: &[u64], kind: ItemKind, snapshot: &Snapshot) -> Outcome<Vec<u32>> {
    let mut seen = HashSet::with_capacity(ids.len());
    let mut out = Vec::with_capacity(ids.len());
    for (i, &id) in ids.iter().enumerate() {
        let field = || format!("{field}[{i}]");
        let Some(item) = snapshot.find(id) else {
            return refuse(Unknown, field(), format!("item {id} is not in the catalog"));
        };
        if snapshot.kind(item) != kind {
            let (is, expected) =
                if kind == ItemKind::Ad { ("organic", "an ad") } else { ("an ad", "an organic item") };
            return refuse(Invalid, field(), format!("item {id} is {is}, expected {expected}"));
        }
        if !seen.insert(id) {
            return refuse(Duplicate, field(), format!("item {id} is named twice"));
        }
        out.push(item);
    }
    Ok(out)
}

/// The items that may be shown now; the others are noted with the reason.
fn shown(items: Vec<u32>, snapshot: &Snapshot, rejected: &mut Vec<RejectedItem>) -> Vec<u32> {
    items
        .into_iter()
        .filter(|&item| match snapshot.rejection(item) {
            None => true,
            Some(reason) => {
                rejected.push(RejectedItem { item: snapshot.id(item), reason });
                false
            }
        })
        .collect()
}

/// Notes ads of the catalog that cannot take part now, the first so many in code order.
fn reject_of_all(snapshot: &Snapshot, rejected: &mut Vec<RejectedItem>) {
    /// Runs of ads that are all eligible are passed over in blocks of this many.
    const BLOCK: usize = 4096;
    let len = snapshot.ads().len();
    for start in (0..len).step_by(BLOCK) {
        let block = start..len.min(start + BLOCK);
        if snapshot.aggregate(block.clone()).count == block.len() as u64 {
            continue;
        }
        for item in block.map(|p| snapshot.ads().item(p)) {
            if rejected.len() == MAX_REJECTED_OF_ALL {
                return;
            }
            let reason: Option<Rejection> = snapshot.rejection(item);
            rejected.extend(reason.map(|reason| RejectedItem { item: snapshot.id(item), reason }));
        }
    }
}
