//! Progress bars for what takes longer than a second, on standard error.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that appears once its work has taken a second, where standard error is a terminal.
pub struct Progress {
    started: Instant,
    label: &'static str,
    template: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Counts bytes.
    pub fn bytes(label: &'static str) -> Self {
        Self::new(label, "{msg} {wide_bar} {bytes}/{total_bytes} {eta}")
    }

    /// Counts steps.
    pub fn steps(label: &'static str) -> Self {
        Self::new(label, "{msg} {wide_bar} {pos}/{len} {eta}")
    }

    fn new(label: &'static str, template: &'static str) -> Self {
        Self { started: Instant::now(), label, template, bar: None }
    }

    /// Reports that `done` of `total` are done.
    pub fn at(&mut self, done: u64, total: u64) {
        if self.bar.is_none() && self.started.elapsed() > Duration::from_secs(1) && done < total {
            let style = ProgressStyle::with_template(self.template).unwrap_or(ProgressStyle::default_bar());
            self.bar = Some(ProgressBar::new(total).with_style(style).with_message(self.label));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
