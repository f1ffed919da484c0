//! Any bytes as `config.json`: a configuration whose derived sizes hold, or a named error.
#![no_main]

use std::sync::LazyLock;

use bidslate::model::config::{CONFIG_FILE, ModelConfig};
use bidslate::model::tensors::{QuantizerEncoders, expected_tensors};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary directory"));

fuzz_target!(|bytes: &[u8]| {
    let path = DIR.path().join(CONFIG_FILE);
    std::fs::write(&path, bytes).expect("write the file");
    let Ok(config) = ModelConfig::read(&path) else { return };
    for spec in expected_tensors(&config, QuantizerEncoders { poi: true, creative: true }) {
        assert!(spec.shape.iter().try_fold(4_usize, |size, &axis| size.checked_mul(axis)).is_some());
    }
    config.write(&path).expect("write the file");
    assert_eq!(ModelConfig::read(&path).expect("what was written is valid"), config);
});
