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
use config::ModelConfig;
use creative::CreativeDecoder;
use decoder::Decoder;
use encoder::{Embeddings, Encoder};
use payment::PaymentNetwork;
use reward::RewardModel;
use weights::Weights;

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
    /// Where the weights come from, as their file says.
    pub origin: Option<String>,
    /// Bytes of the weights files, mapped while the model was loaded.
    pub file_bytes: usize,
}

impl Model {
    /// Loads a model directory: `config.json`, `tokenizer.json` and the weights, each checked against the first.
    ///
    /// # Errors
    /// [`LoadError`] naming the file and everything in it that does not fit.
    pub fn load(dir: &Path, precision: Precision) -> Result<Self, LoadError> {
        let config = ModelConfig::read(&dir.join("config.json"))?;
        tokenizer::check_tokenizer(dir, &config)?;
        let weights = Weights::open(dir, &config)?;
        let packer = &Packer { weights: &weights, precision };
        let shape = Shape {
            d: config.hidden_size,
            heads: config.num_heads,
            ffn: config.ffn_size,
            eps: config.rms_eps as f32,
        };
        let positions = config
            .history_tokens(config.history_len)
            .max(config.list_len * config.poi_code_layers + 1)
            .max(config.creative_code_layers);
        let embeddings = Embeddings::load(packer, &config);
        Ok(Self {
            shape,
            precision,
            decoder: Decoder::load(packer, &config, shape, &embeddings),
            embeddings,
            rotary: Rotary::new(config.rope_theta, shape.head_size(), positions),
            encoder: Encoder::load(packer, &config, shape),
            creative: CreativeDecoder::load(packer, &config, shape),
            reward: RewardModel::load(packer, &config),
            payment: PaymentNetwork::load(packer, &config),
            origin: weights.origin().map(String::from),
            file_bytes: weights.bytes(),
            config,
        })
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
