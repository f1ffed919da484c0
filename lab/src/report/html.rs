//! The report as one self-contained page.

use std::fmt::Write;

use super::Report;
use super::grid::{Cell, Grid};
use super::svg::{Chart, escape};

const STYLE: &str = "\
:root{color-scheme:light}\
body{font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;color:#1d2430;\
background:#fff;max-width:1080px;margin:0 auto;padding:32px 20px 64px}\
h1{font-size:28px;line-height:1.2;margin:0 0 8px}h2{font-size:19px;margin:40px 0 4px}\
p,.caption{max-width:76ch}.caption{color:#566070;font-size:14px;margin:0 0 10px}\
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14.5px}\
th{font-weight:600;border-bottom:2px solid #1d2430;vertical-align:bottom}\
th,td{padding:6px 18px 6px 0;text-align:left;white-space:nowrap}td{border-bottom:1px solid #e3e7ed;vertical-align:top}\
td small{display:block;color:#667080;font-size:12px}tr.reference td{background:#f2f7fc}\
figure{margin:12px 0 28px}.chart{width:100%;max-width:760px;height:auto;display:block}\
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:12px}.panels figure{margin:0}";

/// The page.
pub fn page(report: &Report) -> String {
    let title = escape(&report.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    let _ = writeln!(out, "<p>{}</p>", escape(&report.about));
    report.tables.iter().for_each(|grid| table(&mut out, grid));
    if !report.figures.is_empty() {
        out.push_str(
            "<h2>Sweeps</h2>\n<p class=\"caption\">By the world's truth; shaded: 95 % intervals.</p>\n",
        );
        report.figures.iter().for_each(|chart| figure(&mut out, chart));
        report.sweeps.iter().for_each(|grid| table(&mut out, grid));
    }
    if !report.curves.is_empty() {
        out.push_str("<h2>Training</h2>\n<div class=\"panels\">\n");
        report.curves.iter().for_each(|chart| figure(&mut out, chart));
        out.push_str("</div>\n");
    }
    if !report.notes.is_empty() {
        out.push_str("<h2>Notes</h2>\n<ul>\n");
        for note in &report.notes {
            let _ = writeln!(out, "<li>{}</li>", escape(note));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn table(out: &mut String, grid: &Grid) {
    let _ =
        writeln!(out, "<h2>{}</h2>\n<p class=\"caption\">{}</p>", escape(&grid.title), escape(&grid.caption));
    out.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    for name in &grid.head {
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &grid.rows {
        let class = if row[0].text == super::tables::REFERENCE { " class=\"reference\"" } else { "" };
        let _ = write!(out, "<tr{class}>");
        row.iter().for_each(|cell| self::cell(out, cell));
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
}

fn cell(out: &mut String, cell: &Cell) {
    let _ = write!(out, "<td>{}", escape(&cell.text));
    if !cell.note.is_empty() {
        let _ = write!(out, "<small>{}</small>", emphasised(&escape(&cell.note)));
    }
    out.push_str("</td>");
}

/// `*words*` in italics.
fn emphasised(text: &str) -> String {
    let mut parts = text.split('*');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for (i, part) in parts.enumerate() {
        out.push_str(if i % 2 == 0 { "<i>" } else { "</i>" });
        out.push_str(part);
    }
    out
}

fn figure(out: &mut String, chart: &Chart) {
    let _ = writeln!(out, "<figure>{}</figure>", chart.svg());
}
