//! Latency under load: requests that arrive by a schedule which does not wait for answers, at shares of the capacity.
//!
//! `BIDSLATE_DEVICE` (default `cpu`, or `cuda:N` with the feature `cuda`) names the device, `BIDSLATE_BENCH_MODEL`
//! (default `weights/nyc`) a model directory with its catalog and `requests.jsonl`, `BIDSLATE_BENCH_THREADS` (default 1)
//! the threads of a CPU, `BIDSLATE_BENCH_REQUESTS` (default 1000) how many arrive at each load, `BIDSLATE_LOADS` a file
//! for the figures and every latency in JSON. On a CPU one caller takes as many requests at a time as there are threads;
//! on a GPU there is a caller for each of its two streams, and batches are those of the engine's own limits. The bench
//! `gpu` does the same with models of d 256, 512 and 1024.

#[path = "load/arrivals.rs"]
mod arrivals;
#[path = "load/experiment.rs"]
mod experiment;
#[path = "load/latencies.rs"]
mod latencies;
#[path = "load/serving.rs"]
mod serving;

use std::path::{Path, PathBuf};

use bidslate::engine::{Device, Engine};
use bidslate::request::Request;
use experiment::{Experiment, GPU_CALLERS};
use serving::Team;

/// Arrivals of a trial, which only shows that the bench runs: without the argument `--bench` that cargo gives it.
const TRIAL: usize = 4;

fn main() {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let number = |name: &str, default: &str| variable(name, default).parse::<usize>().expect(name);
    let device: Device = variable("BIDSLATE_DEVICE", "cpu").parse().expect("a device");
    let threads = number("BIDSLATE_BENCH_THREADS", "1");
    let dir = PathBuf::from(variable("BIDSLATE_BENCH_MODEL", "weights/nyc"));
    let real = std::env::args().any(|argument| argument == "--bench");
    let count = if real { number("BIDSLATE_BENCH_REQUESTS", "1000") } else { TRIAL };

    let engine = Engine::builder().model(&dir).device(device).threads(threads).build().expect("an engine");
    let callers = if device == Device::Cpu { 1 } else { GPU_CALLERS };
    let team = Team { callers, batch: engine.limits().batch };
    let model = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
    println!("{}, {threads} threads", engine.backend());
    experiment::write(&Experiment::new(&engine, model, team, count, requests(&dir)).run());
}

fn requests(dir: &Path) -> Vec<Request> {
    let text = std::fs::read_to_string(dir.join("requests.jsonl")).expect("requests.jsonl");
    text.lines().map(|line| Request::from_json(line.as_bytes()).expect("a request")).collect()
}
