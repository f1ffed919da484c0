//! The blocks of [`crate::model::blocks`] on the GPU, sequences of launches over buffers fixed at load: what all have, and
//! those of the decoders. The encoder's are in [`super::encoder_block`].

use std::sync::Arc;

use half::bf16;

use super::beam_attention::{BeamScratch, Beams, CrossKeys, beam_attention};
use super::beam_attention_hopper::{Cluster, beam_attention_hopper};
use super::beam_self_attention::{DecoderRows, SelfCache, beam_self_attention};
use super::choice::Code;
use super::decode_step::Layer;
use super::launch::{Buffer, Ptr, PtrMut, Stream};
use super::linear::Output;
use super::norm_linear::{NormedRows, Positions, Projected, Rotation, norm_linear};
use super::swiglu::{interleave, swiglu};
use super::weights::{Matrix, Upload};
use crate::error::DeviceError;
use crate::model::blocks::Shape;

/// RMSNorm, then `down(silu(gate x) * up x)`, added to the residual.
#[derive(Debug)]
pub(super) struct FeedForward {
    norm: Buffer<f32>,
    gate_up: Matrix,
    down: Matrix,
}

impl FeedForward {
    pub(super) fn load(upload: Upload, prefix: &str, shape: Shape) -> Result<Self, DeviceError> {
        let rounded = |part: &str| -> Vec<bf16> {
            let weight = upload.weights.f32(&format!("{prefix}.ffn.{part}_proj.weight"));
            weight.iter().map(|&x| bf16::from_f32(x)).collect()
        };
        let gate_up = interleave(&rounded("gate"), &rounded("up"), shape.d);
        Ok(Self {
            norm: upload.vector(&format!("{prefix}.ffn_norm.weight"))?,
            gate_up: upload.rounded(&gate_up, shape.d)?,
            down: upload.matrix(&[format!("{prefix}.ffn.down_proj.weight")], shape.ffn)?,
        })
    }

    pub(super) fn run(
        &self,
        stream: &dyn Stream,
        shape: Shape,
        x: PtrMut<f32>,
        m: usize,
        hidden: &mut Buffer<bf16>,
    ) -> Result<(), DeviceError> {
        swiglu(stream, normed(shape, x, &self.norm, m), self.gate_up.ptr(), shape.ffn, hidden.ptr_mut())?;
        self.down.multiply(stream, hidden.ptr(), m, Output::Add(x))
    }

    pub(super) fn bytes(&self) -> usize {
        self.norm.bytes() + self.gate_up.bytes() + self.down.bytes()
    }
}

/// RMSNorm and the projections of self-attention.
#[derive(Debug)]
pub(super) struct SelfAttention {
    norm: Buffer<f32>,
    qkv: Matrix,
    pub(super) out: Matrix,
}

impl SelfAttention {
    pub(super) fn load(upload: Upload, prefix: &str, attn: &str, shape: Shape) -> Result<Self, DeviceError> {
        let name = |p: &str| format!("{prefix}.{attn}.{p}_proj.weight");
        Ok(Self {
            norm: upload.vector(&format!("{prefix}.{attn}_norm.weight"))?,
            qkv: upload.matrix(&[name("q"), name("k"), name("v")], shape.d)?,
            out: upload.matrix(&[name("o")], shape.d)?,
        })
    }

    /// Queries and keys, turned, and values of the rows.
    pub(super) fn project(
        &self,
        stream: &dyn Stream,
        rows: Rows,
        positions: Positions,
        y: Projected,
    ) -> Result<(), DeviceError> {
        let Rows { shape, angles, x, m } = rows;
        let (columns, head_size) = (2 * shape.d, shape.head_size());
        let rotation = Rotation { columns, head_size, angles, positions };
        let normed = normed(shape, x, &self.norm, m);
        norm_linear(stream, normed, self.qkv.ptr(), 3 * shape.d, Some(rotation), PtrMut::NULL, y)
    }

    pub(super) fn bytes(&self) -> usize {
        self.norm.bytes() + self.qkv.bytes() + self.out.bytes()
    }
}

/// The residual stream of some rows, and what blocks need to know of them.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Shape of the blocks.
    pub shape: Shape,
    /// Rotary table, [positions, head_size].
    pub angles: Ptr<f32>,
    /// [m, d]
    pub x: PtrMut<f32>,
    /// Number of rows.
    pub m: usize,
}

fn normed(shape: Shape, x: PtrMut<f32>, weight: &Buffer<f32>, m: usize) -> NormedRows {
    NormedRows { x: x.read(), weight: weight.ptr(), m, d: shape.d, eps: shape.eps }
}

/// A block of the POI decoder, or the creative decoder's one block, without the keys and values that it has of the
/// encoder's output.
#[derive(Debug)]
pub struct DecoderBlock {
    self_attn: SelfAttention,
    cross_norm: Buffer<f32>,
    cross_q: Matrix,
    cross_attention: Code,
    cross_out: Matrix,
    ffn: FeedForward,
}

/// Blocks that share a request's keys, under [`Code::Hopper`]: as many as fit on every Hopper card. Not measured.
const CLUSTER: Cluster = Cluster::Eight;

/// What a decoder block reads besides its rows.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Requests, rows of each, and the keys of the one with most.
    pub beams: Beams,
    /// The block's keys and values of its own positions.
    pub cache: SelfCache,
    /// The block's keys and values of the encoder's output.
    pub cross: CrossKeys,
}

/// Buffers of a decoder block.
#[derive(Debug)]
pub struct DecoderScratch {
    qkv: Buffer<f32>,
    q: Buffer<bf16>,
    attended: Buffer<bf16>,
    hidden: Buffer<bf16>,
    cross: BeamScratch,
}

impl DecoderScratch {
    /// Room for batches of up to `beams`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(stream: &Arc<dyn Stream>, beams: Beams, shape: Shape) -> Result<Self, DeviceError> {
        let rows = beams.requests * beams.beams;
        Ok(Self {
            qkv: Buffer::new(stream, rows * 3 * shape.d)?,
            q: Buffer::new(stream, rows * shape.d)?,
            attended: Buffer::new(stream, rows * shape.d)?,
            hidden: Buffer::new(stream, rows * shape.ffn)?,
            cross: BeamScratch::new(stream, beams)?,
        })
    }

    /// The buffers, for batches of up to `beams`.
    pub fn arrays(&mut self, beams: Beams) -> DecoderArrays {
        let (partials, counters) = self.cross.arrays(beams);
        DecoderArrays {
            qkv: self.qkv.ptr_mut(),
            q: self.q.ptr_mut(),
            attended: self.attended.ptr_mut(),
            hidden: self.hidden.ptr_mut(),
            partials,
            counters,
        }
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let rows = self.q.bytes() + self.attended.bytes() + self.hidden.bytes();
        self.qkv.bytes() + rows + self.cross.bytes()
    }
}

/// Where the phases of a decoder block leave what the next ones take; see [`DecodeStep`](super::decode_step::DecodeStep).
#[derive(Debug, Clone, Copy)]
pub struct DecoderArrays {
    /// [rows, 3 d]
    pub qkv: PtrMut<f32>,
    /// [rows, d]
    pub q: PtrMut<bf16>,
    /// [rows, d]
    pub attended: PtrMut<bf16>,
    /// [rows, ffn]
    pub hidden: PtrMut<bf16>,
    /// Of cross-attention.
    pub partials: PtrMut<f32>,
    /// Likewise.
    pub counters: PtrMut<u32>,
}

impl DecoderBlock {
    /// Uploads `{prefix}.self_attn*`, `{prefix}.cross_attn*` but for keys and values, `{prefix}.ffn*`; `cross_attention` is
    /// its kernel.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn load(
        upload: Upload,
        cross_attention: Code,
        prefix: &str,
        shape: Shape,
    ) -> Result<Self, DeviceError> {
        let cross = |p: &str| [format!("{prefix}.cross_attn.{p}_proj.weight")];
        Ok(Self {
            self_attn: SelfAttention::load(upload, prefix, "self_attn", shape)?,
            cross_norm: upload.vector(&format!("{prefix}.cross_attn_norm.weight"))?,
            cross_q: upload.matrix(&cross("q"), shape.d)?,
            cross_attention,
            cross_out: upload.matrix(&cross("o"), shape.d)?,
            ffn: FeedForward::load(upload, prefix, shape)?,
        })
    }

    /// Runs the block on rows that all stand at the newest position of the cache.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn run(
        &self,
        stream: &dyn Stream,
        rows: Rows,
        context: Context,
        scratch: &mut DecoderScratch,
    ) -> Result<(), DeviceError> {
        let Rows { shape, x, m, .. } = rows;
        let Context { beams, cache, cross } = context;
        let DecoderScratch { qkv, q, attended, hidden, cross: scratch } = scratch;
        let positions = Positions::All(cache.newest);
        self.self_attn.project(stream, rows, positions, Projected::F32(qkv.ptr_mut()))?;
        let sizes =
            DecoderRows { rows: m, beams: beams.beams, heads: shape.heads, head_size: shape.head_size() };
        beam_self_attention(stream, sizes, qkv.ptr(), cache, attended.ptr_mut())?;
        self.self_attn.out.multiply(stream, attended.ptr(), m, Output::Add(x))?;
        let normed = normed(shape, x, &self.cross_norm, m);
        let to = Projected::Bf16(q.ptr_mut());
        norm_linear(stream, normed, self.cross_q.ptr(), shape.d, None, PtrMut::NULL, to)?;
        let (queries, to) = (q.ptr(), attended.ptr_mut());
        match self.cross_attention {
            Code::Portable => beam_attention(stream, beams, queries, cross, scratch, to)?,
            Code::Hopper => beam_attention_hopper(stream, beams, CLUSTER, queries, cross, to)?,
        }
        self.cross_out.multiply(stream, attended.ptr(), m, Output::Add(x))?;
        self.ffn.run(stream, shape, x, m, hidden)
    }

    /// What a team of blocks needs to run it.
    pub fn layer(&self, cache: SelfCache, cross: CrossKeys) -> Layer {
        Layer {
            norm: self.self_attn.norm.ptr(),
            qkv: self.self_attn.qkv.ptr(),
            out: self.self_attn.out.ptr(),
            cross_norm: self.cross_norm.ptr(),
            cross_q: self.cross_q.ptr(),
            cross_out: self.cross_out.ptr(),
            ffn_norm: self.ffn.norm.ptr(),
            gate_up: self.ffn.gate_up.ptr(),
            down: self.ffn.down.ptr(),
            keys: cache.keys,
            values: cache.values,
            cross: cross.keys,
        }
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let cross = self.cross_norm.bytes() + self.cross_q.bytes() + self.cross_out.bytes();
        self.self_attn.bytes() + cross + self.ffn.bytes()
    }
}
