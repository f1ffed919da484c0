//! `bidslate import check-ins`: what it makes of good rows, and what it says of bad ones.
#![cfg(feature = "cli")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

const HEADER: &str = "tid,lat_lon,date_time,time,rating,price,weather,day,root_type,type";

/// Rows of one place each: trajectory, place, day of November 2012 (the 5th is a Monday), hour.
fn row(trajectory: &str, place: usize, day: u32, hour: u32) -> String {
    let weekdays = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let weekday = weekdays[(day as usize + 2) % 7];
    let (lat, lon) = (40.7 + 0.001 * place as f64, -74.0 + 0.0007 * (place * place % 53) as f64);
    let (root, category) = match place % 4 {
        0 => ("Residence", "Home (private)"),
        1 => ("Food", "Deli / Bodega"),
        2 => ("Food", "Steakhouse"),
        _ => ("Nightlife Spot", "Bar"),
    };
    let (rating, price) = if place % 4 == 2 { ("8.2", "4") } else { ("-1", "-1") };
    let minutes = hour * 60 + 7;
    format!(
        "{trajectory},{lat:.6} {lon:.6},2012-11-{day:02} {hour:02}:07:30,{minutes},{rating},{price},Clear,{weekday},{root},{category}"
    )
}

/// Three users over forty places; the first has two trajectories.
fn good_rows() -> Vec<String> {
    let mut rows = vec![HEADER.to_owned()];
    rows.extend((0..20).map(|i| row("7", i, 6, i as u32)));
    rows.extend((0..20).map(|i| row("8", 20 + i, 12, i as u32)));
    rows.extend((0..9).map(|i| row("9", 2 * i, 5, i as u32)));
    rows.extend((0..15).map(|i| row("11", i % 3, 4, i as u32)));
    rows
}

struct Import {
    dir: TempDir,
    csv: PathBuf,
}

impl Import {
    fn of(rows: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("visits.csv");
        let mut text = rows.join("\n");
        text.push('\n');
        std::fs::write(&csv, text).unwrap();
        Self { dir, csv }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("bidslate"));
        command.args(["import", "check-ins", "--csv"]).arg(&self.csv).arg("--out").arg(self.out()).args(args);
        command
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        lines(&self.out().join(name))
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

fn ids(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

#[test]
fn makes_a_catalog_of_places() {
    let import = Import::of(&good_rows());
    import.command(&[]).assert().success();
    let items = import.lines("items.jsonl");
    assert_eq!(
        items.iter().map(|i| i["id"].as_u64().unwrap()).collect::<Vec<_>>(),
        (1..=40).collect::<Vec<_>>()
    );
    let labels = import.lines("labels.jsonl");
    let mut creatives = BTreeSet::new();
    let mut ads = 0;
    for (item, label) in items.iter().zip(&labels) {
        assert_eq!(item["id"], label["item"]);
        let embedding = item["embedding"].as_array().unwrap();
        assert_eq!(embedding.len(), 64);
        let own = item["creatives"].as_array().unwrap();
        assert!((1..=6).contains(&own.len()));
        for creative in own {
            assert!(creatives.insert(creative["id"].as_u64().unwrap()), "one id, two creatives");
            assert_ne!(&creative["embedding"], &item["embedding"]);
        }
        if item["kind"] == "ad" {
            ads += 1;
            let (bid, reserve) =
                (item["bid_micros"].as_u64().unwrap(), item["reserve_micros"].as_u64().unwrap());
            assert!(bid > 0 && reserve > 0 && bid % 10_000 == 0 && reserve % 10_000 == 0);
            assert_ne!(label["root"], "Residence", "homes do not advertise");
        } else {
            assert_eq!(item["kind"], "organic");
            assert!(item.get("bid_micros").is_none());
        }
        assert_eq!(label["price_tier"].as_u64(), (label["category"] == "Steakhouse").then_some(4));
    }
    assert_eq!(ads, 10, "one place in four advertises");
}

#[test]
fn makes_a_request_of_each_user_that_holds_the_last_visit_out() {
    let import = Import::of(&good_rows());
    import.command(&[]).assert().success();
    let kind: BTreeMap<u64, String> = import
        .lines("items.jsonl")
        .iter()
        .map(|i| (i["id"].as_u64().unwrap(), i["kind"].as_str().unwrap().to_owned()))
        .collect();
    let homes: BTreeSet<u64> = import
        .lines("labels.jsonl")
        .iter()
        .filter(|l| l["root"] == "Residence")
        .map(|l| l["item"].as_u64().unwrap())
        .collect();
    let requests = import.lines("requests.jsonl");
    let held_out = import.lines("heldout.jsonl");
    let mut lengths: Vec<usize> = requests.iter().map(|r| r["history"].as_array().unwrap().len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [8, 14, 39], "9, 15 and 40 visits, the last held out");
    for (request, target) in requests.iter().zip(&held_out) {
        assert_eq!(request["id"], target["id"]);
        let candidates = ids(&request["candidates"]);
        assert!(candidates.is_sorted_by(|a, b| a < b), "no duplicates, no order that says anything");
        assert!(candidates.iter().all(|id| kind[id] == "ad"));
        let organic = ids(&request["organic"]);
        assert!(organic.iter().all(|id| kind[id] == "organic" && !homes.contains(id)));
        assert_eq!(organic.iter().collect::<BTreeSet<_>>().len(), organic.len());
        for behavior in request["history"].as_array().unwrap() {
            assert!(kind.contains_key(&behavior["item"].as_u64().unwrap()));
            let features = &behavior["features"];
            assert!(features["action"].as_u64().unwrap() < 4);
            assert!(features["is_ad"].as_u64().unwrap() < 2);
            assert!(features["recency"].as_u64().unwrap() < 8);
        }
        // Oldest first: recency buckets never rise again.
        let recency: Vec<u64> = request["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|b| b["features"]["recency"].as_u64().unwrap())
            .collect();
        assert!(recency.is_sorted_by(|a, b| a >= b), "{recency:?}");
        let id = target["item"].as_u64().unwrap();
        assert_eq!(target["shown"], candidates.contains(&id) || organic.contains(&id));
    }
    // A request's history is the user's visits before the one held out, and its context that visit's.
    let visits = import.lines("visits.jsonl");
    let of_user = |user: &Value| visits.iter().filter(|v| v["user"] == *user).collect::<Vec<_>>();
    let summary = std::fs::read_to_string(import.out().join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let ends: Vec<i64> = summary["recency_seconds"].as_array().unwrap().iter().map(number).collect();
    for (request, target) in requests.iter().zip(&held_out) {
        let visits = of_user(&target["user"]);
        let at = usize::try_from(number(&target["visit"])).unwrap();
        assert_eq!(request["context"], visits[at]["context"]);
        assert_eq!((&target["item"], &target["creative"]), (&visits[at]["item"], &visits[at]["creative"]));
        for (behavior, visit) in request["history"].as_array().unwrap().iter().zip(&visits[..at]) {
            assert_eq!((&behavior["item"], &behavior["creative"]), (&visit["item"], &visit["creative"]));
            let age = number(&visits[at]["second"]) - number(&visit["second"]);
            let recency = ends.iter().take_while(|&&end| age >= end).count();
            let mut features = visit["features"].clone();
            features["recency"] = recency.into();
            assert_eq!(behavior["features"], features);
        }
    }
    assert!(visits.iter().any(|v| v["second"] == 0) && visits.iter().all(|v| number(&v["second"]) >= 0));
    // The third user circles three places: nothing after the first round is a first visit.
    let circling = requests.iter().find(|r| r["history"].as_array().unwrap().len() == 14).unwrap();
    let actions: Vec<u64> = circling["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["features"]["action"].as_u64().unwrap())
        .collect();
    assert_eq!(actions, [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2]);
    assert_eq!(circling["context"], serde_json::json!({"hour": 14, "weekday": 6, "weather": 1}));
}

#[test]
fn is_a_function_of_file_and_seed() {
    let (a, b, other) = (Import::of(&good_rows()), Import::of(&good_rows()), Import::of(&good_rows()));
    a.command(&["--seed", "5"]).assert().success();
    b.command(&["--seed", "5"]).assert().success();
    other.command(&["--seed", "6"]).assert().success();
    for name in ["items.jsonl", "labels.jsonl", "visits.jsonl", "requests.jsonl", "heldout.jsonl"] {
        let read = |import: &Import| std::fs::read(import.out().join(name)).unwrap();
        assert_eq!(read(&a), read(&b), "{name}");
        assert_ne!(read(&a), read(&other), "{name}");
    }
}

#[test]
fn writes_no_coordinates() {
    let import = Import::of(&good_rows());
    import.command(&[]).assert().success();
    for entry in std::fs::read_dir(import.out()).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("40.7") && !text.contains("-74.") && !text.contains("lat"));
    }
}

#[test]
fn keeps_what_is_asked_for() {
    let import = Import::of(&good_rows());
    import.command(&["--pois", "12", "--users", "2", "--requests", "5", "--history", "3"]).assert().success();
    assert_eq!(import.lines("items.jsonl").len(), 12);
    assert!(import.lines("labels.jsonl").iter().all(|label| label["root"] != "Residence"));
    let requests = import.lines("requests.jsonl");
    let names: Vec<&str> = requests.iter().map(|r| r["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["user-1-1", "user-2-1", "user-1-2", "user-2-2", "user-1-3"]);
    assert!(requests.iter().all(|r| r["history"].as_array().unwrap().len() <= 3));
}

#[test]
fn refuses_to_make_more_than_there_is() {
    let import = Import::of(&good_rows());
    for (args, expected) in [
        (["--users", "4"], "--users is 4, expected at most the 3"),
        (["--requests", "62"], "--requests is 62, expected at most the 61"),
        (["--users", "0"], "--users is 0, expected at least 1"),
    ] {
        let output = import.command(&args).assert().failure().get_output().stderr.clone();
        let message = String::from_utf8(output).unwrap();
        assert!(message.contains(expected), "{message}");
    }
}

/// What the import says of the good rows after `change`.
fn message_after(change: impl Fn(&mut Vec<String>)) -> String {
    let mut rows = good_rows();
    change(&mut rows);
    let import = Import::of(&rows);
    let output = import.command(&[]).assert().failure().get_output().clone();
    assert_eq!(output.status.code(), Some(1));
    assert!(!import.out().exists(), "nothing is written of a file with a bad row");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn names_line_column_value_and_expectation_of_a_bad_row() {
    let cases = [
        ("40.703000 -73.993700", "40.703000", "visits.csv:5", "`lat_lon`", "latitude and longitude"),
        ("40.703000 -73.993700", "91.0 -73.9", "visits.csv:5", "\"91.0 -73.9\"", "degrees"),
        ("40.703000 -73.993700", "NaN -73.9", "visits.csv:5", "\"NaN -73.9\"", "degrees"),
        ("2012-11-06 03:07:30", "2012-11-31 03:07:30", "visits.csv:5", "`date_time`", "YYYY-MM-DD HH:MM:SS"),
        (",187,", ",188,", "visits.csv:5", "`time`: is \"188\"", "187"),
        ("Tuesday", "Monday", "visits.csv:5", "`day`: is \"Monday\"", "\"Tuesday\""),
        ("Clear", "Hail", "visits.csv:5", "`weather`: is \"Hail\"", "Clouds"),
        (",-1,-1,", ",-1,5,", "visits.csv:5", "`price`: is \"5\"", "1 to 4"),
        (",-1,-1,", ",11,-1,", "visits.csv:5", "`rating`: is \"11\"", "0 to 10"),
        ("Nightlife Spot", "", "visits.csv:5", "`root_type`: is \"\"", "a name"),
        (",Nightlife Spot,Bar", ",Nightlife Spot", "visits.csv", "line: 5", "9 fields"),
    ];
    for (from, to, place, value, expected) in cases {
        let message = message_after(|rows| {
            let changed = rows[4].replace(from, to);
            assert_ne!(changed, rows[4], "{from:?} is not in {:?}", rows[4]);
            rows[4] = changed;
        });
        for part in [place, value, expected] {
            assert!(message.contains(part), "{to:?}: {part:?} is not in {message:?}");
        }
    }
}

#[test]
fn refuses_rows_that_contradict_one_another() {
    let backwards = message_after(|rows| rows.swap(5, 6));
    assert!(backwards.contains("visits.csv:7: column `date_time`"), "{backwards}");
    let split = message_after(|rows| rows.push(row("7", 1, 3, 9)));
    assert!(split.contains("visits.csv:66: column `tid`: is \"7\" again"), "{split}");
    let facts = message_after(|rows| {
        let again = rows.iter().rposition(|r| r.contains("Steakhouse")).unwrap();
        rows[again] = rows[again].replace("8.2,4", "8.2,3");
    });
    assert!(facts.contains("column `price`: is \"3\""), "{facts}");
}

#[test]
fn refuses_files_that_hold_no_check_ins() {
    let empty = message_after(|rows| *rows = vec![String::new()]);
    assert!(empty.contains("visits.csv") && empty.contains("missing column(s)"), "{empty}");
    let bare = message_after(|rows| rows.truncate(1));
    assert!(bare.contains("holds no check-ins"), "{bare}");
    let missing =
        message_after(|rows| rows[0] = rows[0].replace("lat_lon", "position").replace("day,", "days,"));
    assert!(missing.contains("missing column(s) [\"lat_lon\", \"day\"]"), "{missing}");
    let lonely = message_after(|rows| rows.truncate(2));
    assert!(lonely.contains("no user has two visits"), "{lonely}");
    let import = Import::of(&good_rows());
    std::fs::write(&import.csv, [HEADER.as_bytes(), b"\n\xff\xfe,1\n"].concat()).unwrap();
    import.command(&[]).assert().failure();
    std::fs::remove_file(&import.csv).unwrap();
    let gone = import.command(&[]).assert().failure().get_output().stderr.clone();
    assert!(String::from_utf8(gone).unwrap().contains("visits.csv"));
}
