//! The examples and the quick start: each runs to its end, and what it asserts on the way holds.

use std::error::Error;
use std::process::Command;

#[path = "../examples/01_allocate.rs"]
mod allocate;
#[path = "../examples/02_live_bids.rs"]
mod live_bids;
#[path = "../examples/03_own_catalog.rs"]
mod own_catalog;
#[path = "../examples/04_trace.rs"]
mod trace;

#[test]
fn allocate_runs() -> Result<(), Box<dyn Error>> {
    allocate::main()
}

#[test]
fn live_bids_runs() -> Result<(), Box<dyn Error>> {
    live_bids::main()
}

#[test]
fn own_catalog_runs() -> Result<(), Box<dyn Error>> {
    own_catalog::main()
}

#[test]
fn trace_runs() -> Result<(), Box<dyn Error>> {
    trace::main()
}

/// The README's first command, with the build of the tests in place of a release build.
#[test]
fn the_quick_start_answers_every_request() {
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/quickstart"));
    let output = script.env("BIDSLATE", env!("CARGO_BIN_EXE_bidslate")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("next visits in the lists, of those that could be: "), "{text}");
    let answers = text.lines().filter(|line| line.starts_with("user-") && line.contains("best of 64 lists"));
    assert_eq!(answers.count(), 128, "{text}");
}

/// `--config` makes a model alone, and excludes what goes with a made-up catalog.
#[test]
fn init_model_takes_a_size_or_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/nyc/config.json");
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_bidslate"))
            .args(["init-model", dir.path().to_str().unwrap()])
            .args(arguments)
            .output()
            .unwrap()
    };
    for arguments in [&[][..], &["--config", config, "--size", "tiny"], &["--config", config, "--items", "9"]]
    {
        assert!(!run(arguments).status.success(), "{arguments:?}");
    }
    assert!(run(&["--config", config, "--beam-width", "5"]).status.success());
    let mut files: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["config.json", "model.safetensors", "tokenizer.json"]);
    let written = bidslate::model::config::ModelConfig::read(&dir.path().join("config.json")).unwrap();
    let given = bidslate::model::config::ModelConfig::read(config.as_ref()).unwrap();
    assert_eq!(written, bidslate::model::config::ModelConfig { beam_width: 5, ..given });
}
