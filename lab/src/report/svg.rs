//! Line charts as SVG, self-contained and readable without scripts.

use std::fmt::Write;

/// A chart of one or two axes of values over one of arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x_label: String,
    /// Whether arguments are on a logarithmic scale.
    pub log_x: bool,
    /// Values on the left.
    pub left: Axis,
    /// Values on the right.
    pub right: Option<Axis>,
    /// Width and height in units.
    pub size: [f64; 2],
}

/// An axis of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Beside it.
    pub label: String,
    /// Lines on it.
    pub lines: Vec<Line>,
}

/// A line of points, with a band around it where points have one.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// In order of their arguments.
    pub points: Vec<Point>,
    /// Whether it is dashed.
    pub dashed: bool,
}

/// A point of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Argument.
    pub x: f64,
    /// Value.
    pub y: f64,
    /// Ends of the value's interval.
    pub band: Option<[f64; 2]>,
}

/// Colours that the colour-blind tell apart (Okabe and Ito), dark enough for lines on white.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#8a5a83", "#a67c00", "#555555"];
const MARGIN_TOP: f64 = 44.0;
const MARGIN_BOTTOM: f64 = 46.0;
const MARGIN_SIDE: f64 = 66.0;
/// About as many ticks on an axis.
const TICKS: [f64; 2] = [7.0, 5.0];
/// Lines of more points than this get no dots.
const MOST_DOTS: usize = 40;

/// Looks are attributes, not classes, so that a chart can be taken out of its page.
const LINE: &str = "fill=\"none\" stroke-width=\"2\" stroke-linejoin=\"round\"";
const AXIS: &str = "fill=\"none\" stroke=\"#8a93a1\"";
const GRID: &str = "fill=\"none\" stroke=\"#e9ecf1\"";
const TICK: &str = "font-size=\"11.5\" fill=\"#566070\"";
const LABEL: &str = "font-size=\"12\" fill=\"#1d2430\"";
const TITLE: &str = "font-size=\"13.5\" font-weight=\"600\" fill=\"#1d2430\"";

/// From numbers to places.
#[derive(Debug, Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64>, [from, to]: [f64; 2], log: bool, room: f64) -> Self {
        let values = values.map(|value| if log { libm::log10(value) } else { value });
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if low.is_finite() { (low, high) } else { (0.0, 1.0) };
        let width = if high > low { high - low } else { f64::max(low.abs(), 1.0) };
        Self { low: low - room * width, high: high + room * width, from, to, log }
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.log { libm::log10(value) } else { value };
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// About `count` round numbers along the scale, with their texts.
    fn ticks(&self, count: f64) -> Vec<(f64, String)> {
        let round = round_step((self.high - self.low) / count);
        let step = if self.log { f64::max(round, 1.0) } else { round };
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        let digits = if step < 1.0 { (-libm::log10(step)).ceil() as usize } else { 0 };
        let tick = |i: i64| {
            let value = i as f64 * step;
            if !self.log {
                return (value, format!("{value:.digits$}"));
            }
            let value = libm::pow(10.0, value);
            (value, format!("{}", round_to(value, 2)))
        };
        (first..=last).map(tick).collect()
    }
}

/// 1, 2 or 5 times a power of ten, the least not below `step`.
fn round_step(step: f64) -> f64 {
    let power = libm::pow(10.0, libm::floor(libm::log10(step)));
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&round| round >= step * 0.999)
        .unwrap_or(step)
}

/// With that many significant digits.
fn round_to(value: f64, digits: i32) -> f64 {
    let power = libm::pow(10.0, f64::from(digits) - 1.0 - libm::floor(libm::log10(value)));
    (value * power).round() / power
}

impl Chart {
    /// The chart as an `<svg>` element.
    pub fn svg(&self) -> String {
        let [width, height] = self.size;
        let mut out = String::new();
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" font-family=\"system-ui, sans-serif\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{0}\" class=\"chart\">\
             <title>{0}</title><text {TITLE} x=\"{MARGIN_SIDE}\" y=\"16\">{0}</text>",
            escape(&self.title)
        );
        let right_edge = if self.right.is_some() { width - MARGIN_SIDE } else { width - 16.0 };
        let all = std::iter::once(&self.left).chain(&self.right).flat_map(|axis| &axis.lines);
        let xs = all.flat_map(|line| line.points.iter().map(|point| point.x));
        let x = Scale::new(xs, [MARGIN_SIDE, right_edge], self.log_x, 0.02);
        self.draw_x(&mut out, &x);
        let mut colours = COLOURS.iter().cycle();
        let mut legend = Legend { x: MARGIN_SIDE, y: 32.0 };
        for (axis, on_left) in
            std::iter::once((&self.left, true)).chain(self.right.iter().map(|a| (a, false)))
        {
            let y = Scale::new(axis.values(), [height - MARGIN_BOTTOM, MARGIN_TOP], false, 0.06);
            let edge = if on_left { MARGIN_SIDE } else { right_edge };
            axis.draw(&mut out, &y, edge, on_left, on_left.then_some(right_edge));
            for line in &axis.lines {
                let colour = colours.next().copied().unwrap_or_default();
                line.draw(&mut out, &x, &y, colour);
                if !line.name.is_empty() {
                    legend.draw(&mut out, line, colour);
                }
            }
        }
        out.push_str("</svg>");
        out
    }

    fn draw_x(&self, out: &mut String, x: &Scale) {
        let bottom = self.size[1] - MARGIN_BOTTOM;
        let _ = write!(out, "<path {AXIS} d=\"M{:.1} {bottom}H{:.1}\"/>", x.from, x.to);
        for (value, text) in x.ticks(TICKS[0]) {
            let at = x.place(value);
            let _ = write!(
                out,
                "<path {AXIS} d=\"M{at:.1} {bottom}v4\"/>\
                 <text {TICK} x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 17.0
            );
        }
        let _ = write!(
            out,
            "<text {LABEL} x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            0.5 * (x.from + x.to),
            bottom + 36.0,
            escape(&self.x_label)
        );
    }
}

impl Axis {
    fn values(&self) -> impl Iterator<Item = f64> {
        let points = self.lines.iter().flat_map(|line| &line.points);
        points.flat_map(|point| std::iter::once(point.y).chain(point.band.into_iter().flatten()))
    }

    /// Ticks and label at `edge`; grid lines up to `grid` where given.
    fn draw(&self, out: &mut String, y: &Scale, edge: f64, on_left: bool, grid: Option<f64>) {
        let (offset, anchor) = if on_left { (-7.0, "end") } else { (7.0, "start") };
        for (value, text) in y.ticks(TICKS[1]) {
            let at = y.place(value);
            if let Some(to) = grid {
                let _ = write!(out, "<path {GRID} d=\"M{edge} {at:.1}H{to}\"/>");
            }
            let _ = write!(
                out,
                "<text {TICK} x=\"{}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
                edge + offset,
                at + 4.0
            );
        }
        let (x, middle) = (if on_left { 14.0 } else { edge + MARGIN_SIDE - 10.0 }, 0.5 * (y.from + y.to));
        let _ = write!(
            out,
            "<text {LABEL} transform=\"translate({x} {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escape(&self.label)
        );
    }
}

impl Line {
    fn draw(&self, out: &mut String, x: &Scale, y: &Scale, colour: &str) {
        let place = |px: f64, py: f64| format!("{:.1} {:.1}", x.place(px), y.place(py));
        let ends = |end: usize| self.points.iter().filter_map(move |p| Some((p.x, p.band?[end])));
        let lower: Vec<String> = ends(0).map(|(px, py)| place(px, py)).collect();
        let upper: Vec<String> = ends(1).map(|(px, py)| place(px, py)).collect();
        if !lower.is_empty() {
            let around: Vec<String> = lower.into_iter().chain(upper.into_iter().rev()).collect();
            let _ =
                write!(out, "<path fill=\"{colour}\" fill-opacity=\"0.13\" d=\"M{}Z\"/>", around.join("L"));
        }
        let path: Vec<String> = self.points.iter().map(|point| place(point.x, point.y)).collect();
        let dashes = if self.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let _ = write!(out, "<path {LINE} stroke=\"{colour}\"{dashes} d=\"M{}\"/>", path.join("L"));
        if self.points.len() <= MOST_DOTS && !self.dashed {
            for point in &self.points {
                let (px, py) = (x.place(point.x), y.place(point.y));
                let _ = write!(out, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
    }
}

/// Where the next name goes.
struct Legend {
    x: f64,
    y: f64,
}

impl Legend {
    fn draw(&mut self, out: &mut String, line: &Line, colour: &str) {
        let dashes = if line.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let _ = write!(
            out,
            "<path {LINE} stroke=\"{colour}\"{dashes} d=\"M{:.1} {:.1}h20\"/>\
             <text {TICK} x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            self.x,
            self.y,
            self.x + 25.0,
            self.y + 4.0,
            escape(&line.name)
        );
        self.x += 42.0 + 7.0 * line.name.chars().count() as f64;
    }
}

/// Text that may stand in HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        for (values, expected) in [
            (vec![0.0, 10.0], vec!["0", "2", "4", "6", "8", "10"]),
            (vec![0.0601, 0.0649], vec!["0.061", "0.062", "0.063", "0.064"]),
        ] {
            let scale = Scale::new(values.into_iter(), [0.0, 1.0], false, 0.0);
            let texts: Vec<String> = scale.ticks(5.0).into_iter().map(|(_, text)| text).collect();
            assert_eq!(texts, expected);
        }
        let scale = Scale::new([1.0, 1000.0].into_iter(), [0.0, 1.0], true, 0.0);
        assert!((scale.place(10.0) - 1.0 / 3.0).abs() < 1e-12);
        assert!(scale.ticks(5.0).iter().any(|(_, text)| text == "10"));
    }

    #[test]
    fn equal_values_make_a_chart_without_nan() {
        let line =
            Line { name: "a & b".into(), points: vec![Point { x: 1.0, y: 0.0, band: None }], dashed: false };
        let left = Axis { label: "y".into(), lines: vec![line] };
        let chart = Chart {
            title: "t".into(),
            x_label: "x".into(),
            log_x: false,
            left,
            right: None,
            size: [400.0, 300.0],
        };
        let svg = chart.svg();
        assert!(!svg.contains("NaN") && svg.contains("a &amp; b"), "{svg}");
    }
}
