//! The report's tables as Markdown, for the documents.

use std::fmt::Write;

use super::Report;
use super::grid::{Cell, Grid};

/// The document.
pub fn document(report: &Report) -> String {
    let mut out = format!("# {}\n\n{}\n", report.title, report.about);
    report.tables.iter().chain(&report.sweeps).for_each(|grid| table(&mut out, grid));
    if !report.notes.is_empty() {
        out.push_str("\n## Notes\n\n");
        for note in &report.notes {
            let _ = writeln!(out, "- {note}");
        }
    }
    out
}

fn table(out: &mut String, grid: &Grid) {
    let _ = write!(out, "\n## {}\n\n{}\n\n", grid.title, grid.caption);
    let _ = writeln!(out, "| {} |", grid.head.join(" | "));
    let _ = writeln!(out, "|{}", " --- |".repeat(grid.head.len()));
    for row in &grid.rows {
        let cells: Vec<String> = row.iter().map(cell).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
}

fn cell(cell: &Cell) -> String {
    let text = if cell.note.is_empty() { cell.text.clone() } else { format!("{} {}", cell.text, cell.note) };
    text.replace('|', "\\|")
}
