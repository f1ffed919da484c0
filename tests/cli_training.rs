//! `bidslate generate` and `bidslate misreports`: the tables that models are trained on.
#![cfg(feature = "cli")]

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use command::{Run, bidslate};
use safetensors::SafeTensors;
use serde_json::{Value, json};

// K, N_S, W, C_p and d_r of the model that the tests share.
const SLOTS: usize = 4;
const BEAMS: usize = 6;
const CODES: usize = 8;
const LAYERS: usize = 3;
const FEATURES: usize = 64;

fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("training-model");
        let sizes =
            [("history-len", 5), ("list-len", SLOTS), ("beam-width", BEAMS), ("codebook-size", CODES)];
        let mut command = bidslate();
        command.args(["init-model", "--size", "tiny", "--items", "80", "--requests", "5", "--seed", "4"]);
        command.args(sizes.map(|(name, value)| format!("--{name}={value}"))).arg("--force").arg(&dir);
        Run::of(&mut command).ok();
        dir
    })
}

/// The requests that `init-model` made, the second one refused, the third for a short list of few beams.
fn requests(dir: &Path) -> PathBuf {
    let text = fs::read_to_string(model().join("requests.jsonl")).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines[1]["list_len"] = json!(0);
    lines[2]["list_len"] = json!(SLOTS - 1);
    lines[2]["beam_width"] = json!(BEAMS - 2);
    let path = dir.join("requests.jsonl");
    fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    path
}

fn run(command: &str, requests: &Path, options: &[&str]) -> Run {
    let mut process = bidslate();
    process.arg(command).arg("--model").arg(model()).arg("--requests").arg(requests).args(options);
    Run::of(&mut process)
}

/// The numbers of a tensor, of any type, and its shape.
fn tensor(file: &SafeTensors, name: &str) -> (Vec<f64>, Vec<usize>) {
    use safetensors::Dtype;
    let view = file.tensor(name).unwrap_or_else(|_| panic!("{name} is missing of {:?}", file.names()));
    let bytes = view.data();
    let numbers = match view.dtype() {
        Dtype::U8 => bytes.iter().map(|&byte| f64::from(byte)).collect(),
        Dtype::I64 => bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
        other => panic!("{name} is of type {other:?}"),
    };
    (numbers, view.shape().to_vec())
}

fn near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs().max(1.0),
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn generate_writes_what_allocate_answers() {
    let dir = tempfile::tempdir().unwrap();
    let requests = requests(dir.path());
    let (out, trace) = (dir.path().join("lists.safetensors"), dir.path().join("trace.safetensors"));
    let generated = run("generate", &requests, &["--out", out.to_str().unwrap(), "--lists"]);
    assert_eq!(generated.code, 1, "one request is refused");
    assert!(generated.stderr.contains("list_len"), "{}", generated.stderr);
    let answers = run("allocate", &requests, &["--trace", trace.to_str().unwrap()]).json();
    let (out, trace) = (fs::read(out).unwrap(), fs::read(trace).unwrap());
    let (_, metadata) = SafeTensors::read_metadata(&out).unwrap();
    let ids = &metadata.metadata().as_ref().unwrap()["ids"];
    let expected: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(serde_json::from_str::<Vec<Value>>(ids).unwrap().iter().collect::<Vec<_>>(), expected);
    let (out, trace) = (SafeTensors::deserialize(&out).unwrap(), SafeTensors::deserialize(&trace).unwrap());
    let column = |name: &str| tensor(&out, name).0;

    let lengths = column("length");
    assert_eq!(lengths, [4.0, 0.0, 3.0, 4.0, 4.0]);
    let (ln_w, shape) = tensor(&out, "ln_w");
    assert_eq!(shape, [5, SLOTS * LAYERS, CODES]);
    let (codes, shape) = tensor(&out, "item_codes");
    assert_eq!(shape, [5, SLOTS, LAYERS]);
    for (request, answer) in answers.iter().enumerate() {
        let slots = answer["slots"].as_array().cloned().unwrap_or_default();
        assert_eq!(slots.len() as f64, lengths[request]);
        for slot in 0..SLOTS {
            let at = request * SLOTS + slot;
            let filled = slots.get(slot);
            let number = |key: &str, empty: f64| filled.map_or(empty, |s| s[key].as_f64().unwrap());
            for (name, key, scale, empty) in [
                ("item", "item", 1.0, -1.0),
                ("creative", "creative", 1.0, -1.0),
                ("bid", "bid_micros", 1e-6, 0.0),
                ("payment", "payment_micros", 1e-6, 0.0),
                ("pctr_poi", "pctr_poi", 1.0, 0.0),
                ("pctr_creative", "pctr_creative", 1.0, 0.0),
                ("pcvr", "pcvr", 1.0, 0.0),
                ("z", "z", 1.0, 0.0),
            ] {
                near(name, column(name)[at], scale * number(key, empty / scale), 1e-6);
            }
            assert_eq!(column("is_ad")[at] == 1.0, filled.is_some_and(|s| s["kind"] == "ad"));
            assert_eq!(column("creative_codes")[at * 3] >= 0.0, filled.is_some());
        }
        let Some(id) = answer["slots"].is_array().then(|| answer["id"].as_str().unwrap()) else { continue };
        near("reward", column("reward")[request], answer["reward"].as_f64().unwrap(), 1e-12);
        // z is the softmax of logit + ln w (Eq. 22): along the list it makes the score of the beam.
        let logits = tensor(&trace, &format!("{id}/winner/poi_logits")).0;
        let traced = tensor(&trace, &format!("{id}/winner/ln_w")).0;
        assert_eq!(traced, ln_w[request * SLOTS * LAYERS * CODES..][..traced.len()]);
        let ln_z = (0..slots.len() * LAYERS).map(|step| {
            let scores: Vec<f64> =
                (0..CODES).map(|k| logits[step * CODES + k] + traced[step * CODES + k]).collect();
            let code = codes[request * SLOTS * LAYERS + step] as usize;
            scores[code] - scores.iter().map(|score| score.exp()).sum::<f64>().ln()
        });
        near("log-prob", ln_z.sum(), answer["log_prob"].as_f64().unwrap(), 1e-5);
        assert!(traced[slots.len() * LAYERS * CODES..].iter().all(|&w| w == f64::NEG_INFINITY));
    }
    let (items, shape) = tensor(&out, "lists.item");
    assert_eq!(shape, [5, BEAMS, SLOTS]);
    assert!(items[BEAMS * SLOTS..2 * BEAMS * SLOTS].iter().all(|&item| item == -1.0), "a refused request");
    let short = &items[(2 * BEAMS + BEAMS - 2) * SLOTS..3 * BEAMS * SLOTS];
    assert!(short.iter().all(|&item| item == -1.0), "beams that were not asked for");
    for (name, key) in [("lists.log_prob", "log_prob"), ("lists.reward", "reward")] {
        let winner = answers[0]["beam"].as_u64().unwrap() as usize;
        near(name, column(name)[winner], answers[0][key].as_f64().unwrap(), 1e-12);
    }
}

/// The payment network by the book: [d_r + K] -> 128 -> 32 -> 10 -> 1, ReLU between, sigmoid at the end.
fn rate(weights: &SafeTensors, input: &[f64]) -> f64 {
    let mut x = input.to_vec();
    for layer in 0..4 {
        let (weight, shape) = tensor(weights, &format!("payment.mlp.{layer}.weight"));
        let (bias, _) = tensor(weights, &format!("payment.mlp.{layer}.bias"));
        let row =
            |out: usize| bias[out] + (0..shape[1]).map(|i| weight[out * shape[1] + i] * x[i]).sum::<f64>();
        x = (0..shape[0]).map(row).map(|y| if layer < 3 { y.max(0.0) } else { y }).collect();
    }
    1.0 / (1.0 + (-x[0]).exp())
}

#[test]
fn misreports_hold_what_an_audit_finds_and_what_the_payment_network_reads() {
    misreports_are_an_audits("reselect");
    misreports_are_an_audits("redecode");
}

/// Holds the table of a tier against what `allocate` says of the same bids.
fn misreports_are_an_audits(tier: &str) {
    let dir = tempfile::tempdir().unwrap();
    let requests = requests(dir.path());
    let out = dir.path().join("table.safetensors");
    let out_path = out.to_str().unwrap();
    let options =
        ["--samples", "3", "--seed", "9", "--gammas", "0.4,1,1.6", "--tier", tier, "--out", out_path];
    assert_eq!(run("misreports", &requests, &options).code, 1, "one request is refused");
    let (bytes, weights) = (fs::read(&out).unwrap(), fs::read(model().join("model.safetensors")).unwrap());
    let (table, weights) =
        (SafeTensors::deserialize(&bytes).unwrap(), SafeTensors::deserialize(&weights).unwrap());
    let column = |name: &str| tensor(&table, name).0;
    let (features, shape) = tensor(&table, "features");
    let rows = shape[0];
    assert_eq!(shape, [rows, 3, FEATURES]);
    let (others, shape) = tensor(&table, "others");
    assert_eq!(shape, [rows, 3, SLOTS - 1]);
    let factors = column("gamma");
    assert!(factors.iter().zip([0.4, 1.0, 1.6]).all(|(found, given)| (found - given).abs() < 1e-6));

    // The first sample is the catalog as it is: the rows are the audit's ads.
    let audited = fs::read_to_string(&requests).unwrap();
    let audited: String = audited
        .lines()
        .map(|line| {
            let mut request: Value = serde_json::from_str(line).unwrap();
            request["audit"] = json!(tier);
            format!("{request}\n")
        })
        .collect();
    fs::write(&requests, audited).unwrap();
    let mut audit = bidslate();
    audit.args(["allocate", "--model"]).arg(model()).arg("--requests").arg(&requests);
    let answers = Run::of(&mut audit).json();
    let mut row = 0;
    for (request, answer) in answers.iter().enumerate().filter(|(_, answer)| answer["slots"].is_array()) {
        for ad in answer["audit"]["ads"].as_array().unwrap() {
            assert_eq!((column("request")[row], column("sample")[row]), (request as f64, 0.0));
            assert_eq!(column("item")[row], ad["item"].as_f64().unwrap());
            assert_eq!(column("slot")[row], ad["slot"].as_f64().unwrap());
            near("value", column("value")[row], ad["value_micros"].as_f64().unwrap() / 1e6, 1e-6);
            let reserve = column("reserve")[row];
            for (gamma, at) in [(0.4, 0), (1.0, 1), (1.6, 2)] {
                let mut sweep = ad["sweep"].as_array().unwrap().iter();
                let is_it = |p: &&Value| (p["gamma"].as_f64().unwrap() - gamma).abs() < 1e-9;
                let point = sweep.find(is_it).unwrap();
                let cell = row * 3 + at;
                let bid = column("bid")[cell];
                near("bid", bid, point["bid_micros"].as_f64().unwrap() / 1e6, 1e-6);
                let shown = column("shown")[cell] == 1.0;
                assert_eq!(shown, point["slot"].is_u64(), "gamma {gamma}");
                near("pctr", column("pctr")[cell], point["clicks"].as_f64().unwrap(), 1e-6);
                if shown {
                    let mut input = features[cell * FEATURES..(cell + 1) * FEATURES].to_vec();
                    input.extend(&others[cell * (SLOTS - 1)..(cell + 1) * (SLOTS - 1)]);
                    input.push(column("zq")[cell]);
                    let payment = (rate(&weights, &input) * bid).max(reserve).min(bid);
                    near("payment", payment, point["payment_micros"].as_f64().unwrap() / 1e6, 2e-5);
                }
            }
            row += 1;
        }
    }
    assert!(row > 0);
    let samples = column("sample");
    assert!(samples[..row].iter().all(|&s| s == 0.0) && samples[row] == 1.0 && samples[rows - 1] == 2.0);
    // Other samples are other values.
    let values = column("value");
    let same = values[row..].iter().filter(|value| values[..row].contains(value)).count();
    assert!(same < (rows - row) / 2, "{same} of {} values are the catalog's bids", rows - row);
}

#[test]
fn misreports_refuses_options_that_make_no_sense() {
    let dir = tempfile::tempdir().unwrap();
    let requests = requests(dir.path());
    for (options, expected) in [
        (["--samples", "0"], "--samples is 0, expected at least 1"),
        (["--sigma", "-1"], "--sigma is -1, expected a number of 0 or more"),
        (["--gammas", "1,-2"], "-2"),
    ] {
        let mut all = vec!["--out", "unused.safetensors"];
        let joined = format!("{}={}", options[0], options[1]);
        all.push(&joined);
        let run = run("misreports", &requests, &all);
        assert!(run.code == 1 && run.stderr.contains(expected), "{}", run.stderr);
    }
}
