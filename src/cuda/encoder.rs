//! The encoder (Eq. 14) on the GPU: histories of several requests to states S_e, and the keys and values that every
//! decoder block reads of them.

use std::sync::Arc;

use half::bf16;

use super::beam_attention::CrossKeys;
use super::blocks::Rows;
use super::choice::{Choice, Code};
use super::embed::{Features, embeddings};
use super::encoder_block::{EncoderBlock, EncoderScratch, Ragged};
use super::encoder_block_hopper::{FusedBlock, NextNorm};
use super::launch::{Buffer, Ptr, PtrMut, Stream};
use super::linear::Output;
use super::norm::norm;
use super::segment_mean;
use super::weights::{Matrix, Upload};
use crate::error::DeviceError;
use crate::model::blocks::Shape;
use crate::model::config::{CTX, ModelConfig, SEP};
use crate::model::encoder::History;

/// The encoder's weights.
#[derive(Debug)]
pub struct Encoder {
    shape: Shape,
    /// The tables of all features, one below the other.
    features: Buffer<bf16>,
    /// First row in `features` of each context feature, then of each behaviour feature.
    context_rows: Vec<u32>,
    behavior_rows: Vec<u32>,
    blocks: Blocks,
    norm: Buffer<f32>,
    /// Keys and values for each decoder block, those of the creative decoder last: [blocks * 2 d, d].
    cross: Matrix,
    /// Whether decoders read whole tiles of keys and values, past a batch's rows.
    cross_in_tiles: bool,
}

/// The blocks, by one of two sequences of kernels.
#[derive(Debug)]
enum Blocks {
    Portable(Vec<EncoderBlock>),
    Fused(Vec<FusedBlock>),
}

impl Blocks {
    fn load(upload: Upload, choice: Choice, layers: usize, shape: Shape) -> Result<Self, DeviceError> {
        let prefixes = (0..layers).map(|l| format!("encoder.{l}"));
        let attention = choice.encoder_attention;
        match choice.encoder_fusion {
            Code::Portable => {
                let blocks = prefixes.map(|prefix| EncoderBlock::load(upload, attention, &prefix, shape));
                Ok(Self::Portable(blocks.collect::<Result<_, _>>()?))
            }
            Code::Hopper => {
                let blocks = prefixes.map(|prefix| FusedBlock::load(upload, attention, &prefix, shape));
                Ok(Self::Fused(blocks.collect::<Result<_, _>>()?))
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Portable(blocks) => blocks.iter().map(EncoderBlock::bytes).sum(),
            Self::Fused(blocks) => blocks.iter().map(FusedBlock::bytes).sum(),
        }
    }
}

/// Histories as the kernels read them, and what becomes of them.
#[derive(Debug)]
pub struct EncoderState {
    /// Rows of each request, `[requests + 1]`.
    pub offsets: Buffer<u32>,
    positions: Buffer<u32>,
    tokens: Buffer<u32>,
    feature_start: Buffer<u32>,
    feature_row: Buffer<u32>,
    x: Buffer<f32>,
    /// S_e, [rows, d].
    pub states: Buffer<f32>,
    rounded: Buffer<bf16>,
    /// Mean of S_e over each request's rows, [requests, d].
    pub mean: Buffer<f32>,
    /// [rows, blocks * 2 d]
    cross: Buffer<bf16>,
    scratch: EncoderScratch,
    /// First row of each request, and their end.
    pub rows: Vec<u32>,
}

impl Encoder {
    /// Uploads the feature tables, `encoder.*`, and the keys' and values' projections of all decoder blocks. `choice`
    /// names the kernels of its blocks and of those that read these keys.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn load(
        upload: Upload,
        choice: Choice,
        config: &ModelConfig,
        shape: Shape,
    ) -> Result<Self, DeviceError> {
        let mut tables = Vec::new();
        let mut rows = |kind: &str, names: &std::collections::BTreeMap<String, usize>| -> Vec<u32> {
            let mut first = Vec::new();
            for name in names.keys() {
                first.push((tables.len() / shape.d) as u32);
                let table = upload.weights.f32(&format!("{kind}.{name}.weight"));
                tables.extend(table.iter().map(|&x| bf16::from_f32(x)));
            }
            first
        };
        let context_rows = rows("context_features", &config.context_features);
        let behavior_rows = rows("behavior_features", &config.behavior_features);
        let decoders = (0..config.decoder_layers).map(|l| format!("decoder.{l}"));
        let cross: Vec<String> = decoders
            .chain(["creative.block".into()])
            .flat_map(|block| ["k", "v"].map(|p| format!("{block}.cross_attn.{p}_proj.weight")))
            .collect();
        Ok(Self {
            shape,
            features: Buffer::from_slice(upload.stream, &tables)?,
            context_rows,
            behavior_rows,
            blocks: Blocks::load(upload, choice, config.encoder_layers, shape)?,
            norm: upload.vector("encoder.norm.weight")?,
            cross: upload.matrix(&cross, shape.d)?,
            cross_in_tiles: choice.cross_attention == Code::Hopper,
        })
    }

    /// Room for `requests` requests of up to `tokens` tokens and `features` feature values each.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn state(
        &self,
        stream: &Arc<dyn Stream>,
        requests: usize,
        tokens: usize,
        features: usize,
    ) -> Result<EncoderState, DeviceError> {
        let (rows, d) = (requests * tokens, self.shape.d);
        // What was never written is read by nobody, but for whole tiles.
        let cross = if self.cross_in_tiles { Buffer::zeroed } else { Buffer::new };
        Ok(EncoderState {
            offsets: Buffer::new(stream, requests + 1)?,
            positions: Buffer::new(stream, rows)?,
            tokens: Buffer::new(stream, rows)?,
            feature_start: Buffer::new(stream, rows + 1)?,
            feature_row: Buffer::new(stream, requests * features)?,
            x: Buffer::new(stream, rows * d)?,
            states: Buffer::new(stream, rows * d)?,
            rounded: Buffer::new(stream, rows * d)?,
            mean: Buffer::new(stream, requests * d)?,
            cross: cross(stream, rows * self.cross.out_size())?,
            scratch: EncoderScratch::new(stream, rows, self.shape)?,
            rows: Vec::with_capacity(requests + 1),
        })
    }

    /// Encodes `histories`, no more and no longer than `state` has room for. `table` is `embed.weight`, `angles` the
    /// rotary table.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn run(
        &self,
        stream: &dyn Stream,
        config: &ModelConfig,
        table: Ptr<bf16>,
        angles: Ptr<f32>,
        histories: &[&History],
        state: &mut EncoderState,
    ) -> Result<(), DeviceError> {
        let input = self.input(config, histories);
        state.upload(&input)?;
        let d = self.shape.d;
        let (m, requests) = (input.tokens.len(), histories.len());
        let features = Features {
            table: self.features.ptr(),
            start: state.feature_start.ptr(),
            row: state.feature_row.ptr(),
        };
        embeddings(stream, table, state.tokens.ptr(), Some(features), m, d, state.x.ptr_mut())?;
        let rows = Rows { shape: self.shape, angles, x: state.x.ptr_mut(), m };
        let longest = input.offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as usize;
        let ragged =
            Ragged { offsets: state.offsets.ptr(), positions: state.positions.ptr(), requests, longest };
        match &self.blocks {
            Blocks::Portable(blocks) => self.run_portable(stream, blocks, rows, ragged, state)?,
            Blocks::Fused(blocks) => self.run_fused(stream, blocks, rows, ragged, state)?,
        }
        segment_mean::run(stream, &state.states, &state.offsets, requests, d, &mut state.mean)?;
        self.cross.multiply(stream, state.rounded.ptr(), m, Output::Bf16(state.cross.ptr_mut()))?;
        state.rows = input.offsets;
        Ok(())
    }

    /// From the rows of x to the states, and to them rounded.
    fn run_portable(
        &self,
        stream: &dyn Stream,
        blocks: &[EncoderBlock],
        rows: Rows,
        ragged: Ragged,
        state: &mut EncoderState,
    ) -> Result<(), DeviceError> {
        for block in blocks {
            block.run(stream, rows, ragged, &mut state.scratch)?;
        }
        let Shape { d, eps, .. } = self.shape;
        let (states, rounded) = (state.states.ptr_mut(), state.rounded.ptr_mut());
        norm(stream, rows.x.read(), self.norm.ptr(), rows.m, d, eps, states, rounded)
    }

    /// The same, where the norm behind a block is part of it.
    fn run_fused(
        &self,
        stream: &dyn Stream,
        blocks: &[FusedBlock],
        rows: Rows,
        ragged: Ragged,
        state: &mut EncoderState,
    ) -> Result<(), DeviceError> {
        let Shape { d, eps, .. } = self.shape;
        let (states, rounded) = (state.states.ptr_mut(), state.rounded.ptr_mut());
        let inner = blocks.iter().map(|block| NextNorm { weight: block.norm(), normed: PtrMut::NULL });
        let mut norms = inner.chain([NextNorm { weight: self.norm.ptr(), normed: states }]);
        if let Some(NextNorm { weight, normed }) = norms.next() {
            norm(stream, rows.x.read(), weight, rows.m, d, eps, normed, rounded)?;
        }
        for (block, next) in blocks.iter().zip(norms) {
            block.run(stream, rows, ragged, next, rounded, &mut state.scratch)?;
        }
        Ok(())
    }

    /// Keys and values of decoder block `block`, the creative decoder's being the last.
    pub fn cross(&self, state: &EncoderState, block: usize) -> CrossKeys {
        CrossKeys {
            keys: state.cross.at(block * 2 * self.shape.d),
            stride: self.cross.out_size(),
            rows: state.cross.len() / self.cross.out_size(),
            offsets: state.offsets.ptr(),
        }
    }

    fn input(&self, config: &ModelConfig, histories: &[&History]) -> Input {
        let mut input = Input { offsets: vec![0], feature_start: vec![0], ..Input::default() };
        for history in histories {
            let first = input.tokens.len();
            input.put(CTX, &self.context_rows, &history.context);
            for entry in &history.behaviors {
                input.put(SEP, &self.behavior_rows, &entry.features);
                for (layer, &code) in entry.codes.iter().enumerate() {
                    input.put(config.poi_token(layer, code), &[], &[]);
                }
                for (layer, &code) in entry.creative_codes.iter().enumerate() {
                    input.put(config.creative_token(layer, code), &[], &[]);
                }
            }
            input.positions.extend(0..(input.tokens.len() - first) as u32);
            input.offsets.push(input.tokens.len() as u32);
        }
        input
    }

    /// Bytes of the weights on the device.
    pub fn bytes(&self) -> usize {
        self.features.bytes() + self.blocks.bytes() + self.norm.bytes() + self.cross.bytes()
    }
}

/// What is uploaded of some histories.
#[derive(Default)]
struct Input {
    offsets: Vec<u32>,
    positions: Vec<u32>,
    tokens: Vec<u32>,
    feature_start: Vec<u32>,
    feature_row: Vec<u32>,
}

impl Input {
    /// Adds a token and its features: (index of the table, value), tables beginning at `first_rows`.
    fn put(&mut self, token: usize, first_rows: &[u32], features: &[(usize, u32)]) {
        self.tokens.push(token as u32);
        self.feature_row.extend(features.iter().map(|&(table, value)| first_rows[table] + value));
        self.feature_start.push(self.feature_row.len() as u32);
    }
}

impl EncoderState {
    fn upload(&mut self, input: &Input) -> Result<(), DeviceError> {
        self.offsets.upload(0, &input.offsets)?;
        self.positions.upload(0, &input.positions)?;
        self.tokens.upload(0, &input.tokens)?;
        self.feature_start.upload(0, &input.feature_start)?;
        self.feature_row.upload(0, &input.feature_row)
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let inputs = [&self.offsets, &self.positions, &self.tokens, &self.feature_start, &self.feature_row];
        let floats = [&self.x, &self.states, &self.mean];
        inputs.iter().map(|b| b.bytes()).sum::<usize>()
            + floats.iter().map(|b| b.bytes()).sum::<usize>()
            + self.rounded.bytes()
            + self.cross.bytes()
            + self.scratch.bytes()
    }
}
