//! Model directories with random weights, for tests and benchmarks.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::tensor::{Dtype, SafeTensorError, View, serialize_to_file};

use super::config::{CONFIG_FILE, ModelConfig};
use super::files::WEIGHTS_FILE;
use super::tensors::{QuantizerEncoders, TensorSpec, expected_tensors};
use super::tokenizer::write_tokenizer;
use super::weights::{ORIGIN, WeightType};
use crate::error::LoadError;

/// Writes `config.json`, `tokenizer.json` and `model.safetensors` with random weights of type `dtype` into
/// `dir`, which is made if need be. The same configuration and seed give the same weights on every machine;
/// the narrower types hold the same numbers, rounded.
///
/// Activations stay of the order of 1 through the blocks, logits have a standard deviation of about 3 (so that
/// beams differ), and the towers start at click rates of a few percent.
///
/// # Errors
/// [`LoadError::Config`] for a configuration out of range, [`LoadError::Io`] where a file cannot be written.
pub fn init_model(dir: &Path, config: &ModelConfig, dtype: WeightType, seed: u64) -> Result<(), LoadError> {
    let config_path = dir.join(CONFIG_FILE);
    config.check_as(&config_path)?;
    fs::create_dir_all(dir).map_err(|error| LoadError::io(dir, error))?;
    config.write(&config_path)?;
    write_tokenizer(dir, config)?;
    let path = dir.join(WEIGHTS_FILE);
    let origin =
        HashMap::from([(ORIGIN.into(), format!("RANDOM WEIGHTS (seed {seed}): lists mean nothing"))]);
    serialize_to_file(random_tensors(config, dtype, seed), Some(origin), &path).map_err(
        |error| match error {
            SafeTensorError::IoError(source) => LoadError::io(&path, source),
            other => LoadError::Format { path: path.clone(), message: other.to_string() },
        },
    )?;
    // The writer goes through a temporary file, which only its owner may read.
    let permissions =
        fs::metadata(&config_path).map_err(|error| LoadError::io(&config_path, error))?.permissions();
    fs::set_permissions(&path, permissions).map_err(|error| LoadError::io(&path, error))
}

fn random_tensors(config: &ModelConfig, dtype: WeightType, seed: u64) -> Vec<(String, RandomTensor)> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let encoders = QuantizerEncoders { poi: true, creative: true };
    expected_tensors(config, encoders)
        .into_iter()
        .map(|spec| {
            // One far-apart stream per tensor: its numbers do not depend on when it is written.
            rng.jump();
            let (mean, deviation) = distribution(&spec);
            let tensor = RandomTensor { shape: spec.shape, dtype, mean, deviation, rng: rng.clone() };
            (spec.name, tensor)
        })
        .collect()
}

/// Mean and standard deviation of the elements of a tensor.
fn distribution(spec: &TensorSpec) -> (f32, f32) {
    let name = spec.name.as_str();
    let inputs = *spec.shape.last().unwrap_or(&1) as f32;
    let ends = |suffix: &str| name.ends_with(suffix);
    let starts = |prefix: &str| name.starts_with(prefix);
    match name {
        "embed.weight" => (0.0, 1.0),
        "poi_head.weight" | "creative_head.weight" => (0.0, 3.0 / inputs.sqrt()),
        "reward.position.weight" => (0.0, 0.5),
        // Click rates of about 5 and 8 %, conversions of about 3 %.
        "reward.towers.pctr_poi.3.bias" => (-2.9, 0.0),
        "reward.towers.pctr_creative.3.bias" => (-2.5, 0.0),
        "reward.towers.pcvr.3.bias" => (-3.5, 0.0),
        // Not exactly 1: a norm whose weight is forgotten shall show in a test.
        _ if ends("norm.weight") => (1.0, 0.1),
        _ if ends(".bias") => (0.0, 0.1),
        _ if ends(".codebook") => (0.0, 0.5),
        _ if starts("context_features.") || starts("behavior_features.") => (0.0, 0.3),
        _ if ends(".q_proj.weight") || ends(".k_proj.weight") => (0.0, 1.5 / inputs.sqrt()),
        _ if starts("reward.towers.") && ends(".3.weight") => (0.0, 0.6 / inputs.sqrt()),
        // Half of a tower's input is a sum over the list, up to K times as large as a slot's vector. Small
        // weights keep the rates near those of the biases.
        _ if starts("reward.towers.") && ends(".0.weight") => (0.0, 0.3 / inputs.sqrt()),
        // In front of a ReLU, which halves the second moment.
        _ if starts("reward.towers.") || starts("payment.") || starts("quantizer.") => {
            (0.0, (2.0 / inputs).sqrt())
        }
        _ => (0.0, 1.0 / inputs.sqrt()),
    }
}

/// A tensor whose elements are drawn when it is written, so that a large model needs the memory of one tensor.
struct RandomTensor {
    shape: Vec<usize>,
    dtype: WeightType,
    mean: f32,
    deviation: f32,
    rng: Xoshiro256PlusPlus,
}

impl RandomTensor {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn draw<const N: usize>(&self, encode: fn(f32) -> [u8; N]) -> Vec<u8> {
        let mut rng = self.rng.clone();
        let mut bytes = Vec::with_capacity(self.elements() * N);
        for _ in 0..self.elements() {
            bytes.extend(encode(self.mean + self.deviation * bell(&mut rng)));
        }
        bytes
    }
}

impl View for RandomTensor {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            WeightType::F32 => Dtype::F32,
            WeightType::BF16 => Dtype::BF16,
            WeightType::F16 => Dtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(match self.dtype {
            WeightType::F32 => self.draw(f32::to_le_bytes),
            WeightType::BF16 => self.draw(|value| bf16::from_f32(value).to_le_bytes()),
            WeightType::F16 => self.draw(|value| f16::from_f32(value).to_le_bytes()),
        })
    }

    fn data_len(&self) -> usize {
        self.elements() * self.dtype.size()
    }
}

/// A number of mean 0 and deviation 1 with a nearly normal density: the sum of four uniform ones, which unlike
/// a logarithm is the same on every machine and takes a nanosecond.
fn bell(rng: &mut impl Rng) -> f32 {
    /// Mean and deviation of the sum of four uniform 16-bit integers.
    const MEAN: f32 = 131_070.0;
    const DEVIATION: f32 = 37_837.227;
    let bits = rng.next_u64();
    let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
    (sum as f32 - MEAN) / DEVIATION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_has_mean_0_and_deviation_1() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let draws: Vec<f64> = (0..100_000).map(|_| f64::from(bell(&mut rng))).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }
}
