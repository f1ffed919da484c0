//! A response (JSON, and optionally its trace) against what the reference computed.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::allocate::{Outcome, Slot};
use super::audit::{AuditedAd, Point, gammas};
use super::request::{Payment, Refusal};

/// How near the figures must be. Items, creatives, bids and counts are exact whatever it says.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Relative, of probabilities, rewards and rates.
    pub figures: f64,
    /// Relative, of payments; a billable unit and a micro come on top.
    pub payments: f64,
    /// Below this margin of the reference, another choice is no fault.
    pub margin: f64,
}

/// What f32 arithmetic allows.
pub const F32: Tolerance = Tolerance { figures: 3e-4, payments: 5e-4, margin: 1e-4 };

/// What float64 arithmetic allows.
pub const F64: Tolerance = Tolerance { figures: 1e-8, payments: 1e-9, margin: 1e-9 };

/// What came of one comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Same,
    /// Different, but the reference itself stood on an edge.
    Excused,
    Different(Vec<String>),
}

/// Differences, collected.
struct Findings {
    tolerance: Tolerance,
    list: Vec<String>,
}

impl Findings {
    fn fact(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.list.push(what());
        }
    }

    fn exact(&mut self, what: &str, found: &Value, expected: Value) {
        self.fact(*found == expected, || format!("{what} is {found}, expected {expected}"));
    }

    /// Within `allowed` of what is expected.
    fn within(&mut self, what: &str, found: &Value, expected: f64, allowed: f64) {
        let near = found.as_f64().is_some_and(|x| (x - expected).abs() <= allowed);
        self.fact(near, || format!("{what} is {found}, expected {expected} within {allowed:e}"));
    }

    /// Within the relative tolerance of what is expected.
    fn near(&mut self, what: &str, found: &Value, expected: f64) {
        self.within(what, found, expected, self.tolerance.figures * expected.abs() + 1e-12);
    }
}

/// Compares a response of the engine with the reference's outcome.
pub fn compare(response: &Value, expected: &Result<Outcome, Refusal>, tolerance: Tolerance) -> Verdict {
    let mut findings = Findings { tolerance, list: Vec::new() };
    let outcome = match expected {
        Ok(outcome) => outcome,
        Err(refusal) => return compare_refusal(response, refusal),
    };
    compare_lists(&mut findings, response, outcome);
    if findings.list.is_empty() {
        for (i, slot) in outcome.slots.iter().enumerate() {
            compare_slot(&mut findings, &response["slots"][i], slot, outcome, i);
        }
        compare_marginals(&mut findings, response, outcome);
        compare_audit(&mut findings, response, outcome);
    }
    verdict(findings, outcome)
}

/// A margin small enough for other arithmetic to choose otherwise excuses every difference.
fn verdict(findings: Findings, outcome: &Outcome) -> Verdict {
    let margins = &outcome.margins;
    let edge = margins.search.min(margins.creative).min(margins.reward) < findings.tolerance.margin;
    if findings.list.is_empty() {
        Verdict::Same
    } else if edge {
        Verdict::Excused
    } else {
        let margins = format!("margins {margins:?}");
        Verdict::Different(findings.list.into_iter().chain([margins]).collect())
    }
}

fn compare_refusal(response: &Value, refusal: &Refusal) -> Verdict {
    let field = response["error"]["field"].as_str().unwrap_or("");
    let message = response["error"]["message"].as_str().unwrap_or("");
    // An unknown key has no field to stand at in a typed request: there the message names it.
    if response.get("error").is_some()
        && (field.starts_with(&refusal.field) || message.contains(&refusal.field))
    {
        return Verdict::Same;
    }
    Verdict::Different(vec![format!("expected an error in {:?}, found {response}", refusal.field)])
}

/// The list as a whole: what was chosen, in exact terms, and its reward and score.
fn compare_lists(f: &mut Findings, response: &Value, outcome: &Outcome) {
    let Some(slots) = response["slots"].as_array() else {
        return f.list.push(format!("no slots in {response}"));
    };
    let column = |key: &str| Value::from(slots.iter().map(|slot| slot[key].clone()).collect::<Vec<_>>());
    let expected = |get: fn(&Slot) -> Value| Value::from(outcome.slots.iter().map(get).collect::<Vec<_>>());
    f.exact("items", &column("item"), expected(|slot| slot.item.into()));
    f.exact("kinds", &column("kind"), expected(|slot| slot.kind.into()));
    f.exact("creatives", &column("creative"), expected(|slot| slot.creative.into()));
    f.exact("bids", &column("bid_micros"), expected(|slot| slot.bid_micros.into()));
    f.exact("lists", &response["lists"], outcome.lists.items.len().into());
    if outcome.margins.order >= f.tolerance.margin {
        f.exact("beam", &response["beam"], outcome.beam.into());
    }
    f.near("reward", &response["reward"], outcome.reward);
    f.within(
        "log_prob",
        &response["log_prob"],
        outcome.log_prob,
        f.tolerance.figures * outcome.log_prob.abs().max(1.0),
    );
    let mut rejected: Vec<u64> = outcome.rejected.iter().map(|(id, _)| *id).collect();
    let of =
        |entry: &Value| entry["item"].as_u64().filter(|_| entry["reason"].is_string()).unwrap_or(u64::MAX);
    let mut found: Vec<u64> = response["rejected"].as_array().into_iter().flatten().map(of).collect();
    rejected.sort();
    found.sort();
    f.fact(found == rejected, || format!("rejected {found:?}, expected {rejected:?}"));
}

fn compare_slot(f: &mut Findings, found: &Value, slot: &Slot, outcome: &Outcome, i: usize) {
    let name = |what: &str| format!("slot {i}: {what}");
    f.near(&name("pctr_poi"), &found["pctr_poi"], slot.pctr_poi);
    f.near(&name("pctr_creative"), &found["pctr_creative"], slot.pctr_creative);
    f.near(&name("pcvr"), &found["pcvr"], slot.pcvr);
    f.near(&name("z"), &found["z"], slot.z);
    let Some(paid) = found["payment_micros"].as_u64() else {
        return f.list.push(name("payment_micros is no integer"));
    };
    // The clamps hold in integers, whatever the arithmetic before them.
    if slot.kind == "organic" {
        f.fact(paid == 0, || name("an organic item pays"));
        return f.exact(&name("rate"), &found["rate"], 0.0.into());
    }
    f.fact(paid <= slot.bid_micros, || name("pays more than the bid"));
    f.fact(paid >= slot.reserve_micros, || name("pays less than the reserve"));
    let clamped = paid == slot.bid_micros || paid == slot.reserve_micros;
    f.fact(clamped || paid % outcome.billable_unit_micros == 0, || {
        name("pays a fraction of the billable unit")
    });
    let rounding = if outcome.payment == Payment::FirstPrice { 0 } else { outcome.billable_unit_micros + 1 };
    // A VCG price is a difference of two sums: it is as good as they are.
    let relative = if outcome.payment == Payment::FirstPrice { 0.0 } else { f.tolerance.payments };
    let allowed = relative * (slot.payment_micros as f64 + 0.1 * slot.price_scale) + rounding as f64;
    f.within(&name("payment_micros"), &paid.into(), slot.payment_micros as f64, allowed);
    match outcome.payment {
        Payment::Network => f.near(&name("rate"), &found["rate"], slot.rate),
        _ if slot.bid_micros == 0 => f.exact(&name("rate"), &found["rate"], 0.0.into()),
        _ => f.within(&name("rate"), &found["rate"], paid as f64 / slot.bid_micros as f64, 1e-6),
    }
}

fn compare_marginals(f: &mut Findings, response: &Value, outcome: &Outcome) {
    if outcome.margins.marginal < f.tolerance.margin {
        return;
    }
    for (i, slot) in outcome.slots.iter().enumerate() {
        let found = response["slots"][i].get("marginal").unwrap_or(&Value::Null);
        let name = format!("slot {i}: marginal");
        match slot.marginal {
            None => f.exact(&name, found, Value::Null),
            Some(expected) => f.within(
                &name,
                found,
                expected,
                f.tolerance.figures * (outcome.ad_value + expected.abs()) + 1e-12,
            ),
        }
    }
}

fn compare_audit(f: &mut Findings, response: &Value, outcome: &Outcome) {
    let found = response["audit"]["ads"].as_array().map_or(&[][..], Vec::as_slice);
    f.exact("audited ads", &found.len().into(), outcome.audit.len().into());
    for (found, ad) in found.iter().zip(&outcome.audit) {
        let name = format!("audit of slot {}", ad.slot);
        f.exact(&format!("{name}: slot"), &found["slot"], ad.slot.into());
        f.exact(&format!("{name}: item"), &found["item"], ad.item.into());
        f.exact(&format!("{name}: value"), &found["value_micros"], ad.value_micros.into());
        let size = ad.value_micros as f64;
        let points = found["sweep"].as_array().map_or(&[][..], Vec::as_slice);
        f.exact(&format!("{name}: points"), &points.len().into(), ad.points.len().into());
        for ((found, point), gamma) in points.iter().zip(&ad.points).zip(gammas()) {
            compare_point(f, &format!("{name}, gamma {gamma}"), found, point, ad, outcome);
        }
        // What was found of the points is what the regret is made of.
        let utility = |point: &Value| point["utility_micros"].as_f64().unwrap_or(f64::NAN);
        let best = points.iter().map(utility).fold(0.0, f64::max);
        let regret = (best - found["utility_micros"].as_f64().unwrap_or(f64::NAN)).max(0.0);
        f.within(&format!("{name}: regret"), &found["regret_micros"], regret, 1e-9 * size);
    }
}

fn compare_point(
    f: &mut Findings,
    name: &str,
    found: &Value,
    point: &Point,
    ad: &AuditedAd,
    outcome: &Outcome,
) {
    f.exact(&format!("{name}: bid"), &found["bid_micros"], point.bid_micros.into());
    if point.margin < f.tolerance.margin {
        return;
    }
    let slot = point.shown.as_ref().map_or(Value::Null, |shown| shown.slot.into());
    f.exact(&format!("{name}: slot"), &found["slot"], slot);
    let Some(shown) = &point.shown else {
        for figure in ["payment_micros", "clicks", "cost_micros", "utility_micros"] {
            f.within(&format!("{name}: {figure}"), &found[figure], 0.0, 0.0);
        }
        return;
    };
    let rounding = outcome.billable_unit_micros as f64 + 1.0;
    let allowed = f.tolerance.payments * (shown.payment_micros as f64 + 0.1 * shown.price_scale) + rounding;
    f.within(&format!("{name}: payment"), &found["payment_micros"], shown.payment_micros as f64, allowed);
    f.near(&format!("{name}: clicks"), &found["clicks"], shown.clicks);
    if !found["z"].is_null() {
        f.near(&format!("{name}: z"), &found["z"], shown.z);
    }
    let paid = found["payment_micros"].as_f64().unwrap_or(f64::NAN);
    let clicks = found["clicks"].as_f64().unwrap_or(f64::NAN);
    let exact = 1e-9 * (ad.value_micros as f64 + paid) * clicks;
    f.within(&format!("{name}: cost"), &found["cost_micros"], paid * clicks, exact);
    let utility = (ad.value_micros as f64 - paid) * clicks;
    f.within(&format!("{name}: utility"), &found["utility_micros"], utility, exact);
}

/// Compares the tensors that a trace holds of one request. Call it where the response compares as the same.
pub fn compare_trace(
    trace: &SafeTensors,
    id: &str,
    outcome: &Outcome,
    slots: usize,
    tolerance: Tolerance,
) -> Vec<String> {
    let mut findings = Findings { tolerance, list: Vec::new() };
    let f = &mut findings;
    trace_matrix(f, trace, &format!("{id}/encoder"), &outcome.encoder, outcome.encoder.len());
    let layers = outcome.poi_logits.len().checked_div(outcome.slots.len());
    trace_matrix(
        f,
        trace,
        &format!("{id}/winner/poi_logits"),
        &outcome.poi_logits,
        layers.map_or(0, |c| c * slots),
    );
    trace_matrix(f, trace, &format!("{id}/winner/creative_logits"), &outcome.creative_logits, slots);
    trace_matrix(f, trace, &format!("{id}/winner/reward_features"), &outcome.reward_features, slots);
    let rates: Vec<Vec<f64>> = outcome.rates.iter().map(|&rate| vec![rate]).collect();
    trace_matrix(f, trace, &format!("{id}/winner/rate"), &rates, slots);
    let column = |numbers: &[f64]| -> Vec<Vec<f64>> { numbers.iter().map(|&x| vec![x]).collect() };
    let lists = &outcome.lists;
    trace_matrix(f, trace, &format!("{id}/lists/log_prob"), &column(&lists.log_prob), 0);
    trace_matrix(f, trace, &format!("{id}/lists/reward"), &column(&lists.reward), 0);
    for (name, rows) in [("items", &lists.items), ("creatives", &lists.creatives)] {
        trace_ids(f, trace, &format!("{id}/lists/{name}"), rows);
    }
    findings.list
}

fn trace_numbers(trace: &SafeTensors, name: &str) -> Option<(Vec<usize>, Vec<f64>)> {
    let view = trace.tensor(name).ok()?;
    let bytes = view.data();
    let numbers = match view.dtype() {
        Dtype::F32 => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        Dtype::F64 => bytes.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        _ => return None,
    };
    Some((view.shape().to_vec(), numbers))
}

/// Rows against the tensor's first rows; further rows are to be 0, and there are to be at least `rows` of them.
fn trace_matrix(f: &mut Findings, trace: &SafeTensors, name: &str, expected: &[Vec<f64>], rows: usize) {
    let Some((shape, numbers)) = trace_numbers(trace, name) else {
        return f.list.push(format!("no floating-point tensor {name}"));
    };
    f.fact(shape[0] >= rows, || format!("{name} has shape {shape:?}, expected {rows} rows"));
    let expected: Vec<f64> = expected.iter().flatten().cloned().collect();
    let size = expected.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
    let worst = numbers
        .iter()
        .enumerate()
        .map(|(i, x)| (x - expected.get(i).unwrap_or(&0.0)).abs())
        .fold(0.0, |worst: f64, gap| if gap.is_nan() { gap } else { worst.max(gap) });
    f.fact(numbers.len() >= expected.len(), || format!("{name} is short: {shape:?}"));
    f.fact(worst <= f.tolerance.figures * size.max(1.0), || {
        format!("{name} is off by {worst} at size {size}")
    });
}

/// Ids, -1 beyond a short list and in the rows of beams that are not there.
fn trace_ids(f: &mut Findings, trace: &SafeTensors, name: &str, expected: &[Vec<u64>]) {
    let Some(view) = trace.tensor(name).ok().filter(|view| view.dtype() == Dtype::I64) else {
        return f.list.push(format!("no i64 tensor {name}"));
    };
    let width = view.shape()[1];
    let found: Vec<i64> = view.data().chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    let padded =
        |row: Option<&Vec<u64>>, i: usize| row.and_then(|row| row.get(i)).map_or(-1, |&id| id as i64);
    let expected: Vec<i64> =
        (0..view.shape()[0]).flat_map(|l| (0..width).map(move |i| padded(expected.get(l), i))).collect();
    f.fact(found == expected, || format!("{name} is {found:?}, expected {expected:?}"));
}
