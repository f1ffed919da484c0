//! Model directories: what is written is read back, and every fault is found and named.

use std::borrow::Cow;

use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::tensors::{QuantizerEncoders, expected_tensors};
use bidslate::model::tokenizer::check_tokenizer;
use bidslate::model::weights::{WeightType, Weights};

/// A model small enough to be written hundreds of times.
fn small_config() -> ModelConfig {
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

#[test]
fn every_type_comes_back() {
    let config = small_config();
    let mut exact = None;
    for dtype in [WeightType::F32, WeightType::BF16, WeightType::F16] {
        let dir = tempfile::tempdir().unwrap();
        init_model(dir.path(), &config, dtype, 7).unwrap();
        assert_eq!(ModelConfig::read(&dir.path().join("config.json")).unwrap(), config);
        check_tokenizer(dir.path(), &config).unwrap();
        let weights = Weights::open(dir.path(), &config).unwrap();
        let specs = expected_tensors(&config, QuantizerEncoders { poi: true, creative: true });
        assert_eq!(weights.names().len(), specs.len());
        assert_eq!(weights.bytes(), weights.parameters() * dtype.size());
        let values: Vec<Vec<f32>> = specs.iter().map(|spec| weights.f32(&spec.name).into_owned()).collect();
        for (spec, values) in specs.iter().zip(&values) {
            assert_eq!(values.len(), spec.shape.iter().product::<usize>(), "{}", spec.name);
            assert_eq!(weights.dtype(&spec.name), dtype);
            assert_eq!(weights.shape(&spec.name), spec.shape);
        }
        assert_eq!(matches!(weights.f32("embed.weight"), Cow::Borrowed(_)), dtype == WeightType::F32);
        let exact = exact.get_or_insert_with(|| values.clone());
        let tolerance = if dtype == WeightType::BF16 { 1.0 / 256.0 } else { 1.0 / 2048.0 };
        for (exact, values) in exact.iter().flatten().zip(values.iter().flatten()) {
            assert!((exact - values).abs() <= tolerance * exact.abs() + 1e-7, "{exact} became {values}");
        }
    }
}
