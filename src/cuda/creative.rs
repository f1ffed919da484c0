//! The creative decoder (Eq. 16) on the GPU: which of its creatives each item of each list shows. All items of all
//! requests run at once, one code layer at a time.

use std::sync::Arc;

use half::bf16;

use super::beam_attention::{Beams, CrossKeys};
use super::beam_self_attention::SelfCache;
use super::blocks::{Context, DecoderBlock, DecoderScratch, Rows};
use super::creative_choose::{self, Choices, Layer};
use super::creative_input::{self, NO_ROW, Norms};
use super::launch::{Buffer, Ptr, PtrMut, Stream};
use super::linear::Output;
use super::norm_linear::{NormedRows, Projected, norm_linear};
use super::weights::{Matrix, Upload};
use crate::error::DeviceError;
use crate::model::blocks::Shape;
use crate::model::config::{BOC, ModelConfig};

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

/// An item whose creative is to be chosen.
#[derive(Debug, Clone)]
pub struct Job {
    /// Row of the hidden states: that of the POI decoder after the item's last code.
    pub hidden: u32,
    /// The item's creatives, at least one, in the order of their codes, equals in catalog order.
    pub creatives: Vec<u32>,
}

/// Buffers of a pass over the items of several requests.
#[derive(Debug)]
pub struct CreativeState {
    hidden_row: Buffer<u32>,
    request: Buffer<u32>,
    token: Buffer<u32>,
    range: Buffer<u32>,
    fault: Buffer<u32>,
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
    /// Hidden states of the POI decoder.
    pub hidden: &'a Buffer<f32>,
    /// Keys and values of the encoder's output.
    pub cross: CrossKeys,
    /// Most encoder rows of a request.
    pub longest: usize,
}

impl CreativeDecoder {
    /// Uploads `creative.*`, but for the keys and values of cross-attention, and `creative_head.weight`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn load(upload: Upload, config: &ModelConfig, shape: Shape) -> Result<Self, DeviceError> {
        let positions: Vec<u32> = (0..config.creative_code_layers as u32).collect();
        Ok(Self {
            shape,
            norms: Norms {
                hidden: upload.vector("creative.hidden_norm.weight")?,
                embed: upload.vector("creative.embed_norm.weight")?,
                eps: shape.eps,
            },
            proj: upload.matrix(&["creative.proj.weight"], 2 * shape.d)?,
            block: DecoderBlock::load(upload, "creative.block", shape)?,
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
            hidden_row: Buffer::new(stream, rows)?,
            request: Buffer::new(stream, rows)?,
            token: Buffer::new(stream, rows)?,
            range: Buffer::new(stream, 2 * rows)?,
            fault: Buffer::new(stream, beams.requests)?,
            input: Buffer::new(stream, rows * 2 * d)?,
            x: Buffer::new(stream, rows * d)?,
            keys: Buffer::new(stream, layers * rows * d)?,
            values: Buffer::new(stream, layers * rows * d)?,
            logits: Buffer::new(stream, rows * config.codebook_size)?,
            scratch: DecoderScratch::new(stream, beams, self.shape)?,
        })
    }

    /// Chooses a creative for each job, `jobs[request][job]`. `codes(creative)` are a creative's codes. None in the
    /// place of a request where the logit of a code that may follow is not finite.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn choose<'c>(
        &self,
        stream: &Arc<dyn Stream>,
        config: &ModelConfig,
        sources: Sources,
        jobs: &[Vec<Job>],
        codes: impl Fn(u32) -> &'c [u16],
        state: &mut CreativeState,
    ) -> Result<Vec<Option<Vec<u32>>>, DeviceError> {
        let per_request = jobs.iter().map(Vec::len).max().unwrap_or(0);
        if per_request == 0 {
            return Ok(vec![Some(Vec::new()); jobs.len()]);
        }
        let input = Input::of(jobs, per_request, codes);
        let code_table = Buffer::from_slice(stream, &input.codes)?;
        state.upload(&input, jobs.len())?;
        let beams = Beams {
            requests: jobs.len(),
            beams: per_request,
            heads: self.shape.heads,
            head_size: self.shape.head_size(),
            most_keys: sources.longest,
        };
        for layer in 0..config.creative_code_layers {
            self.run_layer(&**stream, config, sources, beams, layer, state)?;
            let layer = Layer {
                index: layer,
                count: config.creative_code_layers,
                codebook: config.codebook_size,
                first_token: config.creative_token(layer, 0),
            };
            let CreativeState { request, range, token, fault, logits, .. } = state;
            let mut choices = Choices { codes: &code_table, request, range, token, fault };
            creative_choose::run(&**stream, logits, layer, jobs.len() * per_request, &mut choices)?;
        }
        state.read(jobs, per_request, &input.creatives)
    }

    /// Runs position `layer` of all rows, leaving their logits in `state`.
    fn run_layer(
        &self,
        stream: &dyn Stream,
        config: &ModelConfig,
        sources: Sources,
        beams: Beams,
        layer: usize,
        state: &mut CreativeState,
    ) -> Result<(), DeviceError> {
        let (m, w) = (beams.requests * beams.beams, config.codebook_size);
        let Shape { d, eps, .. } = self.shape;
        let from = creative_input::Rows {
            hidden: sources.hidden,
            hidden_row: &state.hidden_row,
            embed: sources.table,
            token: &state.token,
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

/// What is uploaded of some jobs. Rows without a job have no creatives and no hidden state.
struct Input {
    hidden_row: Vec<u32>,
    request: Vec<u32>,
    range: Vec<u32>,
    token: Vec<u32>,
    /// All creatives of all jobs, and their codes.
    creatives: Vec<u32>,
    codes: Vec<u16>,
}

impl Input {
    fn of<'c>(jobs: &[Vec<Job>], per_request: usize, codes: impl Fn(u32) -> &'c [u16]) -> Self {
        let rows = jobs.len() * per_request;
        let mut input = Self {
            hidden_row: vec![NO_ROW; rows],
            request: (0..rows).map(|row| (row / per_request) as u32).collect(),
            range: vec![0; 2 * rows],
            token: vec![BOC as u32; rows],
            creatives: Vec::new(),
            codes: Vec::new(),
        };
        for (request, jobs) in jobs.iter().enumerate() {
            for (job, row) in jobs.iter().zip(request * per_request..) {
                input.hidden_row[row] = job.hidden;
                input.range[2 * row] = input.creatives.len() as u32;
                input.creatives.extend_from_slice(&job.creatives);
                input.range[2 * row + 1] = input.creatives.len() as u32;
            }
        }
        input.codes = input.creatives.iter().flat_map(|&creative| codes(creative)).copied().collect();
        input
    }
}

impl CreativeState {
    fn upload(&mut self, input: &Input, requests: usize) -> Result<(), DeviceError> {
        self.hidden_row.upload(0, &input.hidden_row)?;
        self.request.upload(0, &input.request)?;
        self.range.upload(0, &input.range)?;
        self.token.upload(0, &input.token)?;
        self.fault.upload(0, &vec![0; requests])
    }

    fn read(
        &self,
        jobs: &[Vec<Job>],
        per_request: usize,
        creatives: &[u32],
    ) -> Result<Vec<Option<Vec<u32>>>, DeviceError> {
        let mut range = vec![0; 2 * jobs.len() * per_request];
        let mut fault = vec![0; jobs.len()];
        self.range.download(0, &mut range)?;
        self.fault.download(0, &mut fault)?;
        let rows = range.chunks_exact(2 * per_request);
        Ok(jobs
            .iter()
            .zip(rows)
            .zip(fault)
            .map(|((jobs, rows), fault)| {
                let chosen = rows.chunks_exact(2).take(jobs.len()).map(|row| creatives[row[0] as usize]);
                (fault == 0).then(|| chosen.collect())
            })
            .collect())
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let words = [&self.hidden_row, &self.request, &self.token, &self.range, &self.fault];
        let floats = [&self.x, &self.keys, &self.values, &self.logits];
        words.iter().map(|b| b.bytes()).sum::<usize>()
            + floats.iter().map(|b| b.bytes()).sum::<usize>()
            + self.input.bytes()
            + self.scratch.bytes()
    }
}
