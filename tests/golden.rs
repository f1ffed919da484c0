//! The model that ships, against what the PyTorch model that it was trained as makes of the same requests: every stage,
//! from the encoder's output to the payments. `python -m bidslate_train` writes the goldens; nothing here needs Python.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bidslate::engine::{Engine, Limits, Report};
use bidslate::request::Request;
use bidslate::response::Response;
use safetensors::{Dtype, SafeTensors};

/// Largest difference of a tensor's numbers, as a share of the largest of them.
const TOLERANCE: f64 = 1e-4;

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nyc").join(file)
}

/// The numbers of a golden tensor; ids, being whole, are exact up to 2^53.
fn golden(file: &SafeTensors, name: &str) -> Vec<f64> {
    let view = file.tensor(name).unwrap_or_else(|_| panic!("no golden {name}"));
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
        Dtype::I64 => bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
        other => panic!("{name} is of type {other:?}"),
    }
}

/// Largest difference as a share of the largest magnitude; infinite where lengths or infinities differ.
fn difference(golden: &[f64], found: &[f64]) -> f64 {
    let alike = |(a, b): (&f64, &f64)| a.is_finite() == b.is_finite() && (a.is_finite() || a == b);
    if golden.len() != found.len() || !golden.iter().zip(found).all(alike) {
        return f64::INFINITY;
    }
    let finite = || golden.iter().zip(found).filter(|(a, _)| a.is_finite());
    let size = finite().fold(0.0_f64, |size, (a, _)| size.max(a.abs()));
    let off = finite().fold(0.0_f64, |off, (a, b)| off.max((a - b).abs()));
    if off == 0.0 { 0.0 } else { off / size }
}

fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|&x| f64::from(x)).collect()
}

fn ids(numbers: &[i64]) -> Vec<f64> {
    numbers.iter().map(|&x| x as f64).collect()
}

/// What the engine found, by the goldens' names; the numbers of slots padded to `slots`.
fn found(response: &Response, slots: usize) -> HashMap<&'static str, Vec<f64>> {
    let trace = response.trace.as_ref().unwrap();
    let column = |empty: f64, of: fn(&bidslate::response::Slot) -> f64| {
        let mut column: Vec<f64> = response.slots.iter().map(of).collect();
        column.resize(slots, empty);
        column
    };
    HashMap::from([
        ("encoder", wide(&trace.encoder)),
        ("lists/items", ids(&trace.items)),
        ("lists/creatives", ids(&trace.creatives)),
        ("lists/log_prob", trace.log_prob.clone()),
        ("lists/reward", trace.reward.clone()),
        ("winner/poi_logits", wide(&trace.poi_logits)),
        ("winner/ln_w", wide(&trace.ln_w)),
        ("winner/creative_logits", wide(&trace.creative_logits)),
        ("winner/reward_features", wide(&trace.reward_features)),
        ("winner/rate", trace.rate.clone()),
        ("winner/items", column(-1.0, |slot| slot.item as f64)),
        ("winner/z", column(0.0, |slot| slot.z)),
        ("winner/pctr_poi", column(0.0, |slot| slot.pctr_poi)),
        ("winner/pctr_creative", column(0.0, |slot| slot.pctr_creative)),
        ("winner/pcvr", column(0.0, |slot| slot.pcvr)),
    ])
}

#[test]
fn the_engine_finds_what_the_trained_model_finds() {
    let bytes = std::fs::read(shipped("golden.safetensors")).unwrap();
    let goldens = SafeTensors::deserialize(&bytes).unwrap();
    let lines = std::fs::read(shipped("golden-requests.jsonl")).unwrap();
    let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let requests: Vec<Request> = lines.map(|line| Request::from_json(line).unwrap()).collect();
    assert!(requests.len() >= 4);
    let limits = Limits { batch: 1, history: 32, beams: 64, candidates: 2000, slots: 10 };
    let engine = Engine::builder().model(shipped("")).limits(limits).build().unwrap();
    let slots = engine.config().list_len;
    let report = Report { trace: true, ..Report::default() };
    for response in engine.allocate_with(&requests, report) {
        let response = response.unwrap();
        for (name, found) in found(&response, slots) {
            let name = format!("{}/{name}", response.id);
            let exact = ["items", "creatives"].iter().any(|ids| name.ends_with(ids));
            let difference = difference(&golden(&goldens, &name), &found);
            assert!(difference <= if exact { 0.0 } else { TOLERANCE }, "{name}: {difference:e}");
        }
        // A rate that differs by the tolerance makes a payment that differs by as much of the bid.
        let payments = golden(&goldens, &format!("{}/winner/payment", response.id));
        for (slot, golden) in response.slots.iter().zip(payments) {
            let off = (slot.payment_micros.0 as f64 - golden).abs();
            assert!(off <= TOLERANCE * slot.bid_micros.0 as f64, "{}: payment off by {off}", response.id);
        }
    }
}
