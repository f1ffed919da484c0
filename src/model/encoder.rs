//! The encoder (Eq. 14): the user's history to states S_e.

use super::blocks::{EncoderBlock, Packer, Scratch, Shape};
use super::config::{CTX, ModelConfig, SEP};
use crate::cpu::Exec;
use crate::cpu::attention::{KeyValues, attention};
use crate::cpu::norm::rms_norm;
use crate::cpu::rotary::{Rotary, rotate};

/// A request's history as token ids and feature values, ready to embed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// (index of the context feature in the order of names, value).
    pub context: Vec<(usize, u32)>,
    /// Past behaviours, oldest first; at most B.
    pub behaviors: Vec<HistoryEntry>,
}

/// One behaviour as codes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryEntry {
    /// Codes of the POI, `[C_p]`.
    pub codes: Vec<u16>,
    /// Codes of the creative, `[C_c]`.
    pub creative_codes: Vec<u16>,
    /// (index of the behaviour feature in the order of names, value).
    pub features: Vec<(usize, u32)>,
}

/// Embedding tables: tokens and features.
pub struct Embeddings {
    /// [V, d]
    pub tokens: Vec<f32>,
    context: Vec<Vec<f32>>,
    behavior: Vec<Vec<f32>>,
    d: usize,
}

impl Embeddings {
    /// Reads `embed.weight` and the feature tables, in the order of their names.
    pub fn load(packer: &Packer, config: &ModelConfig) -> Self {
        let tables = |kind: &str, names: &std::collections::BTreeMap<String, usize>| {
            names.keys().map(|name| packer.vector(&format!("{kind}.{name}.weight"))).collect()
        };
        Self {
            tokens: packer.vector("embed.weight"),
            context: tables("context_features", &config.context_features),
            behavior: tables("behavior_features", &config.behavior_features),
            d: config.hidden_size,
        }
    }

    /// The embedding of token `id`, `[d]`.
    pub fn token(&self, id: usize) -> &[f32] {
        &self.tokens[id * self.d..(id + 1) * self.d]
    }

    /// Writes the encoder's input vectors of a history to `x` [n, d].
    fn embed(&self, config: &ModelConfig, history: &History, x: &mut [f32]) {
        let mut rows = x.chunks_exact_mut(self.d);
        let mut put = |id: usize, tables: &[Vec<f32>], features: &[(usize, u32)]| {
            let Some(row) = rows.next() else { return };
            row.copy_from_slice(self.token(id));
            for &(table, value) in features {
                let start = value as usize * self.d;
                add(row, &tables[table][start..start + self.d]);
            }
        };
        put(CTX, &self.context, &history.context);
        for entry in &history.behaviors {
            put(SEP, &self.behavior, &entry.features);
            for (layer, &code) in entry.codes.iter().enumerate() {
                put(config.poi_token(layer, code), &[], &[]);
            }
            for (layer, &code) in entry.creative_codes.iter().enumerate() {
                put(config.creative_token(layer, code), &[], &[]);
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let features = self.context.iter().chain(&self.behavior).map(Vec::len).sum::<usize>();
        (self.tokens.len() + features) * 4
    }
}

/// Adds `y` to `x`, element by element.
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// The encoder's weights.
pub struct Encoder {
    shape: Shape,
    blocks: Vec<EncoderBlock>,
    norm: Vec<f32>,
}

impl Encoder {
    /// Reads `encoder.*`.
    pub fn load(packer: &Packer, config: &ModelConfig, shape: Shape) -> Self {
        Self {
            shape,
            blocks: (0..config.encoder_layers)
                .map(|l| EncoderBlock::load(packer, &format!("encoder.{l}"), shape))
                .collect(),
            norm: packer.vector("encoder.norm.weight"),
        }
    }

    /// Encodes a history: S_e into `states` [n, d], where n is returned. `x` is a buffer of the same size,
    /// `keys` one for the keys and values of a block.
    #[allow(clippy::too_many_arguments)]
    pub fn run(
        &self,
        exec: Exec,
        config: &ModelConfig,
        embeddings: &Embeddings,
        rotary: &Rotary,
        history: &History,
        x: &mut [f32],
        states: &mut [f32],
        keys: &mut KeyValues,
        scratch: &mut Scratch,
    ) -> usize {
        let Shape { d, eps, .. } = self.shape;
        let n = config.history_tokens(history.behaviors.len());
        let x = &mut x[..n * d];
        embeddings.embed(config, history, x);
        for block in &self.blocks {
            block.attn.project(exec, self.shape, x, n, scratch);
            let qkv = &mut scratch.qkv[..n * 3 * d];
            rotate(exec, rotary, qkv, 3 * d, 0..2 * d, |row| row);
            keys.fill(exec, qkv, n, 3 * d, d, 2 * d);
            attention(exec, qkv, n, 3 * d, 0, keys, &mut scratch.attention, &mut scratch.attended[..n * d]);
            block.attn.add_output(exec, self.shape, x, n, scratch);
            block.ffn.run(exec, self.shape, x, n, scratch);
        }
        rms_norm(exec, x, n, &self.norm, eps, &mut states[..n * d]);
        n
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(EncoderBlock::bytes).sum::<usize>() + self.norm.len() * 4
    }
}
