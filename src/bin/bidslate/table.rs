//! Responses as tables for people.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, TableComponent, Width,
};
use serde::Deserialize;
use serde_json::Value;

use crate::audit_table::{plain, units};

/// Columns of a terminal that the table must fit.
const COLUMNS: u16 = 120;
/// Rejected items named per reason; the rest are counted.
const NAMED: usize = 8;
/// Place of the only column that wraps.
const ITEM: usize = 1;

/// What items are, for people: read from `labels.jsonl`.
#[derive(Debug, Default)]
pub struct Labels(HashMap<u64, Label>);

/// One line of `labels.jsonl`.
#[derive(Debug, Clone, Deserialize)]
pub struct Label {
    item: u64,
    category: String,
    /// 1 (cheap) to 4, where known.
    #[serde(default)]
    price_tier: Option<u8>,
}

impl Labels {
    /// Reads a file of one label a line.
    ///
    /// # Errors
    /// Names the file and the line.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        let mut labels = HashMap::new();
        for (line, number) in text.lines().zip(1..) {
            let label: Label =
                serde_json::from_str(line).with_context(|| format!("{}:{number}", path.display()))?;
            labels.insert(label.item, label);
        }
        Ok(Self(labels))
    }

    /// `17 Coffee Shop $$`, or the bare id of an item without a label.
    pub fn name(&self, item: u64) -> String {
        match self.0.get(&item) {
            Some(label) => {
                let tier = "$".repeat(label.price_tier.unwrap_or(0).into());
                format!("{item} {} {tier}", label.category).trim_end().to_owned()
            }
            None => item.to_string(),
        }
    }
}

/// The response of one request: a heading, a row a slot, then what was rejected and why; at most 120 columns
/// wide where ids and reasons are of common length.
///
/// Prices are in currency units. A response that holds `quotes` (per slot what each payment rule would charge)
/// gets a column for each rule.
pub fn render(response: &Value, labels: Option<&Labels>) -> String {
    let none = Labels::default();
    let labels = labels.unwrap_or(&none);
    let mut out = String::new();
    let id = match &response["id"] {
        Value::String(id) => id.clone(),
        other => other.to_string(),
    };
    if let Some(error) = response.get("error") {
        let text = |key: &str| error[key].as_str().unwrap_or("?").to_owned();
        let _ = writeln!(out, "{id}: {} error in `{}`: {}", text("kind"), text("field"), text("message"));
        return out;
    }
    let slots = response["slots"].as_array().map_or(&[][..], Vec::as_slice);
    heading(&mut out, &id, response, slots.len());
    if slots.is_empty() {
        let _ = writeln!(out, "  (an empty list)");
    } else {
        let _ = writeln!(out, "{}", table(slots, response.get("quotes"), labels).trim_fmt());
    }
    rejected(&mut out, &response["rejected"], labels);
    if response["audit"].is_object() {
        audit(&mut out, &response["audit"], labels);
    }
    out
}

/// What each ad could gain by another bid, and by which of the gammas.
fn audit(out: &mut String, audit: &Value, labels: &Labels) {
    let _ = writeln!(out, "audit, {}; utilities per impression", audit["tier"].as_str().unwrap_or("?"));
    let header =
        ["slot", "item", "value", "utility", "regret", "of all bids", "best gamma", "its slot", "its price"];
    let mut table = plain(&header, 0);
    for ad in audit["ads"].as_array().into_iter().flatten() {
        let utility = |point: &Value| point["utility_micros"].as_f64().unwrap_or_default();
        let sweep = ad["sweep"].as_array().into_iter().flatten();
        // Of equals the last; nothing where no gamma gains.
        let best = sweep.max_by(|a, b| utility(a).total_cmp(&utility(b)));
        let best = best.filter(|_| ad["regret_micros"].as_f64() > Some(0.0)).unwrap_or(&Value::Null);
        let amount = |value: &Value| value.as_f64().map_or_else(|| "-".into(), units);
        table.add_row([
            number(&ad["slot"], 0),
            ad["item"].as_u64().map_or_else(|| "-".to_owned(), |item| labels.name(item)),
            money(&ad["value_micros"]),
            amount(&ad["utility_micros"]),
            amount(&ad["regret_micros"]),
            amount(&ad["exact_regret_micros"]),
            best["gamma"].as_f64().map_or_else(|| "-".into(), |gamma| gamma.to_string()),
            number(&best["slot"], 0),
            money(&best["payment_micros"]),
        ]);
    }
    let _ = writeln!(out, "{}", table.trim_fmt());
}

fn heading(out: &mut String, id: &str, response: &Value, slots: usize) {
    let _ = write!(out, "{id}: {slots} slots");
    if let Some(n) = response["candidates"].as_u64() {
        let _ = write!(out, " from {n} candidates");
    }
    if let Some(n) = response["lists"].as_u64() {
        let _ = write!(out, ", best of {n} lists");
    }
    let _ = write!(out, ", reward {}", number(&response["reward"], 6));
    let _ = write!(out, ", log-prob {}", number(&response["log_prob"], 4));
    if let Some(version) = response["catalog_version"].as_u64() {
        let _ = write!(out, ", catalog {version}");
    }
    out.push('\n');
}

fn table(slots: &[Value], quotes: Option<&Value>, labels: &Labels) -> Table {
    let mut header =
        vec!["slot", "item", "kind", "creative", "bid", "pCTR\nPOI", "pCTR\ncreative", "pCVR", "z", "pays"];
    if quotes.is_some() {
        header.extend(["network", "GSP", "VCG"]);
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_style(TableComponent::HeaderLines, '─');
    table.set_style(TableComponent::MiddleHeaderIntersections, '─');
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
    table.set_header(header);
    for (slot, number) in slots.iter().zip(0..) {
        table.add_row(row(slot, number, quotes.map(|q| &q[number]), labels));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        // The preset leaves a space between columns; one more around the item keeps text apart from numbers.
        column.set_padding(if index == ITEM { (1, 1) } else { (0, 0) });
        if index == ITEM {
            column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(30)));
        } else {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        if !matches!(index, ITEM | 2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(slot: &Value, number: usize, quotes: Option<&Value>, labels: &Labels) -> Row {
    let item = slot["item"].as_u64().map_or_else(|| "-".to_owned(), |item| labels.name(item));
    let id = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |id| id.to_string());
    let mut cells = vec![
        number.to_string(),
        item,
        slot["kind"].as_str().unwrap_or("-").to_owned(),
        id(&slot["creative"]),
        money(&slot["bid_micros"]),
        percent(&slot["pctr_poi"]),
        percent(&slot["pctr_creative"]),
        percent(&slot["pcvr"]),
        probability(&slot["z"]),
        money(&slot["payment_micros"]),
    ];
    if let Some(quotes) = quotes {
        let rules = ["network_micros", "gsp_micros", "vcg_micros"];
        cells.extend(rules.map(|rule| money(&quotes[rule])));
    }
    cells.into_iter().map(Cell::new).collect::<Vec<_>>().into()
}

/// Micros in currency units: two to six decimals, as many as the amount has; `-` for none.
fn money(micros: &Value) -> String {
    let Some(micros) = micros.as_u64() else { return "-".into() };
    let mut text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    for _ in 0..4 {
        if text.ends_with('0') {
            text.pop();
        }
    }
    text
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |p| format!("{:.2}%", 100.0 * p))
}

/// Four decimals, or two digits and a power of ten where those would say nothing.
fn probability(value: &Value) -> String {
    match value.as_f64() {
        Some(p) if p != 0.0 && p.abs() < 1e-3 => format!("{p:.1e}"),
        _ => number(value, 4),
    }
}

fn number(value: &Value, decimals: usize) -> String {
    value.as_f64().map_or_else(|| "-".into(), |x| format!("{x:.decimals$}"))
}

/// One line per reason.
fn rejected(out: &mut String, rejected: &Value, labels: &Labels) {
    let mut by_reason = BTreeMap::<String, Vec<String>>::new();
    for entry in rejected.as_array().into_iter().flatten() {
        let reason = match &entry["reason"] {
            Value::String(reason) => reason.clone(),
            other => other.to_string(),
        };
        let item = entry["item"].as_u64().map_or_else(|| entry["item"].to_string(), |item| labels.name(item));
        by_reason.entry(reason).or_default().push(item);
    }
    for (reason, items) in by_reason {
        let line = |named: usize| {
            let more = items.len() - named;
            let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("rejected, {reason}: {}{and_more}", items[..named].join(", "))
        };
        let fits = |&named: &usize| line(named).chars().count() <= usize::from(COLUMNS);
        let named = (1..=items.len().min(NAMED)).rev().find(fits).unwrap_or(1);
        let _ = writeln!(out, "{}", line(named));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels() -> Labels {
        let label = |item, category: &str, price_tier| {
            (item, Label { item, category: category.to_owned(), price_tier })
        };
        Labels(HashMap::from([
            label(1204, "Coffee Shop", Some(1)),
            label(311, "General Entertainment & Late Night Arcade", None),
            label(87, "Steakhouse", Some(4)),
        ]))
    }

    fn response() -> Value {
        json!({
            "id": "user-7-1", "catalog_version": 3, "reward": 0.183_204_9, "log_prob": -11.204_61,
            "beam": 2, "lists": 64,
            "slots": [
                {"item": 311, "kind": "organic", "creative": 1045, "bid_micros": 0, "payment_micros": 0,
                 "rate": 0.0, "pctr_poi": 0.0512, "pctr_creative": 0.0411, "pcvr": 0.0049, "z": 0.25, "marginal": null},
                {"item": 87, "kind": "ad", "creative": 290, "bid_micros": 12_340_000, "payment_micros": 8_123_457,
                 "rate": 0.6583, "pctr_poi": 0.0731, "pctr_creative": 0.1, "pcvr": 0.01, "z": 0.000_032, "marginal": 0.5},
                {"item": 5, "kind": "ad", "creative": 16, "bid_micros": 990_000, "payment_micros": 300_000,
                 "rate": 0.3, "pctr_poi": 0.02, "pctr_creative": 0.03, "pcvr": 0.001, "z": 1.0, "marginal": null}
            ],
            "quotes": [
                {"network_micros": 0, "gsp_micros": 0, "vcg_micros": 0},
                {"network_micros": 8_123_457, "gsp_micros": 12_340_000, "vcg_micros": null},
                {"network_micros": 300_000, "gsp_micros": 198_000, "vcg_micros": 1}
            ],
            "rejected": [
                {"item": 1204, "reason": "below_reserve"}, {"item": 9, "reason": "no_creative"},
                {"item": 10, "reason": "below_reserve"}
            ]
        })
    }

    /// The cells of the row whose first cell is `slot`.
    fn cells<'a>(text: &'a str, slot: &str) -> Vec<&'a str> {
        let line = text.lines().find(|line| line.trim_start().starts_with(slot)).unwrap();
        line.split_whitespace().collect()
    }

    #[test]
    fn shows_every_slot() {
        let text = render(&response(), Some(&labels()));
        let heading = text.lines().next().unwrap();
        assert_eq!(
            heading,
            "user-7-1: 3 slots, best of 64 lists, reward 0.183205, log-prob -11.2046, catalog 3"
        );
        let ad = ["1", "87", "Steakhouse", "$$$$", "ad", "290", "12.34", "7.31%", "10.00%", "1.00%"];
        let prices = ["3.2e-5", "8.123457", "8.123457", "12.34", "-"];
        assert_eq!(cells(&text, "1 "), [&ad[..], &prices].concat());
        let bare = ["2", "5", "ad", "16", "0.99", "2.00%", "3.00%", "0.10%"];
        assert_eq!(
            cells(&text, "2 "),
            [&bare[..], &["1.0000", "0.30", "0.30", "0.198", "0.000001"]].concat()
        );
    }

    #[test]
    fn fits_the_terminal() {
        let text = render(&response(), Some(&labels()));
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS.into(), "{line:?}");
        }
        // The long category wraps within its column instead of pushing the others out.
        assert!(
            text.contains(" 311 General Entertainment &") && text.contains("\n      Late Night Arcade"),
            "{text}"
        );
    }

    #[test]
    fn groups_what_was_rejected() {
        let mut response = response();
        let text = render(&response, Some(&labels()));
        assert!(
            text.ends_with("rejected, below_reserve: 1204 Coffee Shop $, 10\nrejected, no_creative: 9\n")
        );
        response["rejected"] = (0..12).map(|item| json!({"item": item, "reason": "unknown"})).collect();
        let text = render(&response, None);
        assert!(text.ends_with("rejected, unknown: 0, 1, 2, 3, 4, 5, 6, 7 and 4 more\n"), "{text}");
        let ids = (0..6).map(|i| 18_446_744_073_709_551_610_u64 + i % 3);
        response["rejected"] = ids.map(|item| json!({"item": item, "reason": "unknown"})).collect();
        let text = render(&response, None);
        assert!(text.ends_with("9551612, 18446744073709551610 and 2 more\n"), "{text}");
        assert!(text.lines().last().unwrap().len() <= usize::from(COLUMNS), "{text}");
    }

    #[test]
    fn without_quotes_there_are_no_columns_for_them() {
        let mut response = response();
        response.as_object_mut().unwrap().remove("quotes");
        let text = render(&response, None);
        assert!(!text.contains("GSP"));
        assert_eq!(cells(&text, "1 ").last(), Some(&"8.123457"));
    }

    #[test]
    fn an_audit_has_a_row_for_each_ad() {
        let mut response = response();
        let point = |gamma: f64, slot: Option<u64>, payment: u64, utility: f64| json!({"gamma": gamma, "slot": slot, "payment_micros": payment, "utility_micros": utility});
        response["audit"] = json!({"tier": "reselect", "ads": [
            {"slot": 1, "item": 87, "value_micros": 12_340_000, "utility_micros": 308_250.0,
             "regret_micros": 21_751.0, "exact_regret_micros": null,
             "sweep": [point(0.2, None, 0, 0.0), point(0.6, Some(2), 7_404_000, 330_001.0)]},
            {"slot": 2, "item": 5, "value_micros": 990_000, "utility_micros": 13_800.0,
             "regret_micros": 0.0, "exact_regret_micros": 12.0, "sweep": [point(0.2, Some(2), 198_000, 13_800.0)]}
        ]});
        let text = render(&response, Some(&labels()));
        let (_, audit) = text.split_once("audit, reselect").unwrap();
        let row = |line: usize| audit.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>();
        let first =
            ["1", "87", "Steakhouse", "$$$$", "12.34", "0.308250", "0.021751", "-", "0.6", "2", "7.404"];
        assert_eq!(row(3), first);
        assert_eq!(row(4), ["2", "5", "0.99", "0.013800", "0.000000", "0.000012", "-", "-", "-"]);
    }

    #[test]
    fn an_error_is_one_line() {
        let error =
            json!({"kind": "unknown_item", "field": "candidates[3]", "message": "item 99 is not there"});
        let text = render(&json!({"id": 4, "error": error}), None);
        assert_eq!(text, "4: unknown_item error in `candidates[3]`: item 99 is not there\n");
    }

    #[test]
    fn an_empty_list_says_so() {
        let text = render(&json!({"id": "e", "slots": [], "reward": 0.0, "log_prob": 0.0, "lists": 1}), None);
        assert_eq!(
            text,
            "e: 0 slots, best of 1 lists, reward 0.000000, log-prob 0.0000\n  (an empty list)\n"
        );
    }

    #[test]
    fn money_has_two_to_six_decimals() {
        let cases =
            [(0, "0.00"), (1, "0.000001"), (1_500_000, "1.50"), (1_230_000, "1.23"), (10_100, "0.0101")];
        for (micros, text) in cases {
            assert_eq!(money(&json!(micros)), text);
        }
        assert_eq!(money(&Value::Null), "-");
    }

    #[test]
    fn labels_name_the_line_that_does_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.jsonl");
        std::fs::write(&path, "{\"item\": 1, \"category\": \"Bar\", \"price_tier\": null}\n{\"item\": -1}\n")
            .unwrap();
        let error = format!("{:#}", Labels::read(&path).unwrap_err());
        assert!(error.contains("labels.jsonl:2"), "{error}");
        std::fs::write(&path, "{\"item\": 1, \"category\": \"Bar\", \"root\": \"Food\"}\n").unwrap();
        assert_eq!(Labels::read(&path).unwrap().name(1), "1 Bar");
    }
}
