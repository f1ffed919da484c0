//! Requests from end to end at the base size, stage by stage, on one thread and on two.
//!
//! `BIDSLATE_BENCH_SIZE` (default `base`) names another size. Stages are taken from the engine's own timings of the
//! same runs: `search` is the encoder and the beam search, what plain encoder-decoder libraries do too.

mod setup;

use std::time::Duration;

use bidslate::cpu::Precision;
use bidslate::engine::{Engine, Report};
use bidslate::request::{Audit, PaymentRule, Request};
use bidslate::response::Timings;
use criterion::{Criterion, Throughput};
use setup::Setup;

/// A stage: its name, and its time in a run.
type Stage = (&'static str, fn(&Timings) -> u64);

const STAGES: [Stage; 4] = [
    ("search", |t| t.encode_us + t.search_us),
    ("creative", |t| t.creative_us),
    ("reward", |t| t.reward_us),
    ("payment", |t| t.payment_us),
];

fn timings(engine: &Engine, requests: &[Request]) -> Timings {
    let report = Report { timings: true, ..Report::default() };
    let answer = engine.allocate_with(requests, report).remove(0).expect("an answer");
    answer.timings.expect("timings were asked for")
}

fn setup(threads: usize, precision: Precision, batch: usize) -> (Engine, Vec<Request>) {
    let size = setup::size(&std::env::var("BIDSLATE_BENCH_SIZE").unwrap_or_else(|_| "base".into()));
    Setup { size, threads, precision, batch }.build()
}

/// One request at a time, each stage by itself.
fn stages(criterion: &mut Criterion) {
    for precision in [Precision::F32, Precision::Bf16] {
        for threads in [1, 2] {
            let (engine, requests) = setup(threads, precision, 1);
            for (name, stage) in STAGES {
                criterion.bench_function(&format!("{name} {precision:?} x{threads}"), |bencher| {
                    bencher.iter_custom(|runs| {
                        let time = |_| Duration::from_micros(stage(&timings(&engine, &requests)));
                        (0..runs).map(time).sum()
                    });
                });
            }
        }
    }
}

/// A batch of eight: the throughput of two threads over one.
fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch of 8");
    group.throughput(Throughput::Elements(8));
    for precision in [Precision::F32, Precision::Bf16] {
        for threads in [1, 2] {
            let (engine, requests) = setup(threads, precision, 8);
            group.bench_function(format!("{precision:?} x{threads}"), |bencher| {
                bencher.iter(|| engine.allocate(&requests));
            });
        }
    }
}

/// A request alone, and with each tier of the regret audit under the network's and another rule: ten ads and ten gammas,
/// 100 misreports. What `redecode` shares is printed.
fn audits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("audit");
    for threads in [1, 2] {
        let (engine, mut requests) = setup(threads, Precision::F32, 1);
        // Nothing but ads, so that every slot is audited.
        requests[0].organic.clear();
        for payment in [PaymentRule::Network, PaymentRule::Vcg] {
            for audit in [Audit::None, Audit::Fixed, Audit::Reselect, Audit::Redecode] {
                let request = Request { audit, payment, ..requests[0].clone() };
                let requests = std::slice::from_ref(&request);
                let mut shared = None;
                group.bench_function(format!("{payment:?} {audit:?} x{threads}"), |bencher| {
                    bencher.iter(|| {
                        let response = engine.allocate(requests).remove(0).expect("an answer");
                        shared = response.audit.and_then(|audit| audit.decoder);
                    });
                });
                if let Some(shared) = shared {
                    println!("{shared:?}");
                }
            }
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    stages(&mut criterion);
    batches(&mut criterion);
    audits(&mut criterion);
    criterion.final_summary();
}
