//! The reward model: every list of every request at once, in f32 with the bits of the CPU.

use std::sync::Arc;

use super::choice::Code;
use super::launch::{Buffer, Stream};
use super::linear_f32::{Epilogue, Matrix, linear, swiglu};
use super::lists::Lists;
use super::mlp::MlpWeights;
use super::reward_input::{self, InputShape, Shown, Tables};
use super::reward_towers::{self, TOWERS};
use super::rms_norm_f32::rms_norm;
use super::segment_attention;
use super::weights::Upload;
use crate::error::DeviceError;
use crate::model::config::ModelConfig;
use crate::model::mlp::HIDDEN;
use crate::model::reward::TOWERS as TOWER_NAMES;
use crate::model::weights::Weights;

/// The reward model's weights, f32.
#[derive(Debug)]
pub struct RewardModel {
    input_shape: InputShape,
    d: usize,
    heads: usize,
    eps: f32,
    input: Matrix,
    input_bias: Buffer<f32>,
    position: Buffer<f32>,
    blocks: Vec<Block>,
    norm: Buffer<f32>,
    /// First layers of the towers, stacked: [3 * 128, 2 d_r].
    towers: Matrix,
    tower_bias: Buffer<f32>,
    /// The other layers, [3, TAIL].
    tower_tails: Buffer<f32>,
}

/// Weights of one encoder block of width d_r.
#[derive(Debug)]
struct Block {
    attn_norm: Buffer<f32>,
    /// Queries, keys and values, stacked: [3 d_r, d_r].
    qkv: Matrix,
    out: Matrix,
    ffn_norm: Buffer<f32>,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

/// Buffers and results of a pass.
#[derive(Debug)]
pub struct RewardState {
    input: Buffer<f32>,
    x: Buffer<f32>,
    normed: Buffer<f32>,
    qkv: Buffer<f32>,
    attended: Buffer<f32>,
    hidden: Buffer<f32>,
    tower_input: Buffer<f32>,
    tower_hidden: Buffer<f32>,
    /// Slot features f, [rows, d_r].
    pub features: Buffer<f32>,
    /// pctr_poi, pctr_creative, pcvr, [3, rows].
    pub probabilities: Buffer<f32>,
}

impl RewardModel {
    /// Uploads `reward.*`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn load(
        stream: &Arc<dyn Stream>,
        config: &ModelConfig,
        weights: &Weights,
    ) -> Result<Self, DeviceError> {
        let d = config.reward_hidden_size;
        // Its products are in f32, for which there is one kernel.
        let upload = Upload { stream, weights, products: Code::Portable };
        let input_shape = InputShape {
            poi_layers: config.poi_code_layers,
            creative_layers: config.creative_code_layers,
            codebook: config.codebook_size,
            d: config.hidden_size,
            d_item: config.item_embedding_size,
        };
        let towers = TOWER_NAMES.map(|name| MlpWeights::read(weights, &format!("reward.towers.{name}")));
        let stacked = |part: fn(&MlpWeights) -> Vec<f32>| towers.iter().flat_map(part).collect::<Vec<f32>>();
        Ok(Self {
            input_shape,
            d,
            heads: config.reward_heads,
            eps: config.rms_eps as f32,
            input: upload.matrix_f32(&["reward.input.weight"], input_shape.width())?,
            input_bias: upload.vector("reward.input.bias")?,
            position: upload.vector("reward.position.weight")?,
            blocks: (0..config.reward_layers)
                .map(|l| Block::load(upload, &format!("reward.{l}"), d))
                .collect::<Result<_, _>>()?,
            norm: upload.vector("reward.norm.weight")?,
            towers: Matrix::new(stream, &stacked(|tower| tower.first.to_vec()), 2 * d)?,
            tower_bias: Buffer::from_slice(stream, &stacked(|tower| tower.bias.to_vec()))?,
            tower_tails: Buffer::from_slice(stream, &stacked(|tower| tower.tail.clone()))?,
        })
    }

    /// Room for `rows` slots in all lists together.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn state(&self, stream: &Arc<dyn Stream>, rows: usize) -> Result<RewardState, DeviceError> {
        let room = |width: usize| Buffer::new(stream, rows * width);
        let d = self.d;
        Ok(RewardState {
            input: room(self.input_shape.width())?,
            x: room(d)?,
            normed: room(d)?,
            qkv: room(3 * d)?,
            attended: room(d)?,
            hidden: room(3 * d)?,
            tower_input: room(2 * d)?,
            tower_hidden: room(TOWERS * HIDDEN[0])?,
            features: room(d)?,
            probabilities: room(TOWERS)?,
        })
    }

    /// Scores the lists: features and probabilities of every slot into `state`. `mean` is the mean of each request's
    /// encoder states, [requests, d]. What stands in rows past a list's length means nothing.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn run(
        &self,
        stream: &dyn Stream,
        lists: Lists,
        shown: Shown,
        tables: Tables,
        mean: &Buffer<f32>,
        state: &mut RewardState,
    ) -> Result<(), DeviceError> {
        let rows = lists.rows();
        reward_input::run(stream, self.input_shape, lists, shown, tables, mean, &mut state.input)?;
        let position = Epilogue::Position(&self.input_bias, &self.position, lists.slots);
        linear(stream, &state.input, rows, &self.input, position, &mut state.x)?;
        for block in &self.blocks {
            self.attend(stream, block, lists, state)?;
            self.feed_forward(stream, block, rows, state)?;
        }
        rms_norm(stream, &state.x, rows, &self.norm, self.eps, &mut state.features)?;
        reward_towers::input(stream, &state.features, lists, self.d, &mut state.tower_input)?;
        let first = Epilogue::BiasRelu(&self.tower_bias);
        linear(stream, &state.tower_input, rows, &self.towers, first, &mut state.tower_hidden)?;
        let RewardState { tower_hidden, probabilities, .. } = state;
        reward_towers::run(stream, tower_hidden, rows, &self.tower_tails, probabilities)
    }

    fn attend(
        &self,
        stream: &dyn Stream,
        block: &Block,
        lists: Lists,
        state: &mut RewardState,
    ) -> Result<(), DeviceError> {
        let (rows, head_size) = (lists.rows(), self.d / self.heads);
        let RewardState { x, normed, qkv, attended, .. } = state;
        rms_norm(stream, x, rows, &block.attn_norm, self.eps, normed)?;
        linear(stream, normed, rows, &block.qkv, Epilogue::Store, qkv)?;
        segment_attention::run(stream, qkv, lists, self.heads, head_size, attended)?;
        linear(stream, attended, rows, &block.out, Epilogue::Add, x)
    }

    fn feed_forward(
        &self,
        stream: &dyn Stream,
        block: &Block,
        rows: usize,
        state: &mut RewardState,
    ) -> Result<(), DeviceError> {
        let RewardState { x, normed, hidden, .. } = state;
        rms_norm(stream, x, rows, &block.ffn_norm, self.eps, normed)?;
        swiglu(stream, normed, rows, &block.gate, &block.up, hidden)?;
        linear(stream, hidden, rows, &block.down, Epilogue::Add, x)
    }

    /// Bytes of the weights on the device.
    pub fn bytes(&self) -> usize {
        let vectors = [&self.input_bias, &self.position, &self.norm, &self.tower_bias, &self.tower_tails];
        let blocks = self.blocks.iter().map(Block::bytes).sum::<usize>();
        vectors.iter().map(|v| v.bytes()).sum::<usize>() + self.input.bytes() + self.towers.bytes() + blocks
    }
}

impl Block {
    fn load(upload: Upload, prefix: &str, d: usize) -> Result<Self, DeviceError> {
        let name = |part: &str| format!("{prefix}.{part}.weight");
        let matrix = |parts: &[&str], in_size: usize| {
            let names: Vec<String> = parts.iter().map(|part| name(part)).collect();
            upload.matrix_f32(&names, in_size)
        };
        Ok(Self {
            attn_norm: upload.vector(&name("attn_norm"))?,
            qkv: matrix(&["attn.q_proj", "attn.k_proj", "attn.v_proj"], d)?,
            out: matrix(&["attn.o_proj"], d)?,
            ffn_norm: upload.vector(&name("ffn_norm"))?,
            gate: matrix(&["ffn.gate_proj"], d)?,
            up: matrix(&["ffn.up_proj"], d)?,
            down: matrix(&["ffn.down_proj"], 3 * d)?,
        })
    }

    fn bytes(&self) -> usize {
        let matrices = [&self.qkv, &self.out, &self.gate, &self.up, &self.down];
        self.attn_norm.bytes() + self.ffn_norm.bytes() + matrices.iter().map(|m| m.bytes()).sum::<usize>()
    }
}

impl RewardState {
    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        [
            &self.input,
            &self.x,
            &self.normed,
            &self.qkv,
            &self.attended,
            &self.hidden,
            &self.tower_input,
            &self.tower_hidden,
            &self.features,
            &self.probabilities,
        ]
        .iter()
        .map(|buffer| buffer.bytes())
        .sum()
    }
}
