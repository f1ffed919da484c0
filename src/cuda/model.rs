//! A model's weights on a device.

use std::sync::Arc;

use half::bf16;

use super::choice::{Choice, Code};
use super::creative::CreativeDecoder;
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::launch::{Buffer, Stream};
use super::lists::MAX_SLOTS;
use super::norm_product::{self, MOST_COLUMNS};
use super::payment::PaymentNetwork;
use super::reward::RewardModel;
use super::segment_attention;
use super::weights::Upload;
use crate::error::DeviceError;
use crate::model::blocks::Shape;
use crate::model::config::ModelConfig;
use crate::model::rotary;
use crate::model::weights::Weights;

/// A model on a device: the encoder's and the decoders' matrices and embeddings in bf16, all else in f32.
#[derive(Debug)]
pub struct DeviceModel {
    /// Sizes and constants.
    pub config: ModelConfig,
    /// Shape of the encoder's and the decoders' blocks.
    pub shape: Shape,
    /// `embed.weight`, [V, d].
    pub table: Buffer<bf16>,
    /// Rotary table, [positions, head_size].
    pub angles: Buffer<f32>,
    /// Encoder.
    pub encoder: Encoder,
    /// POI decoder.
    pub decoder: Decoder,
    /// What runs a step of the search.
    pub search_step: Code,
    /// Creative decoder.
    pub creative: CreativeDecoder,
    /// Reward model.
    pub reward: RewardModel,
    /// Payment network.
    pub payment: PaymentNetwork,
}

impl DeviceModel {
    /// Uploads `weights`, the tensors of a model of `config`, to be run by the kernels of `choice`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]; [`DeviceError::Unsupported`] where the kernels do not take the model's sizes.
    pub fn load(
        stream: &Arc<dyn Stream>,
        config: &ModelConfig,
        weights: &Weights,
        choice: Choice,
    ) -> Result<Self, DeviceError> {
        check_sizes(stream.as_ref(), config)?;
        let encoder = Upload { stream, weights, products: choice.encoder_products };
        let decoder = Upload { stream, weights, products: choice.decoder_products };
        let shape = Shape::of(config);
        let table: Vec<bf16> = weights.f32("embed.weight").iter().map(|&x| bf16::from_f32(x)).collect();
        Ok(Self {
            shape,
            table: Buffer::from_slice(stream, &table)?,
            angles: Buffer::from_slice(stream, rotary(config).table())?,
            encoder: Encoder::load(encoder, choice, config, shape)?,
            decoder: Decoder::load(decoder, choice, config, shape)?,
            search_step: choice.search_step,
            creative: CreativeDecoder::load(decoder, choice.cross_attention, config, shape)?,
            reward: RewardModel::load(stream, config, weights)?,
            payment: PaymentNetwork::load(stream, config, weights)?,
            config: config.clone(),
        })
    }

    /// Bytes of the weights on the device.
    pub fn bytes(&self) -> usize {
        let tables = self.table.bytes() + self.angles.bytes();
        let stages = self.encoder.bytes() + self.decoder.bytes() + self.creative.bytes();
        tables + stages + self.reward.bytes() + self.payment.bytes()
    }
}

/// Refuses what the kernels do not take of what a configuration may hold; head sizes are theirs already.
fn check_sizes(stream: &dyn Stream, config: &ModelConfig) -> Result<(), DeviceError> {
    let refuse = |key: &'static str, value: usize, expected: &str| DeviceError::Unsupported {
        device: stream.describe(),
        key,
        value,
        expected: expected.into(),
    };
    let reward_head = config.reward_hidden_size / config.reward_heads;
    if config.hidden_size > MOST_COLUMNS {
        return Err(refuse("hidden_size", config.hidden_size, "at most 1024"));
    }
    let (needed, held) = (norm_product::shared_bytes(config.hidden_size), stream.shared_bytes());
    if needed > held {
        let expected =
            format!("rows that need up to the {held} bytes of a block's shared memory, not {needed}");
        return Err(refuse("hidden_size", config.hidden_size, &expected));
    }
    if !config.ffn_size.is_multiple_of(16) {
        return Err(refuse("ffn_size", config.ffn_size, "a multiple of 16"));
    }
    if config.list_len > MAX_SLOTS {
        return Err(refuse("list_len", config.list_len, "at most 32"));
    }
    if !segment_attention::fits(config.list_len, reward_head) {
        let expected = "keys and values of list_len slots within 48 KiB";
        return Err(refuse("reward_hidden_size / reward_heads", reward_head, expected));
    }
    Ok(())
}
