//! `bidslate auction` from end to end.
#![cfg(feature = "cli")]

mod command;

use std::fs;

use command::{Run, bidslate};
use serde_json::{Value, json};

/// `bidslate auction` on these bytes.
fn auction(input: &[u8], options: &[&str]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auctions.jsonl");
    fs::write(&file, input).unwrap();
    Run::of(bidslate().arg("auction").arg("--input").arg(file).args(options))
}

fn lines(lines: &[Value]) -> Vec<u8> {
    lines.iter().flat_map(|line| (line.to_string() + "\n").into_bytes()).collect()
}

/// Edelman, Ostrovsky and Schwarz 2007.
fn example(id: Value, rule: &str, clicks: [u64; 2]) -> Value {
    json!({
        "id": id, "rule": rule, "bids_micros": [10_000_000, 4_000_000, 2_000_000], "quality": [1, 1, 1],
        "reserve_micros": 0, "position_effects": clicks, "squash": 1, "tie_seed": 0
    })
}

#[test]
fn each_auction_is_answered_in_its_place() {
    let reserved = json!({
        "id": "reserved", "rule": "vcg", "bids_micros": [10, 12, 18, 14, 20], "reserve_micros": [15, 15, 15, 15, 15],
        "position_effects": [4, 3, 2, 1]
    });
    let input = lines(&[
        example(json!(7), "gsp", [200, 100]),
        example(json!("vcg"), "vcg", [200, 100]),
        example(json!("first"), "first_price", [200, 100]),
        reserved,
    ]);
    let expected = [
        json!({"id": 7, "winners": [0, 1], "payments_micros": [4_000_000, 2_000_000]}),
        json!({"id": "vcg", "winners": [0, 1], "payments_micros": [3_000_000, 2_000_000]}),
        json!({"id": "first", "winners": [0, 1], "payments_micros": [10_000_000, 4_000_000]}),
        json!({"id": "reserved", "winners": [4, 2, null, null], "payments_micros": [15, 15, 0, 0]}),
    ];
    for options in [&[][..], &["--batch", "1"], &["--batch", "3", "--threads", "2"]] {
        let run = auction(&input, &[&["--no-regret"], options].concat());
        assert_eq!(run.json(), expected, "{options:?}");
        run.ok();
    }
}

#[test]
fn bad_lines_are_answered_in_their_place() {
    let good = example(json!("good"), "gsp", [200, 100]);
    let with = |field: &str, value: Value| {
        let mut bad = example(json!(field), "gsp", [200, 100]);
        bad[field] = value;
        bad
    };
    let bad = [
        ("bids_micros", json!([]), "invalid"),
        ("bids_micros", json!([1, 2]), "invalid"),
        ("bids_micros", json!([u64::MAX, 2, 3]), "invalid"),
        ("bids_micros", json!([-1, 2, 3]), "parse"),
        ("bids_micros", json!([1.5, 2, 3]), "parse"),
        ("quality", json!([-0.5, 1, 1]), "invalid"),
        ("quality", json!(["high", 1, 1]), "parse"),
        ("reserve_micros", json!([1]), "invalid"),
        ("reserve_micros", json!(-1), "parse"),
        ("position_effects", json!([1, 2]), "invalid"),
        ("position_effects", json!([]), "invalid"),
        ("squash", json!(-1), "invalid"),
        ("tie_seed", json!(-1), "parse"),
        ("rule", json!("barter"), "parse"),
        ("ids", json!([1, 1, 2]), "invalid"),
        ("colour", json!(1), "parse"),
    ];
    let mut input = lines(std::slice::from_ref(&good));
    for (field, value, _) in &bad {
        input.extend(lines(&[with(field, value.clone()), good.clone()]));
    }
    input.extend(b"{\"id\": 5, \"rule\": \"gsp\", \"rule\": \"gsp\"}\n{\"id\": 1\n[1, 2]\nNaN\n");
    for batch in ["1", "5", "4096"] {
        let run = auction(&input, &["--batch", batch]);
        assert_eq!(run.code, 1);
        let answers = run.json();
        assert_eq!(answers.len(), 1 + 2 * bad.len() + 4);
        assert_eq!(answers[0]["winners"], json!([0, 1]));
        for (i, (field, value, kind)) in bad.iter().enumerate() {
            let (answer, next) = (&answers[2 * i + 1], &answers[2 * i + 2]);
            let error = &answer["error"];
            // A length is a fault of the list that has it, and not of the bids that it is compared with.
            let named = error["field"].as_str().unwrap();
            let lengths = *value == json!([1, 2]) && *field == "bids_micros";
            assert!(named.starts_with(field) || lengths && named == "quality", "{field} {value}: {answer}");
            assert_eq!(
                (answer["id"].as_str(), error["kind"].as_str()),
                (Some(*field), Some(*kind)),
                "{answer}"
            );
            assert!(!error["message"].as_str().unwrap().is_empty());
            assert_eq!(*next, answers[0], "the neighbour of {field} {value}");
        }
        let rest: Vec<&Value> = answers[1 + 2 * bad.len()..].iter().map(|answer| &answer["id"]).collect();
        assert_eq!(rest, [&json!(5), &Value::Null, &Value::Null, &Value::Null]);
    }
}

#[test]
fn regrets_are_there_unless_left_out_and_landscapes_where_asked_for() {
    let input = lines(&[example(json!("eos"), "gsp", [200, 199])]);
    let run = auction(&input, &["--gammas", "1,0.5,0.1"]);
    let expected = json!({"utility": [1200e6, 398e6], "grid": [0.0, 0.0], "exact": [392e6, 0.0]});
    assert_eq!(run.json()[0]["regret"], expected);
    assert!(auction(&input, &["--no-regret"]).json()[0].get("regret").is_none());
    let run = auction(&input, &["--landscape", "--gammas", "1,0.3"]);
    let landscape = &run.json()[0]["landscape"];
    assert_eq!(landscape["gammas"], json!([1.0, 0.3]));
    assert_eq!(landscape["clicks"][0], json!([200.0, 199.0]));
    assert_eq!(landscape["cost_micros"][0], json!([800e6, 398e6]));
    assert_eq!(landscape["utility_micros"][0], json!([1200e6, 1592e6]));
    assert_eq!(landscape["clicks"].as_array().unwrap().len(), 3);
    assert!(auction(&input, &["--gammas", "1,-1"]).failed().contains("gamma -1 at 1"));
    assert!(auction(&input, &["--landscape", "--format", "table"]).failed().contains("--landscape"));
}

#[test]
fn a_summary_has_psi_under_each_rule() {
    let input = lines(&[
        example(json!("a"), "gsp", [200, 199]),
        example(json!("b"), "vcg", [200, 199]),
        example(json!("c"), "gsp", [200, 100]),
        json!({"id": "bad"}),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("summary.json");
    let file_name = file.to_str().unwrap();
    let run = auction(&input, &["--summary", file_name, "--no-regret", "--gammas", "0.3", "--samples", "50"]);
    assert_eq!(run.code, 1);
    assert!(run.json()[0].get("regret").is_none());
    let summary: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((&summary["auctions"], &summary["refused"]), (&json!(3), &json!(1)));
    let [gsp, vcg] = &summary["psi"].as_array().unwrap()[..] else { panic!("{summary}") };
    assert_eq!((&gsp["rule"], &vcg["rule"]), (&json!("gsp"), &json!("vcg")));
    // Winners have 1200 and 398, and 1200 and 200; the first of the first gains 392 by a bid for the second slot.
    for tier in ["grid", "exact"] {
        assert_eq!(gsp[tier]["ratio_of_sums"]["value"], json!(392.0 / 2998.0));
        assert_eq!(gsp[tier]["mean_of_ratios"]["value"], json!(392.0 / 1200.0 / 2.0));
        assert_eq!(vcg[tier]["ratio_of_sums"]["value"], json!(0.0));
        assert_eq!((&gsp[tier]["requests"], &gsp[tier]["ads"]), (&json!(2), &json!(4)));
    }
}

#[test]
fn units_tables_and_files() {
    let input = lines(&[example(json!("eos"), "gsp", [200, 100])]);
    let run = auction(&input, &["--billable-unit-micros", "3000000"]);
    assert_eq!(run.json()[0]["payments_micros"], json!([3_000_000, 0]));
    assert_eq!(auction(&input, &["--billable-unit-micros", "0"]).code, 2);
    let table = auction(&input, &["--format", "table"]).ok();
    assert!(table.contains("4.000000") && table.contains("regret (exact)"), "{table}");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("outcomes.jsonl");
    assert_eq!(auction(&input, &["--out", out.to_str().unwrap()]).ok(), "");
    assert_eq!(fs::read_to_string(out).unwrap(), auction(&input, &[]).ok());
    assert_eq!(auction(b"\n \n", &[]).ok(), "");
    let missing = Run::of(bidslate().args(["auction", "--input", "/nowhere/auctions.jsonl"])).failed();
    assert!(missing.contains("/nowhere/auctions.jsonl"), "{missing}");
    if !cfg!(feature = "cuda") {
        assert!(auction(&input, &["--device", "cuda:0"]).failed().contains("no CUDA backend"));
    }
}
