//! The creative decoder (Eq. 16) on the GPU: which of its creatives each item of each list shows. All items of all
//! requests run at once, one code layer at a time.

use std::sync::Arc;

use half::bf16;

use super::beam_attention::{Beams, CrossKeys};
use super::beam_self_attention::SelfCache;
use super::blocks::{Context, DecoderBlock, DecoderScratch, Rows};
use super::choice::Code;
use super::creative_choose::{self, Choices, Layer};
use super::creative_input::{self, Norms};
use super::launch::{Buffer, Ptr, PtrMut, Stream};
use super::linear::Output;
use super::list_slots::ListSlots;
use super::norm_linear::{NormedRows, Projected, norm_linear};
use super::weights::{Matrix, Upload};
use crate::error::DeviceError;
use crate::model::blocks::Shape;
use crate::model::config::ModelConfig;

/// The creative decoder's weights.
#[derive(Debug)]
pub struct CreativeDecoder {
    shape: Shape,
    norms: Norms,
    proj: Matrix,
    block: DecoderBlock,
    norm: Buffer<f32>,
    /// The heads of all code layers, one below the other: [C_c W, d].
    heads: Matrix,
    /// 0, 1, 2, ...: the positions, to be read from device memory.
    positions: Buffer<u32>,
}

/// Buffers of a pass over the items of several requests.
#[derive(Debug)]
pub struct CreativeState {
    input: Buffer<bf16>,
    x: Buffer<f32>,
    keys: Buffer<f32>,
    values: Buffer<f32>,
    logits: Buffer<f32>,
    scratch: DecoderScratch,
}

/// What the creative decoder reads of the model and of the other stages.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// `embed.weight`, [V, d].
    pub table: &'a Buffer<bf16>,
    /// Rotary table.
    pub angles: Ptr<f32>,
    /// Codes of the catalog's creatives, those of an item sorted.
    pub codes: &'a Buffer<u16>,
    /// Hidden states of the POI decoder.
    pub hidden: &'a Buffer<f32>,
    /// Keys and values of the encoder's output.
    pub cross: CrossKeys,
    /// Most encoder rows of a request.
    pub longest: usize,
}

impl CreativeDecoder {
    /// Uploads `creative.*`, but for the keys and values of cross-attention, and `creative_head.weight`. `cross_attention`
    /// is the kernel of its block.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn load(
        upload: Upload,
        cross_attention: Code,
        config: &ModelConfig,
        shape: Shape,
    ) -> Result<Self, DeviceError> {
        let positions: Vec<u32> = (0..config.creative_code_layers as u32).collect();
        Ok(Self {
            shape,
            norms: Norms {
                hidden: upload.vector("creative.hidden_norm.weight")?,
                embed: upload.vector("creative.embed_norm.weight")?,
                eps: shape.eps,
            },
            proj: upload.matrix(&["creative.proj.weight"], 2 * shape.d)?,
            block: DecoderBlock::load(upload, cross_attention, "creative.block", shape)?,
            norm: upload.vector("creative.norm.weight")?,
            heads: upload.matrix(&["creative_head.weight"], shape.d)?,
            positions: Buffer::from_slice(upload.stream, &positions)?,
        })
    }

    /// Room for `beams`: requests, and items of each.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn state(
        &self,
        stream: &Arc<dyn Stream>,
        config: &ModelConfig,
        beams: Beams,
    ) -> Result<CreativeState, DeviceError> {
        let (rows, d) = (beams.requests * beams.beams, self.shape.d);
        let layers = config.creative_code_layers;
        Ok(CreativeState {
            input: Buffer::new(stream, rows * 2 * d)?,
            x: Buffer::new(stream, rows * d)?,
            keys: Buffer::new(stream, layers * rows * d)?,
            values: Buffer::new(stream, layers * rows * d)?,
            logits: Buffer::new(stream, rows * config.codebook_size)?,
            scratch: DecoderScratch::new(stream, beams, self.shape)?,
        })
    }

    /// Chooses a creative for each filled slot of `slots`, of which each request has `per_request`. What becomes of a
    /// row does not depend on the others. With a log it waits for the logits [rows, W] of each code layer, and adds them.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    #[allow(clippy::too_many_arguments)]
    pub fn choose(
        &self,
        stream: &dyn Stream,
        config: &ModelConfig,
        sources: Sources,
        (requests, per_request): (usize, usize),
        slots: &mut ListSlots,
        state: &mut CreativeState,
        mut log: Option<&mut Vec<Vec<f32>>>,
    ) -> Result<(), DeviceError> {
        let beams = Beams {
            requests,
            beams: per_request,
            heads: self.shape.heads,
            head_size: self.shape.head_size(),
            most_keys: sources.longest,
        };
        for layer in 0..config.creative_code_layers {
            self.run_layer(stream, config, sources, beams, layer, slots, state)?;
            if let Some(log) = log.as_deref_mut() {
                let mut logits = vec![0.0; requests * per_request * config.codebook_size];
                state.logits.download(0, &mut logits)?;
                log.push(logits);
            }
            let layer = Layer {
                index: layer,
                count: config.creative_code_layers,
                codebook: config.codebook_size,
                first_token: config.creative_token(layer, 0),
            };
            let mut choices = Choices {
                codes: sources.codes,
                per_request,
                begin: &mut slots.creative,
                end: &mut slots.creatives_end,
                token: &mut slots.token,
                fault: &mut slots.fault,
            };
            creative_choose::run(stream, &state.logits, layer, requests * per_request, &mut choices)?;
        }
        Ok(())
    }

    /// Runs position `layer` of all rows, leaving their logits in `state`.
    #[allow(clippy::too_many_arguments)]
    fn run_layer(
        &self,
        stream: &dyn Stream,
        config: &ModelConfig,
        sources: Sources,
        beams: Beams,
        layer: usize,
        slots: &ListSlots,
        state: &mut CreativeState,
    ) -> Result<(), DeviceError> {
        let (m, w) = (beams.requests * beams.beams, config.codebook_size);
        let Shape { d, eps, .. } = self.shape;
        let from = creative_input::Rows {
            hidden: sources.hidden,
            hidden_row: &slots.hidden_row,
            embed: sources.table,
            token: &slots.token,
        };
        creative_input::run(stream, from, &self.norms, m, &mut state.input)?;
        self.proj.multiply(stream, state.input.ptr(), m, Output::F32(state.x.ptr_mut()))?;
        let rows = Rows { shape: self.shape, angles: sources.angles, x: state.x.ptr_mut(), m };
        let cache = SelfCache {
            keys: state.keys.ptr_mut(),
            values: state.values.ptr_mut(),
            ancestors: Ptr::NULL,
            positions: config.creative_code_layers,
            newest: self.positions.at(layer),
        };
        self.block.run(stream, rows, Context { beams, cache, cross: sources.cross }, &mut state.scratch)?;
        let normed = NormedRows { x: state.x.ptr(), weight: self.norm.ptr(), m, d, eps };
        let logits = Projected::F32(state.logits.ptr_mut());
        norm_linear(stream, normed, self.heads.at(layer * w), w, None, PtrMut::NULL, logits)
    }

    /// Bytes of the weights on the device.
    pub fn bytes(&self) -> usize {
        let norms = self.norms.hidden.bytes() + self.norms.embed.bytes() + self.norm.bytes();
        norms + self.proj.bytes() + self.block.bytes() + self.heads.bytes() + self.positions.bytes()
    }
}

impl CreativeState {
    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let floats = [&self.x, &self.keys, &self.values, &self.logits];
        let floats = floats.iter().map(|b| b.bytes()).sum::<usize>();
        floats + self.input.bytes() + self.scratch.bytes()
    }
}
