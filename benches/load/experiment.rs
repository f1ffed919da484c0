//! The latencies of an engine at shares of what it can serve.

use std::time::Duration;

use bidslate::engine::Engine;
use bidslate::request::Request;
use serde_json::{Value, json};

use crate::arrivals::Arrivals;
use crate::latencies::Latencies;
use crate::serving::{Served, Team, Wall, serve};

/// Loads, in percent of the capacity.
const SHARES: [u32; 4] = [30, 50, 70, 90];
const SEED: u64 = 1;

/// Callers of an engine on a GPU: one for each of the streams that it has unless told otherwise.
pub const GPU_CALLERS: usize = 2;

/// An engine under load.
pub struct Experiment<'e> {
    pub engine: &'e Engine,
    /// The name of the model in reports.
    pub model: String,
    pub team: Team,
    /// Requests that arrive at each load.
    pub count: usize,
    /// What is asked, over and over: the requests, and after them as many of the first as a batch may hold, so that
    /// each batch is a slice.
    asked: Vec<Request>,
    distinct: usize,
}

impl<'e> Experiment<'e> {
    /// `count` arrivals at each load, of `requests` in turns.
    pub fn new(engine: &'e Engine, model: String, team: Team, count: usize, requests: Vec<Request>) -> Self {
        let distinct = requests.len();
        let asked = requests.iter().cycle().take(distinct + team.batch).cloned().collect();
        Self { engine, model, team, count, asked, distinct }
    }

    /// Finds the capacity, and the latencies at each load; prints a row of a table for each, and returns their JSON by
    /// name.
    pub fn run(&self) -> serde_json::Map<String, Value> {
        self.warm_up();
        let capacity = self.capacity();
        let (model, Team { callers, batch }) = (&self.model, self.team);
        println!(
            "\n{model}: {capacity:.1} requests/s at most, {callers} callers, batches of up to {batch}\n"
        );
        println!(
            "| arrivals | load | requests/s | p50 ms | p90 ms | p99 ms | max ms | p99 / p50 | a batch |"
        );
        println!("| --- |{}", " --: |".repeat(8));
        let loads = [Arrivals::Even, Arrivals::Poisson]
            .into_iter()
            .flat_map(|arrivals| SHARES.map(|s| (arrivals, s)));
        loads.map(|(arrivals, share)| self.load(arrivals, share, capacity)).collect()
    }

    /// Calls of every size by all callers at once: what an engine does at the first of its kind does not count.
    fn warm_up(&self) {
        std::thread::scope(|scope| {
            for _ in 0..self.team.callers {
                scope.spawn(|| (1..=self.team.batch).for_each(|size| self.answer(0, size)));
            }
        });
    }

    /// Requests a second where there is always a full batch waiting.
    fn capacity(&self) -> f64 {
        let served = self.serve(&vec![Duration::ZERO; self.count]);
        self.count as f64 / served.end.as_secs_f64()
    }

    fn load(&self, arrivals: Arrivals, share: u32, capacity: f64) -> (String, Value) {
        let rate = capacity * f64::from(share) / 100.0;
        let served = self.serve(&arrivals.schedule(rate, self.count, SEED));
        let batch = self.count as f64 / served.batches.len() as f64;
        let latencies = Latencies::new(served.latencies);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let [p50, p90, p99] = [50, 90, 99].map(|percent| ms(latencies.percentile(percent)));
        let (max, spread) = (ms(latencies.max()), latencies.spread());
        let name = format!("{arrivals:?}").to_lowercase();
        println!(
            "| {name} | {share} % | {rate:.1} | {p50:.2} | {p90:.2} | {p99:.2} | {max:.2} | {spread:.2} | {batch:.1} |"
        );
        let figure = json!({
            "capacity": capacity,
            "rate": rate,
            "requests": self.count,
            "seed": SEED,
            "callers": self.team.callers,
            "batch": self.team.batch,
            "mean_batch": batch,
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "max_ms": max,
            "p99_over_p50": spread,
            "latencies_us": latencies.all().iter().map(|time| time.as_micros() as u64).collect::<Vec<_>>(),
        });
        (format!("{}, {name}, {share} %", self.model), figure)
    }

    fn serve(&self, schedule: &[Duration]) -> Served {
        serve(schedule, self.team, &Wall::start(), |batch| self.answer(batch.start, batch.len()))
    }

    /// Answers `size` requests, beginning with the one of arrival `first`.
    fn answer(&self, first: usize, size: usize) {
        let first = first % self.distinct;
        let answers = self.engine.allocate(&self.asked[first..first + size]);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
}

/// Writes what experiments found to the file that `BIDSLATE_LOADS` names, if it names one.
pub fn write(loads: &serde_json::Map<String, Value>) {
    if let Some(path) = std::env::var_os("BIDSLATE_LOADS") {
        std::fs::write(path, json!(loads).to_string()).expect("the file that BIDSLATE_LOADS names");
    }
}
