//! The `bidslate` command from end to end: what it writes, where, and with which exit code.
#![cfg(feature = "cli")]

mod command;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bidslate::model::config::ModelConfig;
use command::{Run, bidslate};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

// K, N_S, B and W of the model that the tests share.
const SLOTS: usize = 4;
const BEAMS: usize = 6;
const HISTORY: usize = 5;
const CODES: usize = 8;

/// A directory as `init-model` makes it, shared by all tests, which only read it.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-model");
        let sizes =
            [("history-len", HISTORY), ("list-len", SLOTS), ("beam-width", BEAMS), ("codebook-size", CODES)];
        let mut command = bidslate();
        command.args(["init-model", "--size", "tiny", "--items", "80", "--requests", "5", "--seed", "3"]);
        command.args(sizes.map(|(name, value)| format!("--{name}={value}"))).arg("--force").arg(&dir);
        Run::of(&mut command).ok();
        dir
    })
}

/// The lines of `requests.jsonl`.
fn requests() -> Vec<String> {
    fs::read_to_string(model().join("requests.jsonl")).unwrap().lines().map(String::from).collect()
}

/// `bidslate allocate` on these bytes.
fn allocate(requests: &[u8], options: &[&str]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("requests.jsonl");
    fs::write(&file, requests).unwrap();
    let mut command = bidslate();
    command.arg("allocate").arg("--model").arg(model()).arg("--requests").arg(file).args(options);
    Run::of(&mut command)
}

fn lines(lines: &[String]) -> Vec<u8> {
    (lines.join("\n") + "\n").into_bytes()
}

/// A request of the file with some of its fields replaced.
fn changed(index: usize, changes: Value) -> String {
    let mut request: Value = serde_json::from_str(&requests()[index]).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        request[key] = value.clone();
    }
    request.to_string()
}

#[test]
fn every_request_is_answered_in_order() {
    let run = allocate(&lines(&requests()), &[]);
    let answers = run.json();
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, ["request-0", "request-1", "request-2", "request-3", "request-4"]);
    for answer in &answers {
        let slots = answer["slots"].as_array().unwrap();
        assert_eq!(slots.len(), SLOTS);
        assert_eq!(answer["catalog_version"], 1);
        let keys: BTreeSet<&str> = slots[0].as_object().unwrap().keys().map(String::as_str).collect();
        let expected =
            "item kind creative bid_micros payment_micros rate pctr_poi pctr_creative pcvr z marginal";
        assert_eq!(keys, expected.split(' ').collect());
        let keys: BTreeSet<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = "id catalog_version slots reward log_prob beam lists rejected";
        assert_eq!(keys, expected.split(' ').collect());
    }
    run.ok();
}

#[test]
fn bad_lines_are_answered_in_their_place() {
    let good = requests();
    let mut not_text = changed(0, json!({"id": "bytes"})).into_bytes();
    let at = not_text.windows(5).position(|bytes| bytes == b"bytes").unwrap();
    not_text[at] = 0xff;
    let file: Vec<Vec<u8>> = vec![
        good[0].clone().into(),
        b"{\"id\": 1".to_vec(),
        good[1].clone().into(),
        changed(0, json!({"id": "unknown key", "colour": 1})).into(),
        Vec::new(),
        changed(0, json!({"id": 17, "candidates": [5]})).into(),
        b"  \t".to_vec(),
        not_text,
        changed(0, json!({"id": "alpha", "alpha": 17})).into(),
        changed(0, json!({"id": -3})).into(),
        changed(0, json!({"id": "NaN", "alpha": 0})).replace("\"alpha\":0", "\"alpha\":NaN").into(),
        changed(0, json!({"id": 18, "beta": 0})).replace("\"beta\":0", "\"beta\":1e999").into(),
        br#"["list", {}, [], "all"]"#.to_vec(),
        good[2].clone().into(),
    ];
    // In one batch, and with batches that end between them.
    for batch in ["64", "1", "2", "3"] {
        let run = allocate(&file.join(&b'\n'), &["--batch", batch]);
        assert_eq!(run.code, 1, "{}", run.stderr);
        let answers = run.json();
        let faults: Vec<Value> = answers
            .iter()
            .map(|answer| json!([answer["id"], answer["error"]["kind"], answer["error"]["field"]]))
            .collect();
        let expected = [
            json!(["request-0", null, null]),
            json!([null, "parse", "request"]),
            json!(["request-1", null, null]),
            json!(["unknown key", "parse", "colour"]),
            json!([17, "unknown", "candidates[0]"]),
            json!([null, "parse", "id"]),
            json!(["alpha", "invalid", "alpha"]),
            json!([-3, "parse", "id"]),
            json!(["NaN", "parse", "alpha"]),
            json!([18, "parse", "beta"]),
            json!([null, "parse", "request"]),
            json!(["request-2", null, null]),
        ];
        for (answer, (found, expected)) in answers.iter().zip(faults.iter().zip(&expected)) {
            assert_eq!(found, expected, "{answer}");
            if let Some(error) = answer["error"].as_object() {
                assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
                let keys: Vec<&String> = error.keys().collect();
                assert_eq!(keys, ["field", "kind", "message"]);
                assert!(!error["message"].as_str().unwrap().is_empty());
            }
        }
        assert_eq!(answers.len(), expected.len());
        // The good ones are answered as if they were alone.
        let alone = allocate(&lines(&good[..3]), &[]).ok();
        let good_lines: Vec<&str> = run.stdout.lines().filter(|line| !line.contains("\"error\"")).collect();
        assert_eq!(good_lines, alone.lines().collect::<Vec<_>>());
    }
}

#[test]
fn threads_batches_and_the_place_of_the_output_change_no_byte() {
    let file = lines(&requests());
    let expected = allocate(&file, &[]).ok();
    assert!(!expected.is_empty());
    for options in
        [["--threads", "1"], ["--threads", "3"], ["--batch", "1"], ["--batch", "2"], ["--batch", "1000"]]
    {
        assert_eq!(allocate(&file, &options).ok(), expected, "{options:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("answers.jsonl");
    let run = allocate(&file, &["--out", out.to_str().unwrap(), "--threads", "2"]);
    assert_eq!(run.ok(), "");
    assert_eq!(fs::read_to_string(out).unwrap(), expected);
    // A file that does not end in a line feed, and one from Windows.
    assert_eq!(allocate(file.trim_ascii_end(), &[]).ok(), expected);
    let windows = String::from_utf8(file).unwrap().replace('\n', "\r\n");
    assert_eq!(allocate(windows.as_bytes(), &[]).ok(), expected);
}

#[test]
fn nothing_in_is_nothing_out() {
    for empty in ["", "\n", "\r\n \n\n"] {
        assert_eq!(allocate(empty.as_bytes(), &[]).ok(), "");
    }
}

#[test]
fn ids_are_given_back_as_they_came() {
    let ids = [json!(7), json!("7"), json!(u64::MAX), json!(""), json!("Ünï \"quoted\" \\ \u{1F600}")];
    let file: Vec<String> = ids.iter().map(|id| changed(1, json!({"id": id}))).collect();
    let run = allocate(&lines(&file), &[]);
    let answers = run.json();
    let found: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(found, ids.iter().collect::<Vec<_>>());
    run.ok();
}

#[test]
fn timings_are_there_where_asked_for() {
    let run = allocate(&lines(&requests()[..1]), &["--timings"]);
    let timings = &run.json()[0]["timings"];
    let stages =
        ["resolve_us", "encode_us", "search_us", "creative_us", "reward_us", "payment_us", "audit_us"];
    assert_eq!(timings.as_object().unwrap().len(), stages.len());
    assert!(stages.iter().all(|stage| timings[stage].is_u64()), "{timings}");
}

/// The numbers of a tensor, by its type.
fn i64s(bytes: &[u8]) -> Vec<i64> {
    bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
}

fn f64s(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

#[test]
fn a_trace_holds_the_tensors_of_every_request_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.safetensors");
    let file = [
        changed(0, json!({"id": "whole"})),
        changed(1, json!({"id": 12, "list_len": 2, "beam_width": 3})),
        changed(1, json!({"id": "bad", "list_len": 0})),
        changed(2, json!({"id": "no history", "history": []})),
    ];
    let run = allocate(&lines(&file), &["--trace", path.to_str().unwrap()]);
    assert_eq!(run.code, 1);
    let answers = run.json();
    let bytes = fs::read(&path).unwrap();
    let trace = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(trace.len(), 3 * 10, "{:?}", trace.names());
    let config = ModelConfig::read(&model().join("config.json")).unwrap();
    let (d, d_r, layers) = (config.hidden_size, config.reward_hidden_size, config.poi_code_layers);
    let behavior = 1 + layers + config.creative_code_layers;
    let cases =
        [("whole", 0, HISTORY, BEAMS, SLOTS), ("12", 1, HISTORY, 3, 2), ("no history", 3, 0, BEAMS, SLOTS)];
    for (id, line, behaviors, beams, slots) in cases {
        let tensor = |name: &str| trace.tensor(&format!("{id}/{name}")).unwrap();
        let expected = [
            ("encoder", Dtype::F32, vec![1 + behaviors * behavior, d]),
            ("lists/items", Dtype::I64, vec![beams, SLOTS]),
            ("lists/creatives", Dtype::I64, vec![beams, SLOTS]),
            ("lists/log_prob", Dtype::F64, vec![beams]),
            ("lists/reward", Dtype::F64, vec![beams]),
            ("winner/poi_logits", Dtype::F32, vec![SLOTS * layers, CODES]),
            ("winner/creative_logits", Dtype::F32, vec![SLOTS, config.creative_code_layers, CODES]),
            ("winner/reward_features", Dtype::F32, vec![SLOTS, d_r]),
            ("winner/rate", Dtype::F64, vec![SLOTS]),
        ];
        for (name, dtype, shape) in expected {
            let tensor = tensor(name);
            assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &shape[..]), "{id}/{name}");
        }
        let answer = &answers[line];
        let shown = answer["slots"].as_array().unwrap();
        assert_eq!(shown.len(), slots);
        let winner = answer["beam"].as_u64().unwrap() as usize;
        for (name, key) in [("lists/items", "item"), ("lists/creatives", "creative")] {
            let all = i64s(tensor(name).data());
            let ids: Vec<i64> = shown.iter().map(|slot| slot[key].as_i64().unwrap()).collect();
            assert_eq!(all[winner * SLOTS..][..slots], ids, "{id}/{name}");
            let beyond = all.chunks(SLOTS).flat_map(|list| &list[slots..]);
            assert!(beyond.copied().all(|item| item == -1), "{id}/{name} {all:?}");
        }
        assert_eq!(f64s(tensor("lists/reward").data())[winner], answer["reward"].as_f64().unwrap());
        assert_eq!(f64s(tensor("lists/log_prob").data())[winner], answer["log_prob"].as_f64().unwrap());
        let mut rates: Vec<f64> = shown.iter().map(|slot| slot["rate"].as_f64().unwrap()).collect();
        rates.resize(SLOTS, 0.0);
        assert_eq!(f64s(tensor("winner/rate").data()), rates);
        let logits = tensor("winner/poi_logits").data().to_vec();
        let rows: Vec<bool> = logits.chunks(CODES * 4).map(|row| row.iter().any(|&byte| byte != 0)).collect();
        let filled: Vec<bool> = (0..SLOTS * layers).map(|row| row < slots * layers).collect();
        assert_eq!(rows, filled, "rows of logits that are not 0");
    }
    // Others may read it, as they may any file that is created.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let created = dir.path().join("created");
        fs::write(&created, "").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&created));
    }
}

#[test]
fn a_trace_of_two_requests_of_one_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.safetensors");
    let run = allocate(
        &lines(&[requests()[0].clone(), requests()[0].clone()]),
        &["--trace", path.to_str().unwrap()],
    );
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("two requests are named \"request-0\""), "{}", run.stderr);
    assert!(!path.exists());
}

/// The sample that ships: its labels are found beside the requests.
#[test]
fn the_table_shows_what_items_are_and_what_each_rule_would_charge() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nyc");
    let dir = tempfile::tempdir().unwrap();
    let all = fs::read_to_string(data.join("requests.jsonl")).unwrap();
    let two: Vec<String> = all.lines().take(2).map(String::from).collect();
    fs::write(dir.path().join("requests.jsonl"), lines(&two)).unwrap();
    fs::copy(data.join("labels.jsonl"), dir.path().join("labels.jsonl")).unwrap();
    // Of the first request a visit that its list will show in the third slot, of the second one that it could not.
    let heldout = dir.path().join("heldout.jsonl");
    let run = |format: &str| {
        let mut command = bidslate();
        command.arg("allocate").arg("--model").arg(&data).args(["--format", format]);
        command.arg("--requests").arg(dir.path().join("requests.jsonl"));
        Run::of(&mut command)
    };
    let answers = run("json").json();
    let visit =
        |answer: &Value, item: &Value| json!({"id": answer["id"], "item": item, "kind": "any"}).to_string();
    let visits =
        [visit(&answers[0], &answers[0]["slots"][2]["item"]), visit(&answers[1], &json!(1_u64 << 40))];
    fs::write(&heldout, lines(&visits)).unwrap();
    let table = run("table").ok();
    assert!(table.contains(": slot 2\n") && table.contains(": not among what could be shown\n"), "{table}");
    let last = table.lines().last().unwrap();
    let organic = answers[0]["slots"][2]["kind"] == "organic";
    let expected = if organic { "0 of 0 ads (by chance 0.0)" } else { "1 of 1 ads (" };
    assert!(last.contains(expected), "{last}");
    assert!(table.starts_with("bidslate_train nyc\n"), "{table}");
    assert!(table.contains("catalog version 1 with 2600 items"), "{table}");
    for heading in ["network", "GSP", "VCG", "pays"] {
        assert!(table.contains(heading), "{heading} in {table}");
    }
    let labels: BTreeMap<u64, String> = fs::read_to_string(data.join("labels.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|label| (label["item"].as_u64().unwrap(), label["category"].as_str().unwrap().into()))
        .collect();
    let mut ads = 0;
    for answer in &answers {
        assert!(table.contains(&format!("{}: 10 slots", answer["id"].as_str().unwrap())), "{table}");
        for slot in answer["slots"].as_array().unwrap() {
            let item = slot["item"].as_u64().unwrap();
            let first_word = labels[&item].split(' ').next().unwrap();
            assert!(table.contains(&format!("{item} {first_word}")), "{item} {first_word} in {table}");
            ads += usize::from(slot["kind"] == "ad");
        }
    }
    assert!(ads > 0, "no ad was shown");
    assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");
}

/// Runs `allocate` on one good request with these options in place of the model's own files.
fn allocate_from(model: &Path, options: &[&str]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("requests.jsonl");
    fs::write(&file, lines(&requests()[..1])).unwrap();
    let mut command = bidslate();
    command.arg("allocate").arg("--model").arg(model).arg("--requests").arg(file).args(options);
    Run::of(&mut command)
}

/// A copy of the model directory, to be spoiled.
fn copy() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(model()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let error = allocate_from(model(), &["--device", "cuda:0"]).failed();
    assert!(error.contains("cuda:0"), "{error}");
    assert!(cfg!(feature = "cuda") || error.contains("no CUDA backend"), "{error}");
    let run = allocate_from(model(), &["--device", "tpu"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("\"tpu\" is unknown, expected `cpu` or `cuda:N`"), "{}", run.stderr);
}

#[test]
fn kernels_of_a_gpu_are_refused_where_there_is_none() {
    for kernels in ["hopper", "persistent"] {
        let error = allocate_from(model(), &["--gpu-kernels", kernels]).failed();
        assert!(error.contains(kernels) && error.contains("expected a GPU"), "{error}");
    }
    let run = allocate_from(model(), &["--gpu-kernels", "fastest"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("kernels \"fastest\" are unknown"), "{}", run.stderr);
    // The portable ones are the default wherever nothing was measured: there is nothing to refuse.
    let portable = allocate_from(model(), &["--gpu-kernels", "portable"]);
    assert_eq!(portable.code, 0, "{}", portable.stderr);
    assert_eq!(portable.stdout, allocate_from(model(), &[]).stdout);
}

#[test]
fn errors_name_the_file_that_is_at_fault() {
    let missing = allocate_from(Path::new("/nowhere/model"), &[]).failed();
    assert!(missing.contains("/nowhere/model/config.json"), "{missing}");
    let dir = copy();
    let weights = dir.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    let error = allocate_from(dir.path(), &[]).failed();
    assert!(error.contains(weights.to_str().unwrap()) && error.contains("truncated"), "{error}");
    fs::write(&weights, &bytes).unwrap();
    let catalog = dir.path().join("catalog.safetensors");
    fs::remove_file(&catalog).unwrap();
    let error = allocate_from(dir.path(), &[]).failed();
    assert!(error.contains(catalog.to_str().unwrap()), "{error}");
    // A catalog of other sizes.
    let nyc = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nyc/catalog.safetensors");
    let error = allocate_from(dir.path(), &["--catalog", nyc.to_str().unwrap()]).failed();
    assert!(error.contains(nyc.to_str().unwrap()), "{error}");
    // Weights are no catalog.
    let error = allocate_from(dir.path(), &["--catalog", weights.to_str().unwrap()]).failed();
    assert!(error.contains("missing `item.id`") && error.contains("unexpected `embed.weight`"), "{error}");
    let mut command = bidslate();
    command.arg("allocate").arg("--model").arg(model()).args(["--requests", "/nowhere/requests.jsonl"]);
    let error = Run::of(&mut command).failed();
    assert!(error.contains("/nowhere/requests.jsonl"), "{error}");
    let error = allocate_from(model(), &["--out", "/nowhere/out.jsonl"]).failed();
    assert!(error.contains("/nowhere/out.jsonl"), "{error}");
    let error = allocate_from(model(), &["--batch", "0"]).failed();
    assert!(error.contains("--batch is 0"), "{error}");
}

/// As behind `| head`, whose reader is gone before the command has written.
#[test]
fn an_output_that_nobody_reads_is_an_error() {
    let (dir, catalog) = (model(), model().join("catalog.safetensors"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let stats = vec!["catalog".into(), "stats".into(), path(&catalog), "--model".into(), path(dir)];
    for options in [vec![], vec!["--json".into()]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bidslate"));
        let output = command.args([stats.clone(), options].concat()).stdout(writer).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.starts_with("error: standard output: Broken pipe"), "{error}");
    }
}

/// A pipe that was read once has nothing left to answer.
#[test]
fn requests_and_records_from_a_pipe_are_refused() {
    let piped = |args: &[&str]| {
        let mut command = bidslate();
        command.args(args).arg("/dev/stdin").write_stdin(lines(&requests()));
        Run::of(&mut command).failed()
    };
    let model = model().to_str().unwrap();
    for args in [&["allocate", "--model", model, "--requests"][..], &["replay", "--model", model]] {
        let error = piped(args);
        assert!(error.contains("/dev/stdin: is no regular file"), "{error}");
    }
}

#[test]
fn inspect_says_whether_a_directory_fits() {
    let run =
        |dir: &Path, json: bool| Run::of(bidslate().arg("inspect").arg(dir).args(json.then_some("--json")));
    let text = run(model(), false).ok();
    assert!(text.ends_with("Everything fits.\n") && text.contains("item.bid_micros"), "{text}");
    let report: Value = serde_json::from_str(&run(model(), true).ok()).unwrap();
    assert_eq!((&report["fits"], &report["catalog"]["item.id"]["rows"]), (&json!(true), &json!(80)));
    let dir = copy();
    let mut config: Value =
        serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
    config["list_len"] = json!(SLOTS + 1);
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let spoiled = run(dir.path(), false);
    assert_eq!(spoiled.code, 1);
    assert!(
        spoiled.stdout.contains("`reward.position.weight` has shape [4, 64], expected [5, 64]"),
        "{}",
        spoiled.stdout
    );
    assert!(spoiled.stderr.contains("does not fit: 2 fault(s)"), "{}", spoiled.stderr);
}

#[test]
fn inspect_names_what_the_catalog_of_a_directory_does_not_fit() {
    let run = |dir: &Path| Run::of(bidslate().arg("inspect").arg(dir));
    let dir = copy();
    let catalog = dir.path().join("catalog.safetensors");
    let mut bytes = fs::read(&catalog).unwrap();
    let codes =
        SafeTensors::deserialize(&bytes).unwrap().tensor("item.codes").unwrap().data().as_ptr() as usize;
    let at = codes - bytes.as_ptr() as usize;
    bytes[at..at + 2].copy_from_slice(&(CODES as u16).to_le_bytes());
    fs::write(&catalog, bytes).unwrap();
    let spoiled = run(dir.path());
    assert_eq!(spoiled.code, 1);
    let expected = "`item.codes` row 0: is 8 in layer 0, expected below 8";
    assert!(spoiled.stdout.contains(expected), "{}", spoiled.stdout);
    assert!(spoiled.stdout.ends_with("It does not fit.\n"), "{}", spoiled.stdout);
    assert!(spoiled.stderr.contains("does not fit: 1 fault(s)"), "{}", spoiled.stderr);
    // Weights that stand where the columns should.
    fs::copy(model().join("model.safetensors"), &catalog).unwrap();
    let spoiled = run(dir.path());
    assert_eq!(spoiled.code, 1);
    let named = ["missing `item.id`", "unexpected `embed.weight`"];
    assert!(named.iter().all(|fault| spoiled.stdout.contains(fault)), "{}", spoiled.stdout);
    // A directory without one is complete: a catalog can be given to the engine.
    fs::remove_file(&catalog).unwrap();
    assert!(run(dir.path()).ok().ends_with("Everything fits.\n"));
}

/// Spreads the weights of a model directory over two shards; those named `*.codebook` are in the second.
fn shard(dir: &Path) {
    let single = dir.join("model.safetensors");
    let bytes = fs::read(&single).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let (second, first): (Vec<_>, Vec<_>) =
        tensors.into_iter().partition(|(name, _)| name.ends_with(".codebook"));
    let mut map = serde_json::Map::new();
    for (shard, tensors) in [("1.safetensors", first), ("2.safetensors", second)] {
        map.extend(tensors.iter().map(|(name, _)| (name.clone(), json!(shard))));
        safetensors::serialize_to_file(tensors, None, &dir.join(shard)).unwrap();
    }
    fs::write(dir.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    fs::remove_file(single).unwrap();
}

#[test]
fn a_quantizer_may_lie_in_several_shards() {
    let dir = copy();
    let file = |name: &str| dir.path().join(name);
    let width = ModelConfig::read(&file("config.json")).unwrap().item_embedding_size;
    let item = |id: usize| {
        let embedding: Vec<f64> = (0..width).map(|i| ((id * 31 + i * 17) % 23) as f64 / 23.0).collect();
        json!({
            "id": id, "kind": "organic", "embedding": embedding,
            "creatives": [{"id": id, "embedding": embedding}],
        })
        .to_string()
    };
    fs::write(file("items.jsonl"), lines(&(0..20).map(item).collect::<Vec<_>>())).unwrap();
    let build = |out: &str| {
        let mut command = bidslate();
        command.args(["catalog", "build", "--model"]).arg(dir.path());
        command.arg("--items").arg(file("items.jsonl")).arg("--out").arg(file(out));
        Run::of(&mut command).ok();
        fs::read(file(out)).unwrap()
    };
    let whole = build("whole.safetensors");
    shard(dir.path());
    assert_eq!(build("sharded.safetensors"), whole);
}

/// Items by their embeddings, quantized on the way, and a catalog that requests run against.
#[test]
fn a_catalog_is_built_counted_and_served() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let width = ModelConfig::read(&model().join("config.json")).unwrap().item_embedding_size;
    let item = |id: usize| {
        let embedding: Vec<f64> = (0..width).map(|i| ((id * 31 + i * 17) % 23) as f64 / 23.0).collect();
        let ad = id.is_multiple_of(2);
        json!({
            "id": id, "kind": if ad { "ad" } else { "organic" }, "embedding": embedding,
            "bid_micros": if ad { 1_000_000 } else { 0 }, "reserve_micros": if id == 2 { 2_000_000 } else { 0 },
            "creatives": [{"id": 10 * id, "codes": [1, 2, 3]}, {"id": 10 * id + 1, "codes": [3, 2, 1]}],
        })
        .to_string()
    };
    fs::write(file("items.jsonl"), lines(&(0..40).map(item).collect::<Vec<_>>())).unwrap();
    let build = |out: &Path, more: &[&str]| {
        let mut command = bidslate();
        command.args(["catalog", "build", "--model"]).arg(model());
        command.arg("--items").arg(file("items.jsonl")).arg("--out").arg(out).args(more);
        Run::of(&mut command)
    };
    let by_model = file("by-model.safetensors");
    let report = build(&by_model, &[]).ok();
    assert!(report.contains("40 items, 80 creatives"), "{report}");
    let stats = |catalog: &Path| -> Value {
        let mut command = bidslate();
        command.args(["catalog", "stats", "--json", "--model"]).arg(model()).arg(catalog);
        serde_json::from_str(&Run::of(&mut command).ok()).unwrap()
    };
    let counts = stats(&by_model);
    let figures = ["ads", "organic", "creatives", "eligible_ads"].map(|key| counts[key].as_u64().unwrap());
    assert_eq!(figures, [20, 20, 80, 19]);
    assert_eq!(counts["rejected_ads"], json!({"below_reserve": 1}));
    // A quantizer fitted to the items tells them apart better than one of random numbers.
    let quantizer = file("quantizer.safetensors");
    let mut command = bidslate();
    command.args(["quantize", "fit", "--jsonl"]).arg(file("items.jsonl"));
    command
        .args(["--width", &width.to_string(), "--codes", "3", "--codebook", &CODES.to_string(), "--out"])
        .arg(&quantizer);
    assert!(Run::of(&mut command).ok().contains("quantizer.poi.codebook [3, 8, 64]"));
    let fitted = file("fitted.safetensors");
    build(&fitted, &["--quantizer", quantizer.to_str().unwrap()]).ok();
    let distinct = |counts: &Value| counts["item_codes"]["full_codes"].as_u64().unwrap();
    assert!(distinct(&stats(&fitted)) > distinct(&counts), "{} and {counts}", stats(&fitted));
    // The model serves it.
    let request = json!({
        "id": "r", "history": [{"item": 3, "creative": 31}], "candidates": "all", "organic": [1, 3, 5],
    });
    let requests = file("requests.jsonl");
    fs::write(&requests, format!("{request}\n")).unwrap();
    let mut command = bidslate();
    command
        .arg("allocate")
        .arg("--model")
        .arg(model())
        .arg("--catalog")
        .arg(&fitted)
        .arg("--requests")
        .arg(&requests);
    let run = Run::of(&mut command);
    let answer = &run.json()[0];
    assert_eq!(answer["rejected"], json!([{"item": 2, "reason": "below_reserve"}]));
    assert_eq!(answer["slots"].as_array().unwrap().len(), SLOTS);
    run.ok();
    // A line that does not fit is named.
    fs::write(
        file("items.jsonl"),
        "{\"id\": 1, \"kind\": \"ad\", \"bid_micros\": 1, \"codes\": [0, 0, 8]}\n",
    )
    .unwrap();
    let error = build(&file("none.safetensors"), &[]).failed();
    assert!(error.contains("items.jsonl:1") && error.contains("codes"), "{error}");
    assert!(!file("none.safetensors").exists());
}

/// What is printed by commands that take no file.
#[test]
fn help_and_version_are_printed() {
    let help = Run::of(bidslate().arg("--help")).ok();
    for command in ["allocate", "catalog", "quantize", "import", "inspect", "init-model"] {
        assert!(help.contains(command), "{command} in {help}");
    }
    let version = Run::of(bidslate().arg("--version")).ok();
    assert_eq!(version, format!("bidslate {}\n", env!("CARGO_PKG_VERSION")));
}
