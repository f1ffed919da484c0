//! Training curves: columns of the CSV files that training writes.

use std::path::Path;

use anyhow::{Context, anyhow};

use super::experiment::Curve;
use super::svg::{Axis, Chart, Line, Point};

/// Curves of more points are drawn as means of neighbours.
const MOST_POINTS: usize = 300;

/// The panels of a curve, one for each column. Empty cells and NaN, a metric that is not defined there, are passed over.
///
/// # Errors
/// Names file, line, column, value and what was expected.
pub fn panels(curve: &Curve) -> anyhow::Result<Vec<Chart>> {
    let path = curve.csv.as_path();
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let mut lines = text.lines().map(|line| line.split(',').map(str::trim).collect::<Vec<&str>>());
    let head = lines.next().unwrap_or_default();
    let rows: Vec<Vec<&str>> = lines.collect();
    let x = column(path, &head, &curve.x)?;
    let panel = |name: &String| {
        let points = points(path, &rows, [x, column(path, &head, name)?])
            .with_context(|| format!("columns `{}` and `{name}`", curve.x))?;
        let line = Line { name: String::new(), points: thin(&points), dashed: false };
        Ok(Chart {
            title: format!("{}: {name}", curve.name),
            x_label: curve.x.clone(),
            log_x: false,
            left: Axis { label: name.clone(), lines: vec![line] },
            right: None,
            size: [420.0, 260.0],
        })
    };
    curve.y.iter().map(panel).collect()
}

/// Two columns of every row that has both.
fn points(path: &Path, rows: &[Vec<&str>], columns: [usize; 2]) -> anyhow::Result<Vec<Point>> {
    let mut points = Vec::new();
    for (line, row) in (2..).zip(rows) {
        let cells = columns.map(|column| row.get(column).copied().unwrap_or_default());
        if cells.contains(&"") {
            continue;
        }
        let number = |text: &str| {
            let number = text.parse().ok().filter(|number: &f64| !number.is_infinite());
            number.ok_or_else(|| anyhow!("{}:{line}: is {text:?}, expected a finite number", path.display()))
        };
        let [x, y] = [number(cells[0])?, number(cells[1])?];
        if !x.is_nan() && !y.is_nan() {
            points.push(Point { x, y, band: None });
        }
    }
    Ok(points)
}

fn column(path: &Path, head: &[&str], name: &str) -> anyhow::Result<usize> {
    head.iter()
        .position(|column| *column == name)
        .ok_or_else(|| anyhow!("{}: the header holds {head:?}, expected `{name}` among them", path.display()))
}

/// At most [`MOST_POINTS`], each the mean of as many neighbours.
fn thin(points: &[Point]) -> Vec<Point> {
    let together = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |some: &[Point], of: fn(&Point) -> f64| some.iter().map(of).sum::<f64>() / some.len() as f64;
    let point = |some: &[Point]| Point { x: mean(some, |p| p.x), y: mean(some, |p| p.y), band: None };
    points.chunks(together).map(point).collect()
}
