//! The POI decoder (Eq. 15) on the GPU: one position of all beams of all requests at a time.

use std::sync::Arc;

use half::bf16;

use super::beam_attention::Beams;
use super::beam_self_attention::SelfCache;
use super::blocks::{Context, DecoderBlock, DecoderScratch, Rows};
use super::choice::Code;
use super::embed::embeddings;
use super::encoder::{Encoder, EncoderState};
use super::launch::{Buffer, Ptr, PtrMut, Stream};
use super::norm_linear::{NormedRows, Projected, norm_linear};
use super::weights::{Matrix, Upload};
use crate::error::DeviceError;
use crate::model::blocks::Shape;
use crate::model::config::ModelConfig;

/// The POI decoder's weights.
#[derive(Debug)]
pub struct Decoder {
    shape: Shape,
    blocks: Vec<DecoderBlock>,
    norm: Buffer<f32>,
    /// The heads of all code layers, one below the other: [C_p W, d].
    heads: Matrix,
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

impl Decoder {
    /// Uploads `decoder.*`, but for the keys and values of cross-attention, and `poi_head.weight`. `cross_attention` is the
    /// kernel of its blocks.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn load(
        upload: Upload,
        cross_attention: Code,
        config: &ModelConfig,
        shape: Shape,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            shape,
            blocks: (0..config.decoder_layers)
                .map(|l| DecoderBlock::load(upload, cross_attention, &format!("decoder.{l}"), shape))
                .collect::<Result<_, _>>()?,
            norm: upload.vector("decoder.norm.weight")?,
            heads: upload.matrix(&["poi_head.weight"], shape.d)?,
        })
    }

    /// Room for searches of up to `beams` over `positions` positions.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
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
        })
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
        let Shape { d, eps, .. } = self.shape;
        let m = step.beams.requests * step.beams.beams;
        embeddings(stream, table, step.tokens, None, m, d, state.x.ptr_mut())?;
        let rows = Rows { shape: self.shape, angles, x: state.x.ptr_mut(), m };
        for (l, block) in self.blocks.iter().enumerate() {
            let cache = SelfCache {
                keys: state.keys[l].ptr_mut(),
                values: state.values[l].ptr_mut(),
                ancestors: step.ancestors,
                positions: state.positions,
                newest: step.newest,
            };
            let cross = encoder.0.cross(encoder.1, l);
            block.run(stream, rows, Context { beams: step.beams, cache, cross }, &mut state.scratch)?;
        }
        let normed = NormedRows { x: state.x.ptr(), weight: self.norm.ptr(), m, d, eps };
        let hidden = state.hidden.at_mut(step.position * m * d);
        match head {
            None => super::norm::norm(stream, normed.x, normed.weight, m, d, eps, hidden, PtrMut::NULL),
            Some(layer) => {
                let w = config.codebook_size;
                let logits = Projected::F32(state.logits.ptr_mut());
                norm_linear(stream, normed, self.heads.at(layer * w), w, None, hidden, logits)
            }
        }
    }

    /// Bytes of the weights on the device.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(DecoderBlock::bytes).sum::<usize>();
        blocks + self.norm.bytes() + self.heads.bytes()
    }
}

impl DecoderState {
    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let caches = self.keys.iter().chain(&self.values).map(Buffer::bytes).sum::<usize>();
        self.x.bytes() + caches + self.hidden.bytes() + self.logits.bytes() + self.scratch.bytes()
    }
}
