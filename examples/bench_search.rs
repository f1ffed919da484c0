//! Times the encoder and the search, the part that plain encoder-decoder libraries do too; one JSON line.
//!
//!     cargo run --release --example bench_search -- --threads 1 --precision f32
//!
//! Base size: d 512, 3 + 3 blocks, 1792 history tokens and [CTX], 64 beams, 30 steps. The stages that only this
//! engine has (creatives, reward, payment) are reported apart.

use bidslate::cpu::Precision;
use bidslate::engine::{Engine, Limits, Report};
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::request::{Candidates, Request};
use bidslate::response::Timings;
use bidslate::synthetic;

/// The value of a command-line option.
fn option(name: &str, default: &str) -> String {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == name);
    at.and_then(|at| args.get(at + 1)).map_or(default.to_string(), String::clone)
}

fn number(name: &str, default: &str) -> usize {
    option(name, default).parse().unwrap_or_else(|_| panic!("{name} takes a number"))
}

/// An engine with random weights, and a request that keeps all of its beams busy.
fn setup() -> (Engine, Request) {
    let config = ModelConfig::of_size(match option("--size", "base").as_str() {
        "tiny" => ModelSize::Tiny,
        "small" => ModelSize::Small,
        "large" => ModelSize::Large,
        _ => ModelSize::Base,
    });
    let dir = tempfile::tempdir().expect("a temporary directory");
    init_model(dir.path(), &config, WeightType::F32, 1).expect("a model");
    let catalog = synthetic::catalog(&config, 20_000, 1);
    catalog.write(&dir.path().join("catalog.safetensors"), &config).expect("a catalog");
    let limits = Limits {
        batch: 1,
        history: config.history_len,
        beams: config.beam_width,
        candidates: 2000,
        slots: config.list_len,
    };
    let precision = if option("--precision", "f32") == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let engine = Engine::builder()
        .model(dir.path())
        .threads(number("--threads", "1"))
        .precision(precision)
        .limits(limits)
        .build()
        .expect("an engine");
    let json = synthetic::requests(&catalog, &config, 1, 1).remove(0).to_string();
    let mut request = Request::from_json(json.as_bytes()).expect("a request");
    (request.candidates, request.policy) = (Candidates::All, Default::default());
    (engine, request)
}

fn main() {
    let (engine, request) = setup();
    let report = Report { timings: true, ..Report::default() };
    let run = || -> Timings {
        let answer = engine.allocate_with(std::slice::from_ref(&request), report).remove(0);
        answer.expect("an answer").timings.expect("timings were asked for")
    };
    run(); // Warm-up.
    let timings: Vec<Timings> = (0..number("--runs", "5")).map(|_| run()).collect();
    let mut ms: Vec<f64> = timings.iter().map(|t| (t.encode_us + t.search_us) as f64 / 1000.0).collect();
    ms.sort_by(f64::total_cmp);
    let line = serde_json::json!({
        "threads": number("--threads", "1"),
        "precision": option("--precision", "f32"),
        "ms_median": ms[ms.len() / 2],
        "ms_min": ms[0],
        "stages_of_last_run": timings.last(),
    });
    println!("{line}");
}
