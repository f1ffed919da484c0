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

#[test]
fn an_output_never_takes_the_place_of_an_input() {
    let allocate = "allocate --model @model --requests @requests.jsonl";
    let cases = [
        (format!("{allocate} --out @requests.jsonl"), "--out", "requests.jsonl"),
        (format!("{allocate} --record @requests.jsonl"), "--record", "requests.jsonl"),
        (format!("{allocate} --trace @requests.jsonl"), "--trace", "requests.jsonl"),
        (
            allocate.replace("allocate", "audit --tier fixed") + " --out @requests.jsonl",
            "--out",
            "requests.jsonl",
        ),
        (allocate.replace("allocate", "generate") + " --out @requests.jsonl", "--out", "requests.jsonl"),
        (allocate.replace("allocate", "misreports") + " --out @requests.jsonl", "--out", "requests.jsonl"),
        ("auction --input @auctions.jsonl --out @auctions.jsonl".into(), "--out", "auctions.jsonl"),
        ("auction --input @auctions.jsonl --record @auctions.jsonl".into(), "--record", "auctions.jsonl"),
        ("auction --input @auctions.jsonl --summary @auctions.jsonl".into(), "--summary", "auctions.jsonl"),
        (
            "catalog build --model @model --items @items.jsonl --out @items.jsonl".into(),
            "--out",
            "items.jsonl",
        ),
        (
            "quantize fit --jsonl @items.jsonl --width 64 --codebook 2 --out @items.jsonl".into(),
            "--out",
            "items.jsonl",
        ),
    ];
    for (words, option, file) in cases {
        let dir = inputs();
        let before = fs::read(dir.path().join(file)).unwrap();
        let error = run(dir.path(), &words).failed();
        assert!(error.contains(option) && error.contains(file), "{words}: {error}");
        assert!(fs::read(dir.path().join(file)).unwrap() == before, "{words}: {file} was written to");
    }
}

/// Nor do two outputs share a file, under whatever name it goes.
#[test]
fn each_output_has_a_file_of_its_own() {
    let dir = inputs();
    let words = "auction --input @auctions.jsonl --out @./found.jsonl --summary @found.jsonl";
    let error = run(dir.path(), words).failed();
    assert!(error.contains("--summary") && error.contains("--out"), "{error}");
    assert!(!dir.path().join("found.jsonl").exists());
}

/// A wrong word on the command line costs nobody what an earlier run has written.
#[test]
fn an_output_is_kept_where_there_is_nothing_to_read() {
    let dir = inputs();
    let out = dir.path().join("out");
    let allocate = "allocate --model @model --requests @requests.jsonl";
    for words in [
        "auction --input @none.jsonl --out @out".into(),
        "auction --input @auctions.jsonl --gammas=-1 --out @out".into(),
        "auction --input @auctions.jsonl --record @none/records --out @out".into(),
        format!("{allocate} --record @none/records --out @out"),
        format!("{allocate} --trace @none/trace --out @out"),
    ] {
        fs::write(&out, "earlier").unwrap();
        run(dir.path(), &words).failed();
        assert_eq!(fs::read_to_string(&out).unwrap(), "earlier", "{words}");
    }
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

/// A fault while writing names the file, and a file that is no regular one is written into, not replaced.
#[cfg(target_os = "linux")]
#[test]
fn a_device_is_written_into_and_a_full_one_is_named() {
    let dir = inputs();
    let full = dir.path().join("full");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    for words in [
        "allocate --model @model --requests @requests.jsonl --out @full",
        "allocate --model @model --requests @requests.jsonl --out @out --trace @full",
        "generate --model @model --requests @requests.jsonl --out @full",
        "misreports --model @model --requests @requests.jsonl --out @full",
        "auction --input @auctions.jsonl --out @full",
        "catalog build --model @model --items @items.jsonl --out @full",
        "quantize fit --jsonl @items.jsonl --width 64 --codebook 2 --out @full",
    ] {
        let error = run(dir.path(), words).failed();
        assert!(error.contains("full: "), "{words}: {error}");
        assert!(full.symlink_metadata().unwrap().is_symlink(), "{words}: the device was replaced");
    }
}

/// The system's words stand in a message once.
#[test]
fn what_the_system_said_is_said_once() {
    let dir = inputs();
    for words in [
        "allocate --model @none --requests @requests.jsonl",
        "allocate --model @model --requests @requests.jsonl --catalog @none",
        "allocate --model @model --requests @requests.jsonl --record @none/records",
    ] {
        let error = run(dir.path(), words).failed();
        assert_eq!(error.matches("No such file").count(), 1, "{words}: {error}");
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

/// A log that goes to a file has no colours.
#[test]
fn a_log_in_a_file_is_plain_text() {
    let dir = inputs();
    let mut command = bidslate();
    command
        .args(["allocate", "--model"])
        .arg(model())
        .arg("--requests")
        .arg(dir.path().join("requests.jsonl"));
    let found = Run::of(command.env("BIDSLATE_LOG", "bidslate=debug"));
    assert!(found.stderr.contains("search") && !found.stderr.contains('\u{1b}'), "{}", found.stderr);
}

/// Whoever looks at standard error alone learns how many lines were refused, and where to look.
#[test]
fn refused_lines_are_counted() {
    let dir = inputs();
    let good = fs::read_to_string(dir.path().join("requests.jsonl")).unwrap();
    fs::write(dir.path().join("requests.jsonl"), format!("\n{good}\n{{}}\n{{\"id\": 4}}\n")).unwrap();
    let model = "--model @model --requests @requests.jsonl";
    for words in [
        format!("allocate {model} --out @out"),
        format!("audit {model} --tier fixed --out @out"),
        format!("generate {model} --out @out"),
        format!("misreports {model} --samples 2 --out @out"),
    ] {
        let found = run(dir.path(), &words);
        assert_eq!(found.code, 1, "{words}: {}", found.stderr);
        let says = "requests.jsonl: 2 of 4 lines were refused, the first is line 5\n";
        assert!(found.stderr.ends_with(says), "{words}: {}", found.stderr);
    }
    fs::write(dir.path().join("auctions.jsonl"), format!("{AUCTION}\nno auction\n")).unwrap();
    let found = run(dir.path(), "auction --input @auctions.jsonl --out @out");
    let says = "auctions.jsonl: 1 of 2 lines was refused, the first is line 3\n";
    assert!(found.stderr.ends_with(says), "{}", found.stderr);
}
