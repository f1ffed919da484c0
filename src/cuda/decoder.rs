//! The POI decoder (Eq. 15) on the GPU: one position of all beams of all requests at a time.

use std::sync::Arc;

use bytemuck::Zeroable;
use half::bf16;

use super::beam_attention::{Beams, CrossKeys};
use super::beam_self_attention::SelfCache;
use super::blocks::{Context, DecoderArrays, DecoderBlock, DecoderScratch, Rows};
use super::choice::{Choice, SearchForm};
use super::decode_step::{self, DecodeStep, Layer, MOST_LAYERS, Team, decode_step};
use super::embed::embeddings;
use super::encoder::{Encoder, EncoderState};
use super::launch::{Buffer, Ptr, PtrMut, Stream};
use super::norm_linear::{NormedRows, Projected, norm_linear};
use super::persistent_search::{self, PersistentSearch, persistent_search};
use super::search::{Head, Search};
use super::tiling::size;
use super::weights::{Matrix, Upload};
use crate::error::DeviceError;
use crate::model::blocks::Shape;
use crate::model::config::{BOI, ModelConfig, SPECIAL_TOKENS};

/// The POI decoder's weights.
#[derive(Debug)]
pub struct Decoder {
    shape: Shape,
    blocks: Vec<DecoderBlock>,
    norm: Buffer<f32>,
    /// The heads of all code layers, one below the other: [C_p W, d].
    heads: Matrix,
    form: SearchForm,
}

/// Keys, values and hidden states of the searches in progress. Row r of request i is row `i * beams + r`.
#[derive(Debug)]
pub struct DecoderState {
    x: Buffer<f32>,
    /// Of each block, `[positions][rows][d]`.
    keys: Vec<Buffer<f32>>,
    values: Vec<Buffer<f32>>,
    /// Final hidden states h_t, `[position][rows][d]`.
    pub hidden: Buffer<f32>,
    /// The newest logits, [rows, W].
    pub logits: Buffer<f32>,
    scratch: DecoderScratch,
    positions: usize,
    /// The blocks that run a position in one launch; none: a launch for each operation. The bits are the same.
    pub team: Option<Team>,
    /// The barrier of a team.
    barrier: Buffer<u32>,
}

/// The rows of a step.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Requests, rows of each, and the keys of the one with most.
    pub beams: Beams,
    /// The position, here and as a word of device memory.
    pub position: usize,
    /// See `position`.
    pub newest: Ptr<u32>,
    /// Input token of each row.
    pub tokens: Ptr<u32>,
    /// The row of its request that ran a row's prefix at each earlier position: [rows, positions].
    pub ancestors: Ptr<u32>,
}

impl Step {
    fn rows(&self) -> usize {
        self.beams.requests * self.beams.beams
    }
}

impl Decoder {
    /// Uploads `decoder.*`, but for the keys and values of cross-attention, and `poi_head.weight`, to be run by the kernels
    /// of `choice`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn load(
        upload: Upload,
        choice: Choice,
        config: &ModelConfig,
        shape: Shape,
    ) -> Result<Self, DeviceError> {
        let block = |l| DecoderBlock::load(upload, choice.cross_attention, &format!("decoder.{l}"), shape);
        Ok(Self {
            shape,
            form: choice.search,
            blocks: (0..config.decoder_layers).map(block).collect::<Result<_, _>>()?,
            norm: upload.vector("decoder.norm.weight")?,
            heads: upload.matrix(&["poi_head.weight"], shape.d)?,
        })
    }

    /// Room for searches of up to `beams` over `positions` positions.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], [`DeviceError::Failed`].
    pub fn state(
        &self,
        stream: &Arc<dyn Stream>,
        config: &ModelConfig,
        beams: Beams,
        positions: usize,
    ) -> Result<DecoderState, DeviceError> {
        let (rows, d) = (beams.requests * beams.beams, self.shape.d);
        let caches = || -> Result<Vec<_>, DeviceError> {
            self.blocks.iter().map(|_| Buffer::new(stream, positions * rows * d)).collect()
        };
        Ok(DecoderState {
            x: Buffer::new(stream, rows * d)?,
            keys: caches()?,
            values: caches()?,
            hidden: Buffer::new(stream, positions * rows * d)?,
            logits: Buffer::new(stream, rows * config.codebook_size)?,
            scratch: DecoderScratch::new(stream, beams, self.shape)?,
            positions,
            team: self.team(&**stream)?,
            barrier: Buffer::zeroed(stream, 2)?,
        })
    }

    /// The team that the form of the search asks for, where it fits on the device.
    fn team(&self, stream: &dyn Stream) -> Result<Option<Team>, DeviceError> {
        let (d, head_size) = (self.shape.d, self.shape.head_size());
        match self.form {
            SearchForm::Graph => Ok(None),
            SearchForm::Cluster(most) => decode_step::cluster(stream, most, d, head_size),
            SearchForm::Grid => decode_step::grid(stream, d, head_size),
        }
    }

    /// Runs all rows at a position: their hidden states h_t and, if `head` names a code layer, its logits are left in
    /// `state`.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    #[allow(clippy::too_many_arguments)]
    pub fn step(
        &self,
        stream: &dyn Stream,
        config: &ModelConfig,
        table: Ptr<bf16>,
        angles: Ptr<f32>,
        encoder: (&Encoder, &EncoderState),
        step: Step,
        head: Option<usize>,
        state: &mut DecoderState,
    ) -> Result<(), DeviceError> {
        if let Some(team) = state.team {
            let arguments = self.arguments(config, table, angles, encoder, step, head, state);
            return decode_step(stream, team, self.shape.head_size(), arguments);
        }
        let Some(layer) = head else {
            self.run(stream, table, angles, encoder, step, state)?;
            let (NormedRows { x, weight, m, d, eps }, hidden) = self.normed(&step, state);
            return super::norm::norm(stream, x, weight, m, d, eps, hidden, PtrMut::NULL);
        };
        let Head { rows, w, hidden } =
            self.headless_step(stream, config, table, angles, encoder, step, layer, state)?;
        let logits = Projected::F32(state.logits.ptr_mut());
        norm_linear(stream, rows, w, config.codebook_size, None, hidden, logits)
    }

    /// [`Decoder::step`] without its head, which it returns, that of code layer `layer`: [`Search::step`] runs it.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    ///
    /// [`Search::step`]: super::search::Search::step
    #[allow(clippy::too_many_arguments)]
    pub fn headless_step(
        &self,
        stream: &dyn Stream,
        config: &ModelConfig,
        table: Ptr<bf16>,
        angles: Ptr<f32>,
        encoder: (&Encoder, &EncoderState),
        step: Step,
        layer: usize,
        state: &mut DecoderState,
    ) -> Result<Head, DeviceError> {
        self.run(stream, table, angles, encoder, step, state)?;
        let (rows, hidden) = self.normed(&step, state);
        Ok(Head { rows, w: self.heads.at(layer * config.codebook_size), hidden })
    }

    /// The rows that the last norm takes, and where it leaves them.
    fn normed(&self, step: &Step, state: &mut DecoderState) -> (NormedRows, PtrMut<f32>) {
        let (Shape { d, eps, .. }, m) = (self.shape, step.rows());
        let rows = NormedRows { x: state.x.ptr(), weight: self.norm.ptr(), m, d, eps };
        (rows, state.hidden.at_mut(step.position * m * d))
    }

    /// Runs all rows through the blocks.
    fn run(
        &self,
        stream: &dyn Stream,
        table: Ptr<bf16>,
        angles: Ptr<f32>,
        encoder: (&Encoder, &EncoderState),
        step: Step,
        state: &mut DecoderState,
    ) -> Result<(), DeviceError> {
        let (Shape { d, .. }, m) = (self.shape, step.rows());
        embeddings(stream, table, step.tokens, None, m, d, state.x.ptr_mut())?;
        let rows = Rows { shape: self.shape, angles, x: state.x.ptr_mut(), m };
        for (l, block) in self.blocks.iter().enumerate() {
            let cache = state.cache(l, step);
            let cross = encoder.0.cross(encoder.1, l);
            block.run(stream, rows, Context { beams: step.beams, cache, cross }, &mut state.scratch)?;
        }
        Ok(())
    }

    /// Runs a search of `steps` steps that has begun, all positions from 0 to `steps` in one launch. Where `state` has no
    /// team, or the team takes fewer beams, nothing is run and the answer is false.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    #[allow(clippy::too_many_arguments)]
    pub fn search(
        &self,
        stream: &dyn Stream,
        config: &ModelConfig,
        table: Ptr<bf16>,
        angles: Ptr<f32>,
        encoder: (&Encoder, &EncoderState),
        beams: Beams,
        steps: usize,
        search: &mut Search,
        state: &mut DecoderState,
    ) -> Result<bool, DeviceError> {
        let Some(team) = state.team.filter(|_| beams.beams <= persistent_search::MOST_BEAMS) else {
            return Ok(false);
        };
        let step = Step {
            beams,
            position: 0,
            newest: search.position(),
            tokens: search.tokens(),
            ancestors: search.ancestors(),
        };
        let all = PersistentSearch {
            decode: self.arguments(config, table, angles, encoder, step, Some(0), state),
            tables: search.arrays(),
            steps: steps as u64,
            layers: size(config.poi_code_layers),
            positions: size(search.positions()),
            first_code_token: size(SPECIAL_TOKENS.len()),
            boi: size(BOI),
        };
        persistent_search(stream, team, self.shape.head_size(), all).map(|()| true)
    }

    #[allow(clippy::too_many_arguments)]
    fn arguments(
        &self,
        config: &ModelConfig,
        table: Ptr<bf16>,
        angles: Ptr<f32>,
        encoder: (&Encoder, &EncoderState),
        step: Step,
        head: Option<usize>,
        state: &mut DecoderState,
    ) -> DecodeStep {
        let Step { beams, position, newest, tokens, ancestors } = step;
        let (rows, codes) = (beams.requests * beams.beams, config.codebook_size);
        let mut layers = [Layer::zeroed(); MOST_LAYERS];
        for (l, (layer, block)) in layers.iter_mut().zip(&self.blocks).enumerate() {
            *layer = block.layer(state.cache(l, step), encoder.0.cross(encoder.1, l));
        }
        let CrossKeys { offsets, stride, .. } = encoder.0.cross(encoder.1, 0);
        let DecoderArrays { qkv, q, attended, hidden, partials, counters } = state.scratch.arrays(beams);
        DecodeStep {
            layers,
            table,
            angles,
            norm: self.norm.ptr(),
            head: head.map_or(Ptr::NULL, |layer| self.heads.at(layer * codes)),
            tokens,
            ancestors,
            newest,
            offsets,
            x: state.x.ptr_mut(),
            qkv,
            q,
            attended,
            hidden,
            partials,
            counters,
            states: state.hidden.at_mut(position * rows * self.shape.d),
            logits: state.logits.ptr_mut(),
            team: state.barrier.ptr_mut(),
            layer_count: size(self.blocks.len()),
            requests: size(beams.requests),
            beams: size(beams.beams),
            heads: size(self.shape.heads),
            ffn: size(self.shape.ffn),
            codes: size(codes),
            positions: size(state.positions),
            cross_stride: size(stride),
            chunks: size(beams.chunks()),
            eps: self.shape.eps,
        }
    }

    /// Bytes of the weights on the device.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(DecoderBlock::bytes).sum::<usize>();
        blocks + self.norm.bytes() + self.heads.bytes()
    }
}

impl DecoderState {
    /// The keys and values of block `l`.
    fn cache(&mut self, l: usize, step: Step) -> SelfCache {
        SelfCache {
            keys: self.keys[l].ptr_mut(),
            values: self.values[l].ptr_mut(),
            ancestors: step.ancestors,
            positions: self.positions,
            newest: step.newest,
        }
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let caches = self.keys.iter().chain(&self.values).map(Buffer::bytes).sum::<usize>();
        let arrays = self.x.bytes() + self.hidden.bytes() + self.logits.bytes() + self.barrier.bytes();
        arrays + caches + self.scratch.bytes()
    }
}
