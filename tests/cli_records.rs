//! `--record`, `bidslate replay` and `bidslate explain` from end to end.
#![cfg(feature = "cli")]

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use command::{Run, bidslate};
use serde_json::Value;

/// A directory as `init-model` makes it, shared by all tests, which only read it.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("records-model");
        let mut command = bidslate();
        command.args(["init-model", "--size", "tiny", "--items", "80", "--requests", "6", "--seed", "5"]);
        command.args(["--history-len=4", "--list-len=4", "--beam-width=6", "--codebook-size=8", "--force"]);
        Run::of(command.arg(&dir)).ok();
        dir
    })
}

/// Answers the model's requests, and appends their records to `file`.
fn record(file: &Path, options: &[&str]) -> String {
    let mut command = bidslate();
    command.arg("allocate").arg("--model").arg(model()).arg("--requests").arg(model().join("requests.jsonl"));
    Run::of(command.arg("--record").arg(file).args(options)).ok()
}

fn replay(file: &Path, options: &[&str]) -> Run {
    Run::of(bidslate().arg("replay").arg(file).args(options))
}

fn with_model() -> [&'static str; 2] {
    ["--model", model().to_str().unwrap()]
}

#[test]
fn what_was_answered_is_replayed_and_explained() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("records.jsonl");
    let answers = record(&file, &["--batch", "2"]);
    // Recording changes no answer; a second run appends.
    assert_eq!(record(&file, &["--precision", "bf16"]).lines().count(), 6);
    assert_eq!(record(&dir.path().join("other"), &[]), answers);
    let run = replay(&file, &with_model());
    assert_eq!(run.ok(), "12 records replayed to the bit, 0 not\n");
    let explained = Run::of(bidslate().arg("explain").arg(&file)).ok();
    for answer in answers.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        assert!(
            explained.contains(&format!("Request {}: 4 slots", answer["id"].as_str().unwrap())),
            "{explained}"
        );
        for slot in answer["slots"].as_array().unwrap() {
            let item = format!("{} {}", slot["kind"].as_str().unwrap(), slot["item"]);
            assert!(explained.contains(&item.replace("organic", "organic item")), "{item}: {explained}");
        }
    }
    assert!(explained.contains("Why it won: ") && explained.contains("Why it pays "), "{explained}");
    let one = Run::of(bidslate().arg("explain").arg(&file).args(["--id", "request-3"])).ok();
    assert_eq!(one.matches("Request ").count(), 2, "{one}");
    let none = Run::of(bidslate().arg("explain").arg(&file).args(["--id", "request-9"])).failed();
    assert!(none.contains("request-9"), "{none}");
}

#[test]
fn what_differs_and_what_is_spoilt_is_named_and_the_rest_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("records.jsonl");
    record(&file, &[]);
    let good = fs::read_to_string(&file).unwrap();
    let mut lines: Vec<String> = good.lines().map(String::from).collect();
    lines[1] = lines[1].replacen("\"reward\":", "\"Reward\":", 1);
    lines[4].truncate(100);
    let cut = &lines[5][..200];
    fs::write(&file, [&lines[..5].join("\n"), "\n", cut].concat()).unwrap();
    let run = replay(&file, &with_model());
    assert_eq!(run.code, 1);
    let name = file.display();
    for expected in [
        format!("{name}:2: the line is corrupted: its checksum is "),
        format!("{name}:5: the line is not a record: "),
        format!("{name}:6: the line is cut off after 200 bytes"),
        "3 records replayed to the bit, 3 not".into(),
    ] {
        assert!(run.stdout.contains(&expected), "{expected}: {}", run.stdout);
    }
    assert_eq!(Run::of(bidslate().arg("explain").arg(&file)).code, 1);
    // The next run cuts off what is not a line, and says so.
    let mut command = bidslate();
    command.arg("allocate").arg("--model").arg(model()).arg("--requests").arg(model().join("requests.jsonl"));
    let run = Run::of(command.arg("--record").arg(&file));
    assert!(run.stderr.contains("an unfinished last line of 200 bytes was cut off"), "{}", run.stderr);
    assert!(replay(&file, &with_model()).stdout.ends_with("9 records replayed to the bit, 2 not\n"));
    // Other weights.
    let other = dir.path().join("model");
    let mut command = bidslate();
    command.args(["init-model", "--size", "tiny", "--items", "80", "--requests", "1", "--seed", "6"]);
    command.args(["--history-len=4", "--list-len=4", "--beam-width=6", "--codebook-size=8"]);
    Run::of(command.arg(&other)).ok();
    fs::write(&file, good).unwrap();
    let catalog = model().join("catalog.safetensors");
    let run = replay(&file, &["--model", other.to_str().unwrap(), "--catalog", catalog.to_str().unwrap()]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains(":1: request-0: weights: recorded "), "{}", run.stdout);
    assert!(replay(&file, &[]).failed().contains("--model is missing"));
}

#[test]
fn auctions_are_recorded_too() {
    let dir = tempfile::tempdir().unwrap();
    let (input, file) = (dir.path().join("auctions.jsonl"), dir.path().join("records.jsonl"));
    let auctions = r#"{"id": 1, "rule": "gsp", "bids_micros": [10, 4, 2], "quality": [0.5, 1, 1], "position_effects": [1, 0.5, 0.25, 0]}
{"id": 2, "rule": "vcg", "bids_micros": [], "position_effects": [1]}
{"id": "three", "rule": "vcg", "bids_micros": [10, 4, 2], "reserve_micros": [0, 5, 1], "position_effects": [1, 0.5]}
"#;
    fs::write(&input, auctions).unwrap();
    let run = Run::of(bidslate().arg("auction").arg("--input").arg(&input).arg("--record").arg(&file));
    assert_eq!(run.code, 1);
    assert_eq!(replay(&file, &[]).ok(), "2 records replayed to the bit, 0 not\n");
    let explained = Run::of(bidslate().arg("explain").arg(&file)).ok();
    for expected in
        ["Auction 1: 3 bidders for 4 slots.", "Auction three:", "Slot 3: not sold.", "pays 0.000008"]
    {
        assert!(explained.contains(expected), "{expected}: {explained}");
    }
}
