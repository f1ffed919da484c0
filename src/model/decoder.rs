//! The POI decoder (Eq. 15): one position of all beams at a time.

use super::blocks::{DecoderBlock, Packer, Scratch, SelfCache, Shape, Step};
use super::config::{BOI, ModelConfig};
use super::encoder::Embeddings;
use crate::cpu::attention::KeyValues;
use crate::cpu::linear::{Epilogue, Linear, linear};
use crate::cpu::norm::rms_norm;
use crate::cpu::rotary::Rotary;
use crate::cpu::{Exec, Isa, Precision};
use crate::decode::search::Row;

/// The POI decoder's weights.
pub struct Decoder {
    shape: Shape,
    blocks: Vec<DecoderBlock>,
    norm: Vec<f32>,
    /// One head per code layer, [W, d].
    heads: Vec<Linear>,
    /// Queries, keys and values of the first block for every input token: `[BOI]`, then the POI codes,
    /// [1 + C_p W, 3d]. They depend on the token alone, so no step computes them. None where they would take more
    /// than [`MOST_TABLE_BYTES`].
    first_qkv: Option<Vec<f32>>,
}

/// Most bytes of the first block's table: what it saves is a sixth of a block, and not worth a large codebook's
/// gigabytes.
const MOST_TABLE_BYTES: usize = 64 << 20;

/// Rows of the table that are computed at a time.
const TABLE_ROWS: usize = 256;

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
    /// Rows of the first block's table, [rows].
    tokens: Vec<usize>,
    slots: usize,
    positions: usize,
}

impl Decoder {
    /// Reads `decoder.*` and `poi_head.weight`.
    pub fn load(packer: &Packer, config: &ModelConfig, shape: Shape, embeddings: &Embeddings) -> Self {
        Self::load_with(packer, config, shape, embeddings, MOST_TABLE_BYTES)
    }

    fn load_with(
        packer: &Packer,
        config: &ModelConfig,
        shape: Shape,
        embeddings: &Embeddings,
        most_table_bytes: usize,
    ) -> Self {
        let heads = packer.heads("poi_head.weight", config.codebook_size, shape.d);
        let blocks: Vec<_> = (0..config.decoder_layers)
            .map(|l| DecoderBlock::load(packer, &format!("decoder.{l}"), shape))
            .collect();
        let first_qkv = first_qkv(&blocks[0], config, shape, embeddings, most_table_bytes);
        Self { shape, blocks, norm: packer.vector("decoder.norm.weight"), heads, first_qkv }
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
            tokens: vec![0; beams],
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
        for (l, ((block, cross), cache)) in
            self.blocks.iter().zip(&state.cross).zip(&mut state.caches).enumerate()
        {
            match &self.first_qkv {
                Some(table) if l == 0 => {
                    for (qkv, &token) in scratch.qkv.chunks_exact_mut(3 * d).zip(&state.tokens[..m]) {
                        qkv.copy_from_slice(&table[token * 3 * d..(token + 1) * 3 * d]);
                    }
                }
                _ => block.project(exec, self.shape, x, m, scratch),
            }
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
        let table = self.first_qkv.as_ref().map_or(0, |table| table.len() * 4);
        blocks + table + self.norm.len() * 4 + self.heads.iter().map(Linear::bytes).sum::<usize>()
    }
}

/// The row of the first block's table that holds an input token.
fn table_row(config: &ModelConfig, token: usize) -> usize {
    if token == BOI { 0 } else { token - config.poi_token(0, 0) + 1 }
}

/// See [`Decoder::first_qkv`]. A product's rows do not depend on one another, so these are the bits that a step would
/// compute.
fn first_qkv(
    block: &DecoderBlock,
    config: &ModelConfig,
    shape: Shape,
    embeddings: &Embeddings,
    most_table_bytes: usize,
) -> Option<Vec<f32>> {
    let (d, codes) = (shape.d, config.poi_code_layers * config.codebook_size);
    let len = (1 + codes) * 3 * d;
    if len * size_of::<f32>() > most_table_bytes {
        return None;
    }
    let exec = Exec { isa: Isa::detect(), team: None };
    let mut scratch = Scratch::new(TABLE_ROWS, shape, 1);
    let mut table = Vec::with_capacity(len);
    let first_code = config.poi_token(0, 0);
    let inputs = [embeddings.token(BOI), &embeddings.tokens[first_code * d..(first_code + codes) * d]];
    for x in inputs.into_iter().flat_map(|tokens| tokens.chunks(TABLE_ROWS * d)) {
        let m = x.len() / d;
        block.project(exec, shape, x, m, &mut scratch);
        table.extend_from_slice(&scratch.qkv[..m * 3 * d]);
    }
    Some(table)
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
            self.tokens[m] = table_row(config, token);
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
        floats * 4
            + self.tokens.len() * size_of::<usize>()
            + keys
            + self.caches.iter().map(SelfCache::bytes).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::ModelSize;
    use crate::model::init::init_model;
    use crate::model::weights::WeightType;
    use crate::model::{open, rotary};

    /// The logits of some rows at three positions, with a first block's table of at most so many bytes.
    fn logits(dir: &std::path::Path, precision: Precision, most_table_bytes: usize) -> Vec<f32> {
        let (config, weights) = open(dir).unwrap();
        let packer = &Packer { weights: &weights, precision };
        let (shape, rotary) = (Shape::of(&config), rotary(&config));
        let embeddings = Embeddings::load(packer, &config);
        let decoder = Decoder::load_with(packer, &config, shape, &embeddings, most_table_bytes);
        assert_eq!(decoder.first_qkv.is_some(), most_table_bytes > 0);
        let exec = Exec { isa: Isa::detect(), team: None };
        let mut state = decoder.state(&config, 5, 3, 2, precision);
        let mut scratch = Scratch::new(8, shape, 1);
        let states: Vec<f32> = (0..5 * shape.d).map(|i| (i % 13) as f32 / 7.0 - 0.9).collect();
        decoder.begin(exec, &states, &mut vec![0.0; 5 * 3 * shape.d], &mut state);
        let mut out = Vec::new();
        let paths: [&[u32]; 3] = [&[], &[0], &[0, 1]];
        for (position, path) in paths.into_iter().enumerate() {
            let codes: &[Option<u16>] = if position == 0 { &[None] } else { &[Some(2), Some(0), Some(6)] };
            let rows = codes.iter().map(|&last_code| Row { last_code, path });
            let state = &mut state;
            let m = decoder.step(exec, &config, &embeddings, &rotary, position, rows, state, &mut scratch);
            out.extend_from_slice(decoder.logits(exec, &config, position, m, state));
        }
        out
    }

    #[test]
    fn the_first_blocks_table_changes_no_bit() {
        let dir = tempfile::tempdir().unwrap();
        let config = ModelConfig { codebook_size: 7, ..ModelConfig::of_size(ModelSize::Tiny) };
        init_model(dir.path(), &config, WeightType::F32, 3).unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            let [with, without] = [usize::MAX, 0].map(|most| logits(dir.path(), precision, most));
            assert_eq!(with, without);
        }
    }
}
