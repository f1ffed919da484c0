//! The model: its configuration, its files, and what it computes.

pub mod blocks;
pub mod config;
pub mod creative;
pub mod decoder;
pub mod encoder;
pub mod files;
pub mod init;
pub mod mlp;
pub mod payment;
pub mod reward;
pub mod tensors;
pub mod tokenizer;
pub mod weights;

use std::path::Path;

use crate::cpu::Precision;
use crate::cpu::rotary::Rotary;
use crate::error::LoadError;
use blocks::{Packer, Shape};
use config::{CONFIG_FILE, ModelConfig};
use creative::CreativeDecoder;
use decoder::Decoder;
use encoder::{Embeddings, Encoder};
use payment::PaymentNetwork;
use reward::RewardModel;
use weights::Weights;

/// Opens a model directory: `config.json`, `tokenizer.json` and the weights, each checked against the first.
///
/// # Errors
/// [`LoadError`] naming the file and everything in it that does not fit.
pub fn open(dir: &Path) -> Result<(ModelConfig, Weights), LoadError> {
    let config = ModelConfig::read(&dir.join(CONFIG_FILE))?;
    tokenizer::check_tokenizer(dir, &config)?;
    let weights = Weights::open(dir, &config)?;
    Ok((config, weights))
}

/// A model with its weights packed for the CPU.
pub struct Model {
    /// Sizes and constants.
    pub config: ModelConfig,
    /// Shape of the encoder's and the decoders' blocks.
    pub shape: Shape,
    /// Precision of the encoder's and the decoders' products; everything else is f32.
    pub precision: Precision,
    /// Token and feature tables.
    pub embeddings: Embeddings,
    /// Rotary table of the encoder and the decoders.
    pub rotary: Rotary,
    /// Encoder.
    pub encoder: Encoder,
    /// POI decoder.
    pub decoder: Decoder,
    /// Creative decoder.
    pub creative: CreativeDecoder,
    /// Reward model.
    pub reward: RewardModel,
    /// Payment network.
    pub payment: PaymentNetwork,
}

impl Model {
    /// Packs the weights of a model of `config`.
    pub fn pack(config: ModelConfig, weights: &Weights, precision: Precision) -> Self {
        let packer = &Packer { weights, precision };
        let shape = Shape::of(&config);
        let embeddings = Embeddings::load(packer, &config);
        Self {
            shape,
            precision,
            decoder: Decoder::load(packer, &config, shape, &embeddings),
            embeddings,
            rotary: rotary(&config),
            encoder: Encoder::load(packer, &config, shape),
            creative: CreativeDecoder::load(packer, &config, shape),
            reward: RewardModel::load(packer, &config),
            payment: PaymentNetwork::load(packer, &config),
            config,
        }
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.embeddings.bytes()
            + self.encoder.bytes()
            + self.decoder.bytes()
            + self.creative.bytes()
            + self.reward.bytes()
            + self.payment.bytes()
    }
}

/// The rotary table of the encoder and the decoders: for every position that any of them has.
pub fn rotary(config: &ModelConfig) -> Rotary {
    let positions = config
        .history_tokens(config.history_len)
        .max(config.list_len * config.poi_code_layers + 1)
        .max(config.creative_code_layers);
    Rotary::new(config.rope_theta, config.hidden_size / config.num_heads, positions)
}
