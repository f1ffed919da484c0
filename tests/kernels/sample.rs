//! The sample of New York requests that ships, on the GPU path: against the CPU with the same rounding of operands, and
//! against the CPU in f32.

use std::collections::HashSet;

use bidslate::cpu::Precision;
use bidslate::engine::{Engine, EngineBuilder, Limits, Report};
use bidslate::request::Request;
use bidslate::response::Response;
use tempfile::TempDir;

use crate::streams::streams;

// Part of the program, which runs on machines without the repository.
const MODEL: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../../weights/nyc/config.json")),
    ("tokenizer.json", include_bytes!("../../weights/nyc/tokenizer.json")),
    ("model.safetensors", include_bytes!("../../weights/nyc/model.safetensors")),
    ("catalog.safetensors", include_bytes!("../../weights/nyc/catalog.safetensors")),
];
const REQUESTS: &[u8] = include_bytes!("../../weights/nyc/requests.jsonl");

const SLOTS: usize = 10;

/// Requests that the emulator is given, for each of which it takes some ten seconds. A GPU runs all. `BIDSLATE_SAMPLE`
/// asks for another number, or for `all`.
const EMULATED_REQUESTS: usize = 2;

/// Requests from which on the share of the same winners is held to 95 %.
const WHOLE_SAMPLE: usize = 100;

struct Sample {
    dir: TempDir,
    requests: Vec<Request>,
}

impl Sample {
    /// The model that ships, in bf16, and the requests.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in MODEL {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let lines = REQUESTS.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let requests = lines.map(|line| Request::from_json(line).unwrap());
        Self { dir, requests: requests.take(requests_to_run()).collect() }
    }

    fn answers(&self, set: impl FnOnce(EngineBuilder) -> EngineBuilder) -> Vec<Response> {
        let builder = set(Engine::builder().model(self.dir.path()));
        let limits = Limits { batch: 4, history: 32, beams: 64, candidates: 2000, slots: SLOTS };
        let engine = builder.limits(limits).build().unwrap();
        let report = Report { trace: true, ..Report::default() };
        engine.allocate_with(&self.requests, report).into_iter().map(Result::unwrap).collect()
    }
}

fn requests_to_run() -> usize {
    match std::env::var("BIDSLATE_SAMPLE").ok().as_deref() {
        Some("all") => usize::MAX,
        Some(number) => number.parse().expect("BIDSLATE_SAMPLE is a number or `all`"),
        None if std::env::var_os("BIDSLATE_DEVICE").is_some() => usize::MAX,
        None => EMULATED_REQUESTS,
    }
}

/// How the answers of two ways to compute compare.
#[derive(Debug, Default)]
struct Agreement {
    /// Requests for which both show the same items, and those for which the creatives are the same too.
    same_items: usize,
    same_lists: usize,
    /// Share of the candidate lists that both have, on average.
    candidates: f64,
    /// Largest share of the one's reward that the other's is away.
    reward_gap: f64,
    /// Length of the difference of the encoder's outputs, as a share of the one's, at most.
    encoder: f64,
}

impl Agreement {
    fn of(ones: &[Response], others: &[Response]) -> Self {
        let mut all = Self::default();
        for (one, other) in ones.iter().zip(others) {
            let items = |r: &Response| r.slots.iter().map(|slot| slot.item).collect::<Vec<_>>();
            let creatives = |r: &Response| r.slots.iter().map(|slot| slot.creative).collect::<Vec<_>>();
            let same = items(one) == items(other);
            all.same_items += usize::from(same);
            all.same_lists += usize::from(same && creatives(one) == creatives(other));
            all.reward_gap = all.reward_gap.max((one.reward - other.reward).abs() / one.reward.abs());
            let (a, b) = (one.trace.as_ref().unwrap(), other.trace.as_ref().unwrap());
            let lists: HashSet<&[i64]> = a.items.chunks(SLOTS).collect();
            let common = b.items.chunks(SLOTS).filter(|list| lists.contains(list)).count();
            all.candidates += common as f64 / lists.len() as f64 / ones.len() as f64;
            all.encoder = all.encoder.max(distance(&a.encoder, &b.encoder));
        }
        all
    }
}

/// Length of the difference, as a share of the length of `a`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let length = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    length(&mut a.iter().zip(b).map(|(a, b)| a - b)) / length(&mut a.iter().copied())
}

#[test]
fn lists_of_the_sample_are_those_of_the_cpu() {
    let sample = Sample::new();
    let gpu = sample.answers(|builder| builder.streams(vec![streams().remove(0)]));
    let [bf16, f32] = [Precision::Bf16, Precision::F32]
        .map(|precision| sample.answers(|builder| builder.threads(1).precision(precision)));
    let agreement = Agreement::of(&bf16, &gpu);
    println!("{} requests; GPU and CPU in bf16: {agreement:?}", gpu.len());
    println!("GPU and CPU in f32: {:?}", Agreement::of(&f32, &gpu));
    println!("CPU in bf16 and in f32: {:?}", Agreement::of(&f32, &bf16));
    // Of few requests the winners say little: the least likely of the candidates may be worth most.
    if gpu.len() >= WHOLE_SAMPLE {
        assert!(agreement.same_lists * 20 >= gpu.len() * 19, "{agreement:?}");
    }
    // A rounding that only one of the two does moves the encoder's output as far as f32 is away, by 3e-3.
    assert!(agreement.candidates > 0.9 && agreement.encoder < 2e-3, "{agreement:?}");
}
