//! The `lab` command from an import to a report, and what it refuses.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{Import, USERS};

fn lab(import: &Import, arguments: &str) -> Output {
    let dir = import.dir.path().to_str().unwrap();
    let arguments = arguments.split_whitespace().map(|argument| argument.replace("DIR", dir));
    Command::new(env!("CARGO_BIN_EXE_lab")).args(arguments).output().unwrap()
}

fn runs(import: &Import, arguments: &str) {
    let output = lab(import, arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn refused(import: &Import, arguments: &str) -> String {
    let output = lab(import, arguments);
    assert!(!output.status.success(), "{arguments}");
    String::from_utf8(output.stderr).unwrap()
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Up to the outcomes of both bounds.
fn outcomes(import: &Import) {
    runs(import, "split --data DIR");
    runs(import, "world --data DIR --out DIR/world --list-len 8");
    for policy in ["random", "oracle"] {
        let files = "--data DIR --world DIR/world --requests DIR/requests-test.jsonl --list-len 8";
        runs(import, &format!("lists --policy {policy} {files} --out DIR/{policy}.jsonl"));
        runs(
            import,
            &format!("evaluate {files} --responses DIR/{policy}.jsonl --out DIR/{policy}-outcomes.jsonl"),
        );
    }
}

fn row(table: &str, variant: &str, seed: u64, x: Value, outcomes: &str) -> Value {
    json!({ "table": table, "variant": variant, "seed": seed, "x": x, "outcomes": outcomes })
}

#[test]
fn requests_are_split_by_distance() {
    let import = Import::new();
    runs(&import, "split --data DIR");
    let backs = |name: &str| -> Vec<usize> {
        let ids = import.lines(name).into_iter().map(|line| line["id"].as_str().unwrap().to_owned());
        ids.map(|id| id.rsplit('-').next().unwrap().parse().unwrap()).collect()
    };
    let (train, test) = (backs("requests-train.jsonl"), backs("requests-test.jsonl"));
    assert_eq!((train.len(), test.len()), (20 * USERS as usize, 6 * USERS as usize));
    assert!(train.iter().all(|back| (11..=30).contains(back)));
    assert!(test.iter().all(|back| (5..=10).contains(back)));
}

#[test]
fn logs_are_the_same_bytes_for_the_same_seed() {
    let import = Import::new();
    runs(&import, "split --data DIR");
    runs(&import, "world --data DIR --out DIR/world");
    let logs = |seed: u64| {
        let files = "--data DIR --world DIR/world --requests DIR/requests-train.jsonl --list-len 8";
        runs(&import, &format!("logs {files} --lists 3 --seed {seed} --out DIR/logs/feedback.jsonl"));
        bytes(&import.path("logs/feedback.jsonl"))
    };
    let first = logs(1);
    assert!(first == logs(1) && first != logs(2));
    let lines = import.lines("logs/feedback.jsonl");
    assert_eq!(lines.len(), 3 * 20 * USERS as usize);
    let slot = &lines[0]["slots"][0];
    let keys: Vec<&String> = slot.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["click_creative", "click_poi", "conversion", "creative", "item"]);
}

#[test]
fn a_report_holds_tables_figures_and_notes() {
    let import = Import::new();
    outcomes(&import);
    std::fs::write(import.path("loss.csv"), "step,loss\n1,3.5\n2,\n3,2.5\n4,nan\n").unwrap();
    let rows = [
        row("2", "EGA", 1, Value::Null, "oracle-outcomes.jsonl"),
        row("2", "EGA", 2, Value::Null, "oracle-outcomes.jsonl"),
        row("2", "MCA", 1, Value::Null, "random-outcomes.jsonl"),
        row("3", "EGA-mtp", 1, Value::Null, "oracle-outcomes.jsonl"),
        row("bound", "Random lists", 1, Value::Null, "random-outcomes.jsonl"),
        row("alpha", "EGA", 1, json!(1.0), "random-outcomes.jsonl"),
        row("alpha", "EGA", 1, json!(2.0), "oracle-outcomes.jsonl"),
    ];
    let experiment = json!({
        "title": "A <test>", "rows": rows, "notes": ["Made of bounds."],
        "curves": [{ "name": "Phase 1", "csv": "loss.csv", "x": "step", "y": ["loss"] }],
    });
    std::fs::write(import.path("experiment.json"), experiment.to_string()).unwrap();
    runs(&import, "report --experiment DIR/experiment.json --out DIR/report --samples 100");
    let page = std::fs::read_to_string(import.path("report/index.html")).unwrap();
    let tables = std::fs::read_to_string(import.path("report/report.md")).unwrap();
    assert!(
        page.contains("A &lt;test&gt;") && page.contains("Phase 1: loss") && page.contains("Made of bounds.")
    );
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("NaN"));
    let cells = |name: &str| -> Vec<String> {
        let row = tables.lines().find(|line| line.starts_with(name)).unwrap();
        row.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let outcomes = import.lines("oracle-outcomes.jsonl");
    let sum = |key: &str| outcomes.iter().map(|line| line[key].as_f64().unwrap()).sum::<f64>();
    let rpm = format!("{:.2} [", 1000.0 * sum("revenue") / sum("impressions"));
    assert!(cells("| EGA |")[2].starts_with(&rpm), "{:?} {rpm}", cells("| EGA |"));
    assert_eq!(cells("| EGA |")[9], "–", "nothing was audited");
    let against = tables.split("Table 2. Against EGA").nth(1).unwrap();
    let mca = against.lines().find(|line| line.starts_with("| MCA |")).unwrap();
    assert!(mca.contains("*−16.5 %*") && mca.ends_with("| yes |"), "{mca}");
    assert!(
        tables.contains("| EGA-mtp | 0.0 % [0.0, 0.0] *−2.1 %*"),
        "the same outcomes do not differ: {tables}"
    );
    runs(&import, "report --experiment DIR/experiment.json --out DIR/again --samples 100");
    assert_eq!(bytes(&import.path("report/index.html")), bytes(&import.path("again/index.html")));
}

#[test]
fn experiments_that_make_no_sense_are_refused() {
    let import = Import::new();
    outcomes(&import);
    let fewer = import.lines("oracle-outcomes.jsonl");
    import.write("fewer.jsonl", &fewer[1..]);
    std::fs::write(import.path("loss.csv"), "step,loss\n1,x\n").unwrap();
    let ega = || row("2", "EGA", 1, Value::Null, "oracle-outcomes.jsonl");
    let curve = |y: &str| json!([{ "name": "c", "csv": "loss.csv", "x": "step", "y": [y] }]);
    for (rows, curves, expected) in [
        (vec![], json!([]), "`rows`: is empty"),
        (vec![ega(), ega()], json!([]), "`rows[1]`: `seed`: is 1 again"),
        (
            vec![row("2", "EGA", 1, json!(1.0), "oracle-outcomes.jsonl")],
            json!([]),
            "`rows[0]`: `x`: expected of rows",
        ),
        (
            vec![row("rho", "EGA", 1, Value::Null, "oracle-outcomes.jsonl")],
            json!([]),
            "`rows[0]`: `x`: expected of rows",
        ),
        (
            vec![row("4", "EGA", 1, Value::Null, "oracle-outcomes.jsonl")],
            json!([]),
            "`rows[0].table`: unknown variant",
        ),
        (vec![ega(), row("2", "GR", 1, Value::Null, "fewer.jsonl")], json!([]), "is of other requests"),
        (vec![ega(), row("2", "GR", 1, Value::Null, "none.jsonl")], json!([]), "none.jsonl"),
        (vec![ega()], curve("gain"), "expected `gain` among them"),
        (vec![ega()], curve("loss"), "loss.csv:2: is \"x\", expected a finite number"),
    ] {
        let experiment = json!({ "title": "t", "rows": rows, "curves": curves });
        std::fs::write(import.path("experiment.json"), experiment.to_string()).unwrap();
        let error = refused(&import, "report --experiment DIR/experiment.json --out DIR/report");
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
}

#[test]
fn data_that_does_not_fit_is_refused_with_its_place() {
    type Change = fn(&mut Value);
    let cases: [(&str, usize, Change, &str); 9] = [
        ("visits.jsonl", 4, |v| v["item"] = json!(999), "visits.jsonl:5: `item`: is 999, expected an item"),
        (
            "visits.jsonl",
            4,
            |v| v["creative"] = json!(1),
            "visits.jsonl:5: `creative`: is 1, expected one of",
        ),
        (
            "visits.jsonl",
            4,
            |v| v["second"] = json!(0),
            "visits.jsonl:5: `second`: is 0, expected at least 10800",
        ),
        ("visits.jsonl", 4, |v| v["visit"] = json!(9), "visits.jsonl:5: `visit`: is 9, expected 4"),
        ("visits.jsonl", 4, |v| v["context"]["hour"] = json!(24), "visits.jsonl:5: `context.hour`: is 24"),
        ("items.jsonl", 2, |v| v["bid_micros"] = Value::Null, "items.jsonl:3: `bid_micros`: is missing"),
        ("items.jsonl", 2, |v| v["creatives"] = json!([]), "items.jsonl:3: `creatives`: is empty"),
        (
            "requests.jsonl",
            0,
            |v| v["candidates"] = json!([3, 1]),
            "requests.jsonl:1: `candidates[1]`: is 1, expected an ad",
        ),
        (
            "heldout.jsonl",
            1,
            |v| v["visit"] = json!(99),
            "heldout.jsonl:2: `visit`: is 99, expected below 45",
        ),
    ];
    for (file, line, change, expected) in cases {
        let import = Import::new();
        let mut lines = import.lines(file);
        change(&mut lines[line]);
        import.write(file, &lines);
        let error = refused(&import, "world --data DIR --out DIR/world");
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
}
