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

/// Keys and values of a block's encoder output, one for each block: what every row of a request reads.
pub type CrossKeys = Vec<KeyValues>;

/// Keys, values and hidden states of searches in progress.
pub struct DecoderRows {
    /// Per block, of the positions so far.
    caches: Vec<SelfCache>,
    /// Final hidden states h_t, [position][row][d].
    hidden: Vec<f32>,
    /// The newest logits, [rows run at once, W].
    logits: Vec<f32>,
    /// [rows run at once][positions]
    ancestors: Vec<u32>,
    x: Vec<f32>,
    /// Rows of the first block's table, [rows run at once].
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

    /// Room for the encoder output of up to `tokens` tokens.
    pub fn cross_keys(&self, tokens: usize, precision: Precision) -> CrossKeys {
        let Shape { d, heads, .. } = self.shape;
        let keys = |_| KeyValues::with_capacity(tokens, heads, d / heads, precision);
        self.blocks.iter().map(keys).collect()
    }

    /// Room for `rows` rows at each position of `slots` slots, of which up to `at_once` are run at once.
    pub fn rows(&self, config: &ModelConfig, rows: usize, at_once: usize, slots: usize) -> DecoderRows {
        let d = self.shape.d;
        let positions = slots * config.poi_code_layers + 1;
        DecoderRows {
            caches: self.blocks.iter().map(|_| SelfCache::new(positions, rows, d)).collect(),
            hidden: vec![0.0; positions * rows * d],
            logits: vec![0.0; at_once * config.codebook_size],
            ancestors: vec![0; at_once * positions],
            x: vec![0.0; at_once * d],
            tokens: vec![0; at_once],
            slots: rows,
            positions,
        }
    }

    /// Packs the keys and values of the encoder output `states` [n, d] of every block.
    pub fn begin(&self, exec: Exec, states: &[f32], projected: &mut [f32], cross: &mut CrossKeys) {
        for (block, keys) in self.blocks.iter().zip(cross) {
            block.fill_cross(exec, self.shape, states, projected, keys);
        }
    }

    /// Runs `new` rows at `position`, behind the `first` that are there: what they come to is kept in `rows`. Returns
    /// their number.
    #[allow(clippy::too_many_arguments)]
    pub fn step<'r>(
        &self,
        exec: Exec,
        config: &ModelConfig,
        embeddings: &Embeddings,
        rotary: &Rotary,
        position: usize,
        first: usize,
        new: impl Iterator<Item = Row<'r>>,
        cross: &CrossKeys,
        rows: &mut DecoderRows,
        scratch: &mut Scratch,
    ) -> usize {
        let d = self.shape.d;
        let m = rows.enter(config, embeddings, position, first, new, d);
        let x = &mut rows.x[..m * d];
        for (l, ((block, cross), cache)) in self.blocks.iter().zip(cross).zip(&mut rows.caches).enumerate() {
            match &self.first_qkv {
                Some(table) if l == 0 => {
                    for (qkv, &token) in scratch.qkv.chunks_exact_mut(3 * d).zip(&rows.tokens[..m]) {
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
                first,
                ancestors: &rows.ancestors,
                ancestor_stride: rows.positions,
            };
            block.run(exec, self.shape, x, m, step, scratch);
        }
        let at = (position * rows.slots + first) * d;
        rms_norm(exec, x, m, &self.norm, self.shape.eps, &mut rows.hidden[at..at + m * d]);
        m
    }

    /// The logits [m, W] of the codes that follow the `m` rows from `first` on at `position`, from their hidden states.
    pub fn logits<'s>(
        &self,
        exec: Exec,
        config: &ModelConfig,
        position: usize,
        first: usize,
        m: usize,
        rows: &'s mut DecoderRows,
    ) -> &'s [f32] {
        let at = (position * rows.slots + first) * self.shape.d;
        let hidden = &rows.hidden[at..at + m * self.shape.d];
        let logits = &mut rows.logits[..m * config.codebook_size];
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

impl DecoderRows {
    /// Writes the rows' input vectors and ancestors; returns the number of rows.
    fn enter<'r>(
        &mut self,
        config: &ModelConfig,
        embeddings: &Embeddings,
        position: usize,
        first: usize,
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
            ancestors[position] = (first + m) as u32;
            m += 1;
        }
        m
    }

    /// Takes over the first `count` rows that `other` holds at `position`.
    pub fn adopt(&mut self, other: &Self, position: usize, count: usize, d: usize) {
        let (to, from) = (position * self.slots * d, position * other.slots * d);
        let rows = |start: usize| start..start + count * d;
        self.hidden[rows(to)].copy_from_slice(&other.hidden[rows(from)]);
        for (cache, other) in self.caches.iter_mut().zip(&other.caches) {
            cache.adopt(other, position, count);
        }
    }

    /// The hidden state of row `row` at `position`, `[d]`.
    pub fn hidden(&self, position: usize, row: u32, d: usize) -> &[f32] {
        let at = (position * self.slots + row as usize) * d;
        &self.hidden[at..at + d]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let floats = self.hidden.len() + self.logits.len() + self.ancestors.len() + self.x.len();
        let caches = self.caches.iter().map(SelfCache::bytes).sum::<usize>();
        floats * 4 + self.tokens.len() * size_of::<usize>() + caches
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
        let mut cross = decoder.cross_keys(5, precision);
        let mut state = decoder.rows(&config, 3, 3, 2);
        let mut scratch = Scratch::new(8, shape, 1);
        let states: Vec<f32> = (0..5 * shape.d).map(|i| (i % 13) as f32 / 7.0 - 0.9).collect();
        decoder.begin(exec, &states, &mut vec![0.0; 5 * 3 * shape.d], &mut cross);
        let mut out = Vec::new();
        let paths: [&[u32]; 3] = [&[], &[0], &[0, 1]];
        for (position, path) in paths.into_iter().enumerate() {
            let codes: &[Option<u16>] = if position == 0 { &[None] } else { &[Some(2), Some(0), Some(6)] };
            let rows = codes.iter().map(|&last_code| Row { last_code, path });
            let (state, scratch) = (&mut state, &mut scratch);
            let m =
                decoder.step(exec, &config, &embeddings, &rotary, position, 0, rows, &cross, state, scratch);
            out.extend_from_slice(decoder.logits(exec, &config, position, 0, m, state));
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
