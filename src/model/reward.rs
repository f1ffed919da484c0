//! The permutation-aware reward model (Eq. 18-20): click and conversion probabilities of each slot of a list.

use super::blocks::{EncoderBlock, Packer, Scratch, Shape};
use super::config::ModelConfig;
use super::encoder::{Embeddings, add};
use super::mlp::{Mlp, MlpBuffers};
use crate::catalog::Snapshot;
use crate::cpu::linear::{Epilogue, Linear, linear};
use crate::cpu::norm::rms_norm;
use crate::cpu::segment_attention::segment_attention;
use crate::cpu::{Exec, Precision};

/// The three towers, in the order of [`RewardState::probabilities`].
pub(crate) const TOWERS: [&str; 3] = ["pctr_poi", "pctr_creative", "pcvr"];

/// The reward model's weights. Always f32.
pub struct RewardModel {
    shape: Shape,
    input: Linear,
    input_bias: Vec<f32>,
    position: Vec<f32>,
    blocks: Vec<EncoderBlock>,
    norm: Vec<f32>,
    towers: [Mlp; 3],
}

/// An item and its creative in a slot (rows of the snapshot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shown {
    /// The item.
    pub item: u32,
    /// Its creative.
    pub creative: u32,
}

/// Buffers and results of a pass over many lists.
pub struct RewardState {
    /// [rows, 3d + d_item]
    input: Vec<f32>,
    x: Vec<f32>,
    /// Slot features f, [rows, d_r].
    pub features: Vec<f32>,
    tower_input: Vec<f32>,
    /// pctr_poi, pctr_creative, pcvr of every row.
    pub probabilities: [Vec<f32>; 3],
    offsets: Vec<usize>,
    mlp: MlpBuffers,
    scratch: Scratch,
}

impl RewardModel {
    /// Reads `reward.*`.
    pub fn load(packer: &Packer, config: &ModelConfig) -> Self {
        let packer = &Packer { weights: packer.weights, precision: Precision::F32 };
        let shape = Self::shape(config);
        Self {
            shape,
            input: packer.linear(&["reward.input.weight".into()], Self::input_size(config)),
            input_bias: packer.vector("reward.input.bias"),
            position: packer.vector("reward.position.weight"),
            blocks: (0..config.reward_layers)
                .map(|l| EncoderBlock::load(packer, &format!("reward.{l}"), shape))
                .collect(),
            norm: packer.vector("reward.norm.weight"),
            towers: TOWERS.map(|name| Mlp::load(packer, &format!("reward.towers.{name}"), 2 * shape.d)),
        }
    }

    fn shape(config: &ModelConfig) -> Shape {
        let d = config.reward_hidden_size;
        Shape { d, heads: config.reward_heads, ffn: 3 * d, eps: config.rms_eps as f32 }
    }

    fn input_size(config: &ModelConfig) -> usize {
        3 * config.hidden_size + config.item_embedding_size
    }

    /// Room for `rows` filled slots in all lists together.
    pub fn state(config: &ModelConfig, rows: usize, threads: usize) -> RewardState {
        let shape = Self::shape(config);
        RewardState {
            input: vec![0.0; rows * Self::input_size(config)],
            x: vec![0.0; rows * shape.d],
            features: vec![0.0; rows * shape.d],
            tower_input: vec![0.0; rows * 2 * shape.d],
            probabilities: std::array::from_fn(|_| vec![0.0; rows]),
            offsets: Vec::with_capacity(rows + 2),
            mlp: MlpBuffers::new(rows),
            scratch: Scratch::new(rows, shape, threads),
        }
    }

    /// Scores `lists`; rows of the results are their filled slots, list after list. `mean` is the mean of the
    /// encoder's states, `[d]`.
    #[allow(clippy::too_many_arguments)]
    pub fn run(
        &self,
        exec: Exec,
        config: &ModelConfig,
        embeddings: &Embeddings,
        snapshot: &Snapshot,
        mean: &[f32],
        lists: &[Vec<Shown>],
        state: &mut RewardState,
    ) {
        let d = self.shape.d;
        self.fill_input(config, embeddings, snapshot, mean, lists, state);
        let m = *state.offsets.last().unwrap_or(&0);
        let x = &mut state.x[..m * d];
        let input = &state.input[..m * Self::input_size(config)];
        linear(exec, input, m, &self.input, Epilogue::Bias(&self.input_bias), x);
        for range in state.offsets.windows(2) {
            for (slot, row) in (range[0]..range[1]).enumerate() {
                add(&mut x[row * d..(row + 1) * d], &self.position[slot * d..(slot + 1) * d]);
            }
        }
        for block in &self.blocks {
            block.attn.project(exec, self.shape, x, m, &mut state.scratch);
            let Scratch { qkv, attended, .. } = &mut state.scratch;
            let (qkv, attended) = (&qkv[..m * 3 * d], &mut attended[..m * d]);
            segment_attention(exec, qkv, &state.offsets, self.shape.heads, self.shape.head_size(), attended);
            block.attn.add_output(exec, self.shape, x, m, &state.scratch);
            block.ffn.run(exec, self.shape, x, m, &mut state.scratch);
        }
        rms_norm(exec, x, m, &self.norm, self.shape.eps, &mut state.features[..m * d]);
        self.run_towers(exec, m, state);
    }

    fn fill_input(
        &self,
        config: &ModelConfig,
        embeddings: &Embeddings,
        snapshot: &Snapshot,
        mean: &[f32],
        lists: &[Vec<Shown>],
        state: &mut RewardState,
    ) {
        let d = config.hidden_size;
        state.offsets.clear();
        state.offsets.push(0);
        let mut rows = state.input.chunks_exact_mut(Self::input_size(config));
        let mut m = 0;
        for list in lists {
            for (shown, row) in list.iter().zip(&mut rows) {
                row[..2 * d].fill(0.0);
                for (layer, &code) in snapshot.codes(shown.item).iter().enumerate() {
                    add(&mut row[..d], embeddings.token(config.poi_token(layer, code)));
                }
                for (layer, &code) in snapshot.creative_codes(shown.creative).iter().enumerate() {
                    add(&mut row[d..2 * d], embeddings.token(config.creative_token(layer, code)));
                }
                row[2 * d..3 * d].copy_from_slice(mean);
                snapshot.embedding(shown.item, &mut row[3 * d..]);
            }
            m += list.len();
            state.offsets.push(m);
        }
    }

    /// The towers over [f_i ; sum of f over the list].
    fn run_towers(&self, exec: Exec, m: usize, state: &mut RewardState) {
        let d = self.shape.d;
        for range in state.offsets.windows(2) {
            let features = &state.features[range[0] * d..range[1] * d];
            let rows = &mut state.tower_input[range[0] * 2 * d..range[1] * 2 * d];
            let Some(first) = rows.get_mut(d..2 * d) else { continue };
            first.fill(0.0);
            features.chunks_exact(d).for_each(|f| add(first, f));
            for slot in 0..range[1] - range[0] {
                rows.copy_within(d..2 * d, slot * 2 * d + d);
                rows[slot * 2 * d..][..d].copy_from_slice(&features[slot * d..][..d]);
            }
        }
        for (tower, out) in self.towers.iter().zip(&mut state.probabilities) {
            tower.sigmoid(exec, &state.tower_input[..m * 2 * d], m, &mut state.mlp, out);
        }
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let vectors = (self.input_bias.len() + self.position.len() + self.norm.len()) * 4;
        let blocks = self.blocks.iter().map(EncoderBlock::bytes).sum::<usize>();
        vectors + self.input.bytes() + blocks + self.towers.iter().map(Mlp::bytes).sum::<usize>()
    }
}

impl RewardState {
    /// Rows of the results that belong to list `list`.
    pub fn rows(&self, list: usize) -> std::ops::Range<usize> {
        self.offsets[list]..self.offsets[list + 1]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let floats = self.input.len() + self.x.len() + self.features.len() + self.tower_input.len();
        let outputs = self.probabilities.iter().map(Vec::len).sum::<usize>();
        (floats + outputs) * 4 + self.offsets.capacity() * 8 + self.mlp.bytes() + self.scratch.bytes()
    }
}
