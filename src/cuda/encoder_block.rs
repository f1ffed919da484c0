//! The encoder's block by kernels for every GPU, and what it shares with the one of
//! [`super::encoder_block_hopper`].

use std::sync::Arc;

use half::bf16;

use super::attention::attention;
use super::attention_hopper::attention_hopper;
use super::blocks::{FeedForward, Rows, SelfAttention};
use super::choice::Code;
use super::launch::{Buffer, Ptr, PtrMut, Stream};
use super::linear::Output;
use super::norm_linear::{Positions, Projected};
use super::weights::Upload;
use crate::error::DeviceError;
use crate::model::blocks::Shape;

/// A block of the encoder.
#[derive(Debug)]
pub struct EncoderBlock {
    attn: SelfAttention,
    attention: Code,
    ffn: FeedForward,
}

/// The rows of several requests, one request after the other.
#[derive(Debug, Clone, Copy)]
pub struct Ragged {
    /// Request i has rows `offsets[i]..offsets[i + 1]`.
    pub offsets: Ptr<u32>,
    /// Position of each row in its request.
    pub positions: Ptr<u32>,
    /// Number of requests.
    pub requests: usize,
    /// Most rows of a request.
    pub longest: usize,
}

/// Buffers of an encoder block.
#[derive(Debug)]
pub struct EncoderScratch {
    pub(super) qkv: Buffer<bf16>,
    pub(super) attended: Buffer<bf16>,
    pub(super) hidden: Buffer<bf16>,
}

impl EncoderScratch {
    /// Room for `rows` rows.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(stream: &Arc<dyn Stream>, rows: usize, shape: Shape) -> Result<Self, DeviceError> {
        Ok(Self {
            qkv: Buffer::new(stream, rows * 3 * shape.d)?,
            attended: Buffer::new(stream, rows * shape.d)?,
            hidden: Buffer::new(stream, rows * shape.ffn)?,
        })
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.qkv.bytes() + self.attended.bytes() + self.hidden.bytes()
    }
}

/// Attention of each row to all of its request, by the kernel `code`.
pub(super) fn attend(
    code: Code,
    stream: &dyn Stream,
    rows: Rows,
    ragged: Ragged,
    qkv: Ptr<bf16>,
    to: PtrMut<bf16>,
) -> Result<(), DeviceError> {
    let Rows { shape, m, .. } = rows;
    let Ragged { offsets, requests, longest, .. } = ragged;
    let (heads, head_size) = (shape.heads, shape.head_size());
    match code {
        Code::Portable => attention(stream, qkv, offsets, requests, longest, heads, head_size, to),
        Code::Hopper => attention_hopper(stream, qkv, m, offsets, requests, longest, heads, to),
    }
}

impl EncoderBlock {
    /// Uploads `{prefix}.attn_norm`, `{prefix}.attn.*`, `{prefix}.ffn_norm`, `{prefix}.ffn.*`; `attention` is its kernel.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn load(upload: Upload, attention: Code, prefix: &str, shape: Shape) -> Result<Self, DeviceError> {
        Ok(Self {
            attn: SelfAttention::load(upload, prefix, "attn", shape)?,
            attention,
            ffn: FeedForward::load(upload, prefix, shape)?,
        })
    }

    /// Runs the block on the rows of several requests.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn run(
        &self,
        stream: &dyn Stream,
        rows: Rows,
        ragged: Ragged,
        scratch: &mut EncoderScratch,
    ) -> Result<(), DeviceError> {
        let Rows { shape, x, m, .. } = rows;
        let EncoderScratch { qkv, attended, hidden } = scratch;
        let positions = Positions::Each(ragged.positions);
        self.attn.project(stream, rows, positions, Projected::Bf16(qkv.ptr_mut()))?;
        attend(self.attention, stream, rows, ragged, qkv.ptr(), attended.ptr_mut())?;
        self.attn.out.multiply(stream, attended.ptr(), m, Output::Add(x))?;
        self.ffn.run(stream, shape, x, m, hidden)
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.attn.bytes() + self.ffn.bytes()
    }
}
