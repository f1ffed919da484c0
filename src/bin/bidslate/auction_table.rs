//! Outcomes of stand-alone auctions as tables for people.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use crate::auction_outcome::Outcome;

/// One auction, a row for each slot.
pub fn render(outcome: &Outcome) -> String {
    let mut header = vec!["slot", "winner", "pays a click"];
    if outcome.regret.is_some() {
        header.extend(["utility", "regret (gammas)", "regret (exact)"]);
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for (slot, (winner, payment)) in outcome.winners.iter().zip(&outcome.payments_micros).enumerate() {
        let mut row = match winner {
            Some(winner) => vec![slot.to_string(), winner.to_string(), payment.to_string()],
            None => vec![slot.to_string(), "not sold".into(), String::new()],
        };
        if let (Some(regret), Some(_)) = (&outcome.regret, winner) {
            let micros = |values: &[Option<f64>]| format!("{:.1}", values[slot].unwrap_or_default());
            row.extend([micros(&regret.utility), micros(&regret.grid), micros(&regret.exact)]);
        }
        table.add_row(row);
    }
    let name = outcome.id.as_str().map_or_else(|| outcome.id.to_string(), String::from);
    format!("{name}\n{table}\n")
}
