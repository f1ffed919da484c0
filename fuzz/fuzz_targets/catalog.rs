//! Any bytes as `catalog.safetensors`: a catalog, or a named error.
#![no_main]

use std::sync::LazyLock;

use bidslate::catalog::Catalog;
use bidslate::model::config::{ModelConfig, ModelSize};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary directory"));
/// Of the sizes that the seeds have, so that the check of values is reached.
static CONFIG: LazyLock<ModelConfig> = LazyLock::new(|| ModelConfig {
    poi_code_layers: 2,
    creative_code_layers: 1,
    codebook_size: 4,
    item_embedding_size: 2,
    ..ModelConfig::of_size(ModelSize::Tiny)
});

fuzz_target!(|bytes: &[u8]| {
    let path = DIR.path().join("catalog.safetensors");
    std::fs::write(&path, bytes).expect("write the file");
    let _ = Catalog::open(&path, &CONFIG);
});
