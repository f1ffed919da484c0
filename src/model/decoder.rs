//! The POI decoder (Eq. 15): one position of all beams at a time.

use super::blocks::{DecoderBlock, Packer, Scratch, SelfCache, Shape, Step};
use super::config::{BOI, ModelConfig};
use super::encoder::Embeddings;
use crate::cpu::attention::KeyValues;
use crate::cpu::linear::{Epilogue, Linear, linear};
use crate::cpu::norm::rms_norm;
use crate::cpu::rotary::Rotary;
use crate::cpu::{Exec, Precision};
use crate::decode::search::Row;

/// The POI decoder's weights.
pub struct Decoder {
    shape: Shape,
    blocks: Vec<DecoderBlock>,
    norm: Vec<f32>,
    /// One head per code layer, [W, d].
    heads: Vec<Linear>,
}

/// Keys, values and hidden states of a search in progress.
pub struct DecoderState {
    /// Per block, of the encoder output.
    cross: Vec<KeyValues>,
    /// Per block, of the positions so far.
    caches: Vec<SelfCache>,
    /// Final hidden states h_t, [position][row][d].
    hidden: Vec<f32>,
    /// The newest logits, [rows, W].
    logits: Vec<f32>,
    /// [rows][positions]
    ancestors: Vec<u32>,
    x: Vec<f32>,
    slots: usize,
    positions: usize,
}

impl Decoder {
    /// Reads `decoder.*` and `poi_head.weight`.
    pub fn load(packer: &Packer, config: &ModelConfig, shape: Shape) -> Self {
        let head = packer.weights.f32("poi_head.weight");
        let heads = head
            .chunks_exact(config.codebook_size * shape.d)
            .map(|rows| Linear::pack(&[rows], shape.d, Precision::F32))
            .collect();
        Self {
            shape,
            blocks: (0..config.decoder_layers)
                .map(|l| DecoderBlock::load(packer, &format!("decoder.{l}"), shape))
                .collect(),
            norm: packer.vector("decoder.norm.weight"),
            heads,
        }
    }

    /// Room for searches of up to `beams` beams over `slots` slots and `tokens` encoder tokens.
    pub fn state(
        &self,
        config: &ModelConfig,
        tokens: usize,
        beams: usize,
        slots: usize,
        precision: Precision,
    ) -> DecoderState {
        let Shape { d, heads, .. } = self.shape;
        let positions = slots * config.poi_code_layers + 1;
        let blocks = self.blocks.len();
        DecoderState {
            cross: (0..blocks)
                .map(|_| KeyValues::with_capacity(tokens, heads, d / heads, precision))
                .collect(),
            caches: (0..blocks).map(|_| SelfCache::new(positions, beams, d)).collect(),
            hidden: vec![0.0; positions * beams * d],
            logits: vec![0.0; beams * config.codebook_size],
            ancestors: vec![0; beams * positions],
            x: vec![0.0; beams * d],
            slots: beams,
            positions,
        }
    }

    /// Packs the keys and values of the encoder output `states` [n, d] of every block.
    pub fn begin(&self, exec: Exec, states: &[f32], projected: &mut [f32], state: &mut DecoderState) {
        for (block, keys) in self.blocks.iter().zip(&mut state.cross) {
            block.fill_cross(exec, self.shape, states, projected, keys);
        }
    }

    /// Runs `rows` at `position`: their hidden states are kept in `state`. Returns the number of rows.
    #[allow(clippy::too_many_arguments)]
    pub fn step<'r>(
        &self,
        exec: Exec,
        config: &ModelConfig,
        embeddings: &Embeddings,
        rotary: &Rotary,
        position: usize,
        rows: impl Iterator<Item = Row<'r>>,
        state: &mut DecoderState,
        scratch: &mut Scratch,
    ) -> usize {
        let d = self.shape.d;
        let m = state.enter(config, embeddings, position, rows, d);
        let x = &mut state.x[..m * d];
        for ((block, cross), cache) in self.blocks.iter().zip(&state.cross).zip(&mut state.caches) {
            let step = Step {
                position,
                rotary,
                cross,
                cache,
                ancestors: &state.ancestors,
                ancestor_stride: state.positions,
            };
            block.run(exec, self.shape, x, m, step, scratch);
        }
        let at = position * state.slots * d;
        rms_norm(exec, x, m, &self.norm, self.shape.eps, &mut state.hidden[at..at + m * d]);
        m
    }

    /// The logits [m, W] of the code that follows position `position`, from the hidden states of its `m` rows.
    pub fn logits<'s>(
        &self,
        exec: Exec,
        config: &ModelConfig,
        position: usize,
        m: usize,
        state: &'s mut DecoderState,
    ) -> &'s [f32] {
        let at = position * state.slots * self.shape.d;
        let hidden = &state.hidden[at..at + m * self.shape.d];
        let logits = &mut state.logits[..m * config.codebook_size];
        linear(exec, hidden, m, &self.heads[position % config.poi_code_layers], Epilogue::Store, logits);
        logits
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(DecoderBlock::bytes).sum::<usize>();
        blocks + self.norm.len() * 4 + self.heads.iter().map(Linear::bytes).sum::<usize>()
    }
}

impl DecoderState {
    /// Writes the rows' input vectors and ancestors; returns the number of rows.
    fn enter<'r>(
        &mut self,
        config: &ModelConfig,
        embeddings: &Embeddings,
        position: usize,
        rows: impl Iterator<Item = Row<'r>>,
        d: usize,
    ) -> usize {
        let mut m = 0;
        for row in rows {
            let token = match row.last_code {
                None => BOI,
                Some(code) => {
                    config.poi_token((position + config.poi_code_layers - 1) % config.poi_code_layers, code)
                }
            };
            self.x[m * d..(m + 1) * d].copy_from_slice(embeddings.token(token));
            let ancestors = &mut self.ancestors[m * self.positions..][..position + 1];
            ancestors[..position].copy_from_slice(row.path);
            ancestors[position] = m as u32;
            m += 1;
        }
        m
    }

    /// The hidden state of row `row` at `position`, `[d]`.
    pub fn hidden(&self, position: usize, row: u32, d: usize) -> &[f32] {
        let at = (position * self.slots + row as usize) * d;
        &self.hidden[at..at + d]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let floats = self.hidden.len() + self.logits.len() + self.ancestors.len() + self.x.len();
        let keys = self.cross.iter().map(KeyValues::bytes).sum::<usize>();
        floats * 4 + keys + self.caches.iter().map(SelfCache::bytes).sum::<usize>()
    }
}
