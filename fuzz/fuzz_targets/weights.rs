//! Any bytes as `model.safetensors`: read, or refused by a named error.
#![no_main]

use std::sync::LazyLock;

use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::files::{TensorFiles, WEIGHTS_FILE};
use bidslate::model::weights::faults;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary directory"));
static CONFIG: LazyLock<ModelConfig> = LazyLock::new(|| ModelConfig::of_size(ModelSize::Tiny));

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(DIR.path().join(WEIGHTS_FILE), bytes).expect("write the file");
    let Ok(files) = TensorFiles::open_dir(DIR.path()) else { return };
    let held: usize = files.tensors().map(|(_, tensor)| files.data(tensor).len()).sum();
    assert!(held <= bytes.len());
    // No input of this size is a whole model.
    assert!(!faults(&files, &CONFIG).is_empty());
});
