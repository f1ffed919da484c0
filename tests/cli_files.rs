//! What the `bidslate` command does to the files that it is pointed at: those that it reads, it never destroys, and
//! those that it writes are whole.
#![cfg(feature = "cli")]

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use command::{Run, bidslate};
use safetensors::SafeTensors;
use tempfile::TempDir;

const AUCTION: &str = "{\"id\":1,\"rule\":\"gsp\",\"bids_micros\":[5,3],\"position_effects\":[1]}\n";
const ITEM: &str = "{\"id\":1,\"kind\":\"organic\",\"codes\":[1,2,3],\"embedding\":";

/// A small model directory, shared by all tests, which only read it.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-files-model");
        let mut command = bidslate();
        command.args(["init-model", "--size", "tiny", "--items", "40", "--requests", "2", "--force"]);
        command.args(["--history-len=2", "--list-len=2", "--beam-width=2", "--codebook-size=8"]).arg(&dir);
        Run::of(&mut command).ok();
        dir
    })
}

/// A directory with a file of each kind that commands read.
fn inputs() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(model().join("requests.jsonl"), dir.path().join("requests.jsonl")).unwrap();
    fs::write(dir.path().join("auctions.jsonl"), AUCTION).unwrap();
    let embedding = vec!["0.5"; 64].join(",");
    let item = |id| format!("{}[{embedding}]}}\n", ITEM.replace("\"id\":1", &format!("\"id\":{id}")));
    fs::write(dir.path().join("items.jsonl"), (0..9).map(item).collect::<String>()).unwrap();
    dir
}

/// `bidslate` with these words, `@NAME` standing for a file of `dir` and `@model` for the model.
fn run(dir: &Path, words: &str) -> Run {
    let word = |word: &str| match word.strip_prefix('@') {
        Some("model") => model().display().to_string(),
        Some(name) => dir.join(name).display().to_string(),
        None => word.into(),
    };
    Run::of(bidslate().args(words.split_whitespace().map(word)))
}
/// A file that is not one of records is not appended to, and nothing of it is taken for a line that was cut off.
#[test]
fn records_are_not_appended_to_other_files() {
    let dir = inputs();
    let notes = dir.path().join("notes");
    for text in ["no line feed at the end", "a line\nand half of one", AUCTION] {
        fs::write(&notes, text).unwrap();
        let error = run(dir.path(), "auction --input @auctions.jsonl --record @notes").failed();
        assert!(error.contains("notes") && error.contains("no file of records"), "{error}");
        assert_eq!(fs::read_to_string(&notes).unwrap(), text);
    }
}

/// Of a catalog every column that does not fit, or else the first wrong value.
#[test]
fn inspect_opens_the_catalog() {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(model()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    let catalog = dir.path().join("catalog.safetensors");
    let sound = fs::read(&catalog).unwrap();
    let at = |name: &str| {
        let tensors = SafeTensors::deserialize(&sound).unwrap();
        tensors.tensor(name).unwrap().data().as_ptr() as usize - sound.as_ptr() as usize
    };
    let mut spoilt = sound.clone();
    spoilt[at("item.kind")] = 2;
    fs::write(&catalog, &spoilt).unwrap();
    let found = Run::of(bidslate().arg("inspect").arg(dir.path()));
    assert_eq!(found.code, 1, "{}", found.stdout);
    assert!(
        found.stdout.contains("`item.kind` row 0: is 2, expected 0 (organic) or 1 (ad)"),
        "{}",
        found.stdout
    );
    assert!(found.stdout.ends_with("It does not fit.\n"));
    // Names of the same length, so that the rest of the file stays where it is.
    let mut renamed = sound.clone();
    for (old, new) in [("item.kind", "item.mind"), ("item.codes", "item.coded")] {
        let at = renamed.windows(old.len()).position(|bytes| bytes == old.as_bytes()).unwrap();
        renamed[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    fs::write(&catalog, &renamed).unwrap();
    let found = Run::of(bidslate().arg("inspect").arg(dir.path()));
    for fault in
        ["missing `item.kind`", "unexpected `item.mind`", "missing `item.codes`", "unexpected `item.coded`"]
    {
        assert!(found.stdout.contains(&format!("catalog.safetensors: {fault}")), "{fault}: {}", found.stdout);
    }
    assert!(found.stderr.contains("4 fault(s)"), "{}", found.stderr);
}
