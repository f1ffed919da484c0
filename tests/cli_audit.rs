//! `bidslate audit` from end to end.
#![cfg(feature = "cli")]

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use command::{Run, bidslate};
use serde_json::{Value, json};

/// A directory as `init-model` makes it, shared by all tests, which only read it.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-audit-model");
        let sizes = ["--history-len=4", "--list-len=4", "--beam-width=6", "--codebook-size=8"];
        let mut command = bidslate();
        command.args(["init-model", "--size", "tiny", "--items", "80", "--requests", "6", "--seed", "5"]);
        Run::of(command.args(sizes).arg("--force").arg(&dir)).ok();
        dir
    })
}

fn requests() -> Vec<Value> {
    let text = fs::read_to_string(model().join("requests.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A command of these arguments on these lines.
fn run(command: &str, lines: &[String], options: &[&str]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("requests.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    Run::of(bidslate().arg(command).arg("--model").arg(model()).arg("--requests").arg(file).args(options))
}

fn audit(lines: &[String], options: &[&str]) -> Run {
    run("audit", lines, &[options, &["--format", "json"]].concat())
}

fn texts(lines: &[Value]) -> Vec<String> {
    lines.iter().map(Value::to_string).collect()
}

/// The summaries, worked out from the responses of `bidslate allocate`.
#[test]
fn psi_and_landscapes_are_sums_over_the_responses() {
    for tier in ["fixed", "reselect", "redecode"] {
        let audited: Vec<Value> = requests()
            .into_iter()
            .map(|mut request| {
                request["audit"] = json!(tier);
                request["payment"] = json!("gsp");
                request
            })
            .collect();
        let answers = run("allocate", &texts(&audited), &[]).json();
        let [summary] = &audit(&texts(&requests()), &["--tier", tier, "--payment", "gsp"]).json()[..] else {
            panic!("one summary")
        };
        let ads: Vec<&Value> =
            answers.iter().flat_map(|answer| answer["audit"]["ads"].as_array().unwrap()).collect();
        let sum = |key: &str| ads.iter().map(|ad| ad[key].as_f64().unwrap()).sum::<f64>();
        let near = |found: &Value, expected: f64| {
            let found = found.as_f64().unwrap();
            assert!(
                (found - expected).abs() <= 1e-9 * expected.abs().max(1e-9),
                "{found}, expected {expected}"
            );
        };
        assert_eq!((&summary["tier"], &summary["payment"]), (&json!(tier), &json!("gsp")));
        let psi = &summary["psi"];
        assert_eq!((&psi["requests"], &psi["ads"]), (&json!(6), &json!(ads.len())));
        near(&psi["ratio_of_sums"]["value"], sum("regret_micros") / sum("utility_micros"));
        let of_request = |answer: &Value| {
            let ads = answer["audit"]["ads"].as_array().unwrap().iter();
            let with = ads.filter(|ad| ad["utility_micros"].as_f64() > Some(1e-9));
            with.map(|ad| ad["regret_micros"].as_f64().unwrap() / ad["utility_micros"].as_f64().unwrap())
                .sum::<f64>()
        };
        near(&psi["mean_of_ratios"]["value"], answers.iter().map(of_request).sum::<f64>() / 6.0);
        let without = ads.iter().filter(|ad| ad["utility_micros"].as_f64() <= Some(1e-9)).count();
        assert_eq!(psi["without_utility"], without);
        let interval = &psi["ratio_of_sums"]["interval"];
        assert!(interval["low"].as_f64() <= psi["ratio_of_sums"]["value"].as_f64());
        assert!(interval["high"].as_f64() >= psi["ratio_of_sums"]["value"].as_f64());
        assert_eq!(summary["exact"].is_object(), tier == "reselect");
        assert_eq!(summary["least"].is_object(), tier == "fixed");
        assert_eq!(summary["decoder"].is_object(), tier == "redecode");
        // No advertisers in this catalog: one landscape for all ads.
        let [landscape] = &summary["landscape"].as_array().unwrap()[..] else { panic!("one landscape") };
        assert_eq!((&landscape["advertiser"], &landscape["ads"]), (&Value::Null, &json!(ads.len())));
        for (index, gamma) in landscape["gammas"].as_array().unwrap().iter().enumerate() {
            let points: Vec<&Value> = ads.iter().map(|ad| &ad["sweep"][index]).collect();
            assert!(points.iter().all(|point| point["gamma"] == *gamma));
            for key in ["clicks", "cost_micros", "utility_micros"] {
                near(&landscape[key][index], points.iter().map(|point| point[key].as_f64().unwrap()).sum());
            }
        }
    }
}

#[test]
fn each_tier_and_rule_has_a_summary_of_its_own() {
    let options = ["--tier", "fixed,reselect", "--payment", "network,gsp,vcg", "--gammas", "0.5,1"];
    let lines = texts(&requests());
    let summaries = audit(&lines, &options).json();
    let names: Vec<(&str, &str)> = summaries
        .iter()
        .map(|summary| (summary["tier"].as_str().unwrap(), summary["payment"].as_str().unwrap()))
        .collect();
    let of = |tier| ["network", "gsp", "vcg"].map(|rule| (tier, rule));
    assert_eq!(names, [of("fixed"), of("reselect")].concat());
    assert!(summaries.iter().all(|summary| summary["landscape"][0]["gammas"] == json!([0.5, 1.0])));
    // Threads and batches do not show, and the bootstrap repeats.
    let again = [&options[..], &["--threads", "1", "--batch", "2"]].concat();
    assert_eq!(audit(&lines, &again).json(), summaries);
    let other = audit(&lines, &[&options[..], &["--seed", "1"]].concat()).json();
    assert_ne!(other, summaries);
    assert_eq!(audit(&lines, &[&options[..], &["--limit", "2"]].concat()).json()[0]["psi"]["requests"], 2);
}

#[test]
fn without_a_rule_requests_keep_their_own() {
    let mut requests = requests();
    requests[2]["payment"] = json!("vcg");
    requests[4]["payment"] = json!("vcg");
    let summaries = audit(&texts(&requests), &["--tier", "fixed"]).json();
    let found: Vec<(&Value, &Value)> =
        summaries.iter().map(|summary| (&summary["payment"], &summary["psi"]["requests"])).collect();
    assert_eq!(found, [(&json!("network"), &json!(4)), (&json!("vcg"), &json!(2))]);
}

#[test]
fn bad_lines_are_reported_and_the_rest_is_audited() {
    let mut lines = texts(&requests());
    lines.insert(1, "{\"id\": 7".into());
    let mut bad = requests()[0].clone();
    bad["id"] = json!("bad");
    bad["alpha"] = json!(17);
    lines.insert(3, bad.to_string());
    let run = audit(&lines, &["--tier", "fixed,reselect", "--batch", "2"]);
    let found = run.json();
    assert_eq!(run.code, 1);
    assert_eq!((&found[0]["id"], &found[0]["error"]["kind"]), (&Value::Null, &json!("parse")));
    assert_eq!((&found[1]["id"], &found[1]["error"]["field"]), (&json!("bad"), &json!("alpha")));
    assert_eq!(found.len(), 4);
    assert!(found[2..].iter().all(|summary| summary["psi"]["requests"] == 6));
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let lines = texts(&requests());
    let error = audit(&lines, &["--tier", "fixed", "--gammas", "0.5,-1"]).failed();
    assert!(error.contains("gamma -1"), "{error}");
    let run = audit(&lines, &[]);
    assert!(run.code == 2 && run.stderr.contains("--tier"), "{}", run.stderr);
}

#[test]
fn tables_are_for_people() {
    let lines = texts(&requests());
    let options = ["--tier", "reselect,redecode", "--payment", "vcg", "--format", "table"];
    let text = run("audit", &lines, &options).ok();
    for part in ["Psi, ratio of sums", "reselect", "unique prefixes", "(none)", "advertiser"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let mut audited = requests();
    audited[0]["audit"] = json!("fixed");
    let text = run("allocate", &texts(&audited[..1]), &["--format", "table"]).ok();
    assert!(text.contains("audit, fixed") && text.contains("best gamma"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
}
