//! Training curves: columns of the CSV files that training writes.

use std::path::Path;

use anyhow::{Context, anyhow, ensure};

use super::experiment::Curve;
use super::svg::{Axis, Chart, Line, Point};

/// Curves of more points are drawn as means of neighbours.
const MOST_POINTS: usize = 300;

/// The panels of a curve, one for each column.
///
/// # Errors
/// Names file, line, column, value and what was expected.
pub fn panels(curve: &Curve) -> anyhow::Result<Vec<Chart>> {
    let path = curve.csv.as_path();
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').map(str::trim).collect();
    let x = column(path, &head, &curve.x)?;
    let mut charts = Vec::new();
    for name in &curve.y {
        let y = column(path, &head, name)?;
        let mut points = Vec::new();
        for (number, line) in (2..).zip(lines.clone()) {
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let cell = |i: usize| cells.get(i).copied().unwrap_or_default();
            if !cell(y).is_empty() && !cell(x).is_empty() {
                let place = |i: usize| format!("{}:{number}: column `{}`", path.display(), head[i]);
                let [px, py] = [number_in(cell(x), || place(x))?, number_in(cell(y), || place(y))?];
                points.push(Point { x: px, y: py, band: None });
            }
        }
        let line = Line { name: String::new(), points: thin(&points), dashed: false };
        charts.push(Chart {
            title: format!("{}: {name}", curve.name),
            x_label: curve.x.clone(),
            log_x: false,
            left: Axis { label: name.clone(), lines: vec![line] },
            right: None,
            size: [420.0, 260.0],
        });
    }
    Ok(charts)
}

fn column(path: &Path, head: &[&str], name: &str) -> anyhow::Result<usize> {
    head.iter()
        .position(|column| *column == name)
        .ok_or_else(|| anyhow!("{}: the header holds {head:?}, expected `{name}` among them", path.display()))
}

fn number_in(text: &str, place: impl Fn() -> String) -> anyhow::Result<f64> {
    let number: f64 = text.parse().map_err(|_| anyhow!("{}: is {text:?}, expected a number", place()))?;
    ensure!(number.is_finite(), "{}: is {text:?}, expected a finite number", place());
    Ok(number)
}

/// At most [`MOST_POINTS`], each the mean of as many neighbours.
fn thin(points: &[Point]) -> Vec<Point> {
    let together = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |some: &[Point], of: fn(&Point) -> f64| some.iter().map(of).sum::<f64>() / some.len() as f64;
    let point = |some: &[Point]| Point { x: mean(some, |p| p.x), y: mean(some, |p| p.y), band: None };
    points.chunks(together).map(point).collect()
}
