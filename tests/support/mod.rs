//! Small model directories and safetensors files, whole and broken.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A model of some 80 kB, small enough to be written hundreds of times.
pub fn small_config() -> ModelConfig {
    ModelConfig {
        codebook_size: 4,
        hidden_size: 32,
        num_heads: 1,
        ffn_size: 8,
        encoder_layers: 1,
        decoder_layers: 1,
        item_embedding_size: 6,
        reward_hidden_size: 4,
        reward_heads: 1,
        list_len: 3,
        quantizer_size: Some(5),
        quantizer_hidden: vec![7],
        ..ModelConfig::of_size(ModelSize::Tiny)
    }
}

/// A directory with a model of `config`.
pub fn model_dir(config: &ModelConfig, dtype: WeightType) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    init_model(dir.path(), config, dtype, 7).unwrap();
    dir
}

/// A tensor in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

pub type Tensors = BTreeMap<String, Tensor>;

/// Every tensor of a safetensors file.
pub fn read_tensors(path: &Path) -> Tensors {
    let file = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let tensor = |view: &TensorView<'_>| Tensor {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        data: view.data().to_vec(),
    };
    tensors.tensors().iter().map(|(name, view)| (name.clone(), tensor(view))).collect()
}

/// Writes `tensors` as a safetensors file.
pub fn write_tensors(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, tensor)| {
        (name.as_str(), TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.data).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The bytes of a safetensors file with this header, right or wrong.
pub fn raw_file(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}
