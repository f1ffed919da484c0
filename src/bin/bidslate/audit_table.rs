//! Audits as tables for people.

use std::fmt::Write;

use bidslate::auction::psi::{Estimate, Psi};
use bidslate::request::{Audit, PaymentRule};
use comfy_table::{Cell, CellAlignment, Table, TableComponent};

use crate::audit::{Landscape, Summary};

/// Advertisers whose landscapes are shown; the rest is in the JSON.
const ADVERTISERS: usize = 5;

/// Psi of every tier and rule, then the landscapes of the advertisers that cost most.
pub fn render(summaries: &[Summary]) -> String {
    let mut out = String::new();
    if summaries.is_empty() {
        return "no request was audited\n".into();
    }
    let _ = writeln!(out, "{}", psi_table(summaries).trim_fmt());
    for summary in summaries {
        let name = format!("{} {}", tier(summary.tier), rule(summary.payment));
        if let Some(work) = summary.decoder {
            let _ = writeln!(
                out,
                "\n{name}: {} searches, {} unique prefixes; {} decoder rows were run, {} without sharing",
                work.searches, work.unique_prefixes, work.rows, work.rows_alone
            );
        }
        let mut costly: Vec<&Landscape> = summary.landscape.iter().collect();
        let cost = |landscape: &Landscape| landscape.cost_micros.iter().sum::<f64>();
        // Stable: of equals the lower id first.
        costly.sort_by(|a, b| cost(b).total_cmp(&cost(a)));
        if !costly.is_empty() {
            let _ = writeln!(out, "\n{name}: what bids of gamma times the value would bring");
            costly.truncate(ADVERTISERS);
            let _ = writeln!(out, "{}", landscape_table(&costly).trim_fmt());
        }
    }
    let shown = summaries.iter().any(|summary| summary.landscape.len() > ADVERTISERS);
    if shown {
        let _ = writeln!(out, "\n({ADVERTISERS} advertisers of each; --format json has all)");
    }
    out
}

pub fn tier(tier: Audit) -> &'static str {
    match tier {
        Audit::None => "none",
        Audit::Fixed => "fixed",
        Audit::Reselect => "reselect",
        Audit::Redecode => "redecode",
    }
}

fn rule(rule: PaymentRule) -> &'static str {
    match rule {
        PaymentRule::Network => "network",
        PaymentRule::Gsp => "gsp",
        PaymentRule::Vcg => "vcg",
        PaymentRule::FirstPrice => "first_price",
    }
}

/// A table without a frame, its numbers to the right.
pub fn plain(header: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_style(TableComponent::HeaderLines, '─');
    table.set_style(TableComponent::MiddleHeaderIntersections, '─').set_header(header);
    let numbers = table.column_iter_mut().skip(words);
    numbers.for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

fn psi_table(summaries: &[Summary]) -> Table {
    let header = [
        "tier",
        "payment",
        "bids",
        "requests",
        "ads",
        "without\nutility",
        "Psi, ratio of sums",
        "Psi, mean of ratios",
    ];
    let mut table = plain(&header, 3);
    for summary in summaries {
        let bids = [
            ("gammas", Some(&summary.psi)),
            ("all", summary.exact.as_ref()),
            ("at least", summary.least.as_ref()),
        ];
        for (bids, psi) in bids {
            if let Some(psi) = psi {
                table.add_row(psi_row(summary, bids, psi));
            }
        }
    }
    table
}

fn psi_row(summary: &Summary, bids: &str, psi: &Psi) -> Vec<Cell> {
    let cells = [
        tier(summary.tier).to_owned(),
        rule(summary.payment).to_owned(),
        bids.to_owned(),
        psi.requests.to_string(),
        psi.ads.to_string(),
        psi.without_utility.to_string(),
        estimate(psi.ratio_of_sums),
        estimate(psi.mean_of_ratios),
    ];
    cells.into_iter().map(Cell::new).collect()
}

/// `0.1234 [0.1000, 0.1500]`.
fn estimate(estimate: Option<Estimate>) -> String {
    let Some(Estimate { value, interval }) = estimate else { return "-".into() };
    match interval {
        Some(interval) => format!("{value:.4} [{:.4}, {:.4}]", interval.low, interval.high),
        None => format!("{value:.4}"),
    }
}

fn landscape_table(landscapes: &[&Landscape]) -> Table {
    let mut table = plain(&["advertiser", "ads", "gamma", "clicks", "cost", "utility"], 1);
    for landscape in landscapes {
        let name = landscape.advertiser.map_or_else(|| "(none)".into(), |id| id.to_string());
        for (index, gamma) in landscape.gammas.iter().enumerate() {
            let first = index == 0;
            table.add_row([
                if first { name.clone() } else { String::new() },
                if first { landscape.ads.to_string() } else { String::new() },
                gamma.to_string(),
                format!("{:.4}", landscape.clicks[index]),
                units(landscape.cost_micros[index]),
                units(landscape.utility_micros[index]),
            ]);
        }
    }
    table
}

/// Micros in currency units.
pub fn units(micros: f64) -> String {
    format!("{:.6}", micros / 1e6)
}
