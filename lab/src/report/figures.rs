//! Figure 5 and its like: what a sweep does to revenue, clicks and regret.

use super::experiment::Table;
use super::sums::{CTR_POI, Metric, PSI, RPM};
use super::svg::{Axis, Chart, Line, Point};
use super::tables::Measured;

/// Arguments that span more than this factor go on a logarithmic scale.
const WIDE: f64 = 50.0;

/// The figures of a report, those without points left out.
pub fn figures(measured: &[Measured]) -> Vec<Chart> {
    let alpha = figure(
        measured,
        Table::Alpha,
        "Figure 5. RPM and CTR-poi over α, the exponent of bids",
        "α",
        &CTR_POI,
    );
    let beta = figure(
        measured,
        Table::Beta,
        "Figure 5. RPM and CTR-poi over β, the weight of organic content",
        "β",
        &CTR_POI,
    );
    let mut rho = figure(measured, Table::Rho, "Revenue and regret over ρ, the weight of regret", "ρ", &PSI);
    if let (Some(chart), Some(gsp)) = (&mut rho, measured.iter().find(|m| m.group.variant == "EGA-gsp")) {
        chart.left.lines.extend(level(chart, gsp));
    }
    [alpha, beta, rho].into_iter().flatten().collect()
}

/// RPM on the left, `other` on the right, a line for each variant.
fn figure(measured: &[Measured], table: Table, title: &str, x_label: &str, other: &Metric) -> Option<Chart> {
    let rows: Vec<&Measured> = measured.iter().filter(|m| m.group.table == table).collect();
    let xs: Vec<f64> = rows.iter().filter_map(|m| m.group.x).collect();
    let (low, high) = (xs.iter().copied().reduce(f64::min)?, xs.iter().copied().reduce(f64::max)?);
    let axis = |metric: &Metric| {
        let unit = metric.unit.trim();
        let label = if unit.is_empty() { metric.name.to_owned() } else { format!("{}, {unit}", metric.name) };
        Axis { label, lines: lines(&rows, metric) }
    };
    Some(Chart {
        title: title.to_owned(),
        x_label: x_label.to_owned(),
        log_x: low > 0.0 && high / low > WIDE,
        left: axis(&RPM),
        right: Some(axis(other)).filter(|axis| !axis.lines.is_empty()),
        size: [620.0, 360.0],
    })
}

fn lines(rows: &[&Measured], metric: &Metric) -> Vec<Line> {
    let mut variants: Vec<&str> = Vec::new();
    for m in rows {
        if !variants.contains(&m.group.variant.as_str()) {
            variants.push(&m.group.variant);
        }
    }
    let line = |variant: &str| {
        let own = rows.iter().filter(|m| m.group.variant == variant);
        let point = |m: &&Measured| {
            let estimate = m.estimate(metric)?;
            Some(Point { x: m.group.x?, y: estimate.value, band: Some([estimate.low, estimate.high]) })
        };
        let name =
            if variants.len() > 1 { format!("{}, {variant}", metric.name) } else { metric.name.to_owned() };
        Line { name, points: own.filter_map(point).collect(), dashed: false }
    };
    variants.iter().map(|variant| line(variant)).filter(|line| !line.points.is_empty()).collect()
}

/// A variant's RPM as a level line across a chart.
fn level(chart: &Chart, of: &Measured) -> Option<Line> {
    let y = of.estimate(&RPM)?.value;
    let xs = chart.left.lines.iter().flat_map(|line| line.points.iter().map(|point| point.x));
    let (low, high) = xs.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
    let points = [low, high].map(|x| Point { x, y, band: None }).to_vec();
    Some(Line { name: format!("RPM, {}", of.group.variant), points, dashed: true })
}
