//! The engine against the float64 reference, over random models and requests.

mod reference;

#[path = "reference/checks.rs"]
mod checks;

#[path = "reference/comparison_checks.rs"]
mod comparison_checks;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use reference::compare::{F32, F64, Tolerance, Verdict, compare, compare_trace};
use reference::generate::World;
use reference::{Model, Outcome, Refusal, allocate, generate};
use serde_json::Value;

/// Runs a command that reads a model directory and a file of requests and prints one response a line.
fn responses(program: &[OsString], dir: &Path, requests: &[Value]) -> Vec<Value> {
    let file = dir.join("requests.jsonl");
    let lines: Vec<String> = requests.iter().map(Value::to_string).collect();
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let output = Command::new(&program[0])
        .args(&program[1..])
        .arg("--model")
        .arg(dir)
        .arg("--requests")
        .arg(&file)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    // A refused request among the lines is exit code 1.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}: {stderr}", output.status);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let responses: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(responses.len(), requests.len(), "{stderr}");
    responses
}

/// The engine's responses, by its command.
fn engine(dir: &Path, requests: &[Value]) -> Vec<Value> {
    responses(&[env!("CARGO_BIN_EXE_bidslate").into(), "allocate".into()], dir, requests)
}

/// `scripts/reference.py`, by the Python that `PYTHON` names (it needs numpy).
fn script() -> Vec<OsString> {
    let python = std::env::var_os("PYTHON").unwrap_or("python3".into());
    vec![python, Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/reference.py").into()]
}

fn numpy(dir: &Path, requests: &[Value]) -> Vec<Value> {
    responses(&script(), dir, requests)
}

fn numpy_f32(dir: &Path, requests: &[Value]) -> Vec<Value> {
    responses(&[script(), vec!["--float32".into()]].concat(), dir, requests)
}

/// How requests are drawn for a model: by a seed, so many.
type Draw = fn(&World, u64, usize) -> Vec<Value>;

/// Compares over `models` random models of `each` requests; a choice on an edge is excused, but few may be.
fn agree(
    answer: fn(&Path, &[Value]) -> Vec<Value>,
    draw: Draw,
    dtype: Option<safetensors::Dtype>,
    models: std::ops::Range<u64>,
    each: usize,
    tolerance: Tolerance,
) {
    let (mut excused, mut different, mut all) = (0, Vec::new(), 0);
    for seed in models {
        let dir = tempfile::tempdir().unwrap();
        let world = generate::world(seed, dtype, dir.path());
        let requests = draw(&world, seed, each);
        let model = Model::read(dir.path());
        let answers = answer(dir.path(), &requests);
        for (request, answer) in requests.iter().zip(&answers) {
            all += 1;
            assert_eq!(answer["id"], request["id"]);
            let expected: Result<Outcome, Refusal> = allocate(&model, request);
            match compare(answer, &expected, tolerance) {
                Verdict::Same => {}
                Verdict::Excused => excused += 1,
                Verdict::Different(findings) => {
                    let findings = findings.join("\n  ");
                    different
                        .push(format!("model {seed} ({:?}), request {request}\n  {findings}", world.dtype));
                }
            }
        }
    }
    println!("{all} requests: {} different, {excused} excused", different.len());
    assert!(
        different.is_empty(),
        "{} of {all}:\n{}",
        different.len(),
        different[..different.len().min(5)].join("\n")
    );
    assert!(excused * 50 <= all, "{excused} of {all} excused");
}

/// Weights of every type: the engine widens 16-bit ones exactly, and computes in f32.
#[test]
fn the_engine_agrees_with_the_reference() {
    agree(engine, World::audited, None, 0..60, 6, F32);
}

/// Intermediate tensors, where the responses agree.
#[test]
fn the_engines_trace_agrees_with_the_reference() {
    let (mut findings, mut compared) = (Vec::new(), 0);
    for seed in 1000..1010 {
        let dir = tempfile::tempdir().unwrap();
        let requests = generate::world(seed, None, dir.path()).requests(seed, 6);
        let model = Model::read(dir.path());
        let trace = dir.path().join("trace.safetensors");
        let command = [
            env!("CARGO_BIN_EXE_bidslate").into(),
            "allocate".into(),
            "--trace".into(),
            trace.clone().into(),
        ];
        let answers = responses(&command, dir.path(), &requests);
        let bytes = std::fs::read(&trace).unwrap();
        let trace = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (request, answer) in requests.iter().zip(&answers) {
            let expected = allocate(&model, request);
            let same = compare(answer, &expected, F32) == Verdict::Same;
            let Some(outcome) = expected.ok().filter(|outcome| same && outcome.margins.order > F32.margin)
            else {
                continue;
            };
            let (id, slots) = (request["id"].as_str().unwrap(), model.config.list_len);
            let found = compare_trace(&trace, id, &outcome, slots, F32);
            findings.extend(found.into_iter().map(|finding| format!("model {seed}, {finding}")));
            compared += 1;
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(compared > 30, "only {compared} traces were compared");
}

/// Two readings of the specification, written apart, on the same cases.
#[test]
#[ignore = "needs Python with numpy"]
fn the_numpy_reference_agrees_with_this_one() {
    agree(numpy, World::requests, None, 0..100, 6, F64);
}

/// What f32 arithmetic alone does to a response is within the tolerances that the engine is held to.
#[test]
#[ignore = "needs Python with numpy"]
fn single_precision_is_within_tolerance() {
    agree(numpy_f32, World::requests, None, 0..100, 6, F32);
}
