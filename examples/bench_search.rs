//! Times the encoder and the search, the part that plain encoder-decoder libraries do too; one JSON line.
//!
//!     cargo run --release --example bench_search -- --threads 1 --precision f32
//!
//! Base size: d 512, 3 + 3 blocks, 1792 history tokens and [CTX], 64 beams, 30 steps. The stages that only this
//! engine has (creatives, reward, payment) are reported apart. With it the memory that the engine announces, and the
//! most that the process held.

#[path = "../benches/setup/options.rs"]
mod options;
#[path = "../benches/setup/mod.rs"]
mod setup;

use bidslate::cpu::Precision;
use bidslate::engine::Report;
use bidslate::response::Timings;
use options::{number, option};
use setup::Setup;

/// Most bytes of resident memory so far, where the system tells.
fn peak_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

fn main() {
    let setup = Setup {
        size: setup::size(&option("--size", "base")),
        threads: number("--threads", "1"),
        precision: if option("--precision", "f32") == "bf16" { Precision::Bf16 } else { Precision::F32 },
        batch: 1,
    };
    let (engine, requests) = setup.build();
    let report = Report { timings: true, ..Report::default() };
    let run = || -> Timings {
        let answer = engine.allocate_with(&requests, report).remove(0);
        answer.expect("an answer").timings.expect("timings were asked for")
    };
    run(); // Warm-up.
    let timings: Vec<Timings> = (0..number("--runs", "5")).map(|_| run()).collect();
    let mut ms: Vec<f64> = timings.iter().map(|t| (t.encode_us + t.search_us) as f64 / 1000.0).collect();
    ms.sort_by(f64::total_cmp);
    let line = serde_json::json!({
        "threads": setup.threads,
        "precision": option("--precision", "f32"),
        "ms_median": ms[ms.len() / 2],
        "ms_min": ms[0],
        "stages_of_last_run": timings.last(),
        "memory_announced": engine.memory().peak(),
        "memory_peak": peak_memory(),
    });
    println!("{line}");
}
