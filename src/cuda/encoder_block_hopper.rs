//! The encoder's block in five launches of kernels made for Hopper: each product has what follows it as its epilogue, and
//! no row is normed more than once.

use half::bf16;

use super::blocks::Rows;
use super::choice::Code;
use super::encoder_block::{EncoderScratch, Ragged, attend};
use super::launch::{Buffer, Ptr, PtrMut, Stream};
use super::linear::Product;
use super::linear_norm_hopper::{Residual, linear_norm_hopper};
use super::linear_rotary_hopper::linear_rotary_hopper;
use super::linear_swiglu_hopper::linear_swiglu_hopper;
use super::norm_linear::{Positions, Rotation};
use super::product_hopper::arrange;
use super::swiglu::interleave;
use super::weights::Upload;
use crate::error::DeviceError;
use crate::model::blocks::Shape;

/// A weight matrix [n, k] in bf16, its rows arranged as Hopper's products take them.
#[derive(Debug)]
struct Arranged {
    values: Buffer<bf16>,
    n: usize,
    k: usize,
}

impl Arranged {
    fn load(upload: Upload, values: &[bf16], k: usize) -> Result<Self, DeviceError> {
        let n = values.len() / k;
        Ok(Self { values: Buffer::from_slice(upload.stream, &arrange(values, k))?, n, k })
    }

    /// With the `m` rows of `x` [m, k].
    fn product(&self, x: Ptr<bf16>, m: usize) -> Product {
        Product { x, w: self.values.ptr(), m, n: self.n, k: self.k }
    }
}

/// A block of the encoder. Its input is normed and rounded already, by [`FusedBlock::norm`].
#[derive(Debug)]
pub struct FusedBlock {
    norm: Buffer<f32>,
    qkv: Arranged,
    attention: Code,
    out: Arranged,
    ffn_norm: Buffer<f32>,
    gate_up: Arranged,
    down: Arranged,
}

/// The norm behind a block.
#[derive(Debug, Clone, Copy)]
pub struct NextNorm {
    /// Its weight, `[d]`.
    pub weight: Ptr<f32>,
    /// [m, d], unless null: takes the normed rows in f32 too.
    pub normed: PtrMut<f32>,
}

impl FusedBlock {
    /// Uploads `{prefix}.attn_norm`, `{prefix}.attn.*`, `{prefix}.ffn_norm`, `{prefix}.ffn.*`; `attention` is its kernel.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn load(upload: Upload, attention: Code, prefix: &str, shape: Shape) -> Result<Self, DeviceError> {
        let rounded = |name: &str| -> Vec<bf16> {
            let weight = upload.weights.f32(&format!("{prefix}.{name}_proj.weight"));
            weight.iter().map(|&x| bf16::from_f32(x)).collect()
        };
        let Shape { d, ffn, .. } = shape;
        let qkv = ["attn.q", "attn.k", "attn.v"].map(rounded).concat();
        let gate_up = interleave(&rounded("ffn.gate"), &rounded("ffn.up"), d);
        Ok(Self {
            norm: upload.vector(&format!("{prefix}.attn_norm.weight"))?,
            qkv: Arranged::load(upload, &qkv, d)?,
            attention,
            out: Arranged::load(upload, &rounded("attn.o"), d)?,
            ffn_norm: upload.vector(&format!("{prefix}.ffn_norm.weight"))?,
            gate_up: Arranged::load(upload, &gate_up, d)?,
            down: Arranged::load(upload, &rounded("ffn.down"), ffn)?,
        })
    }

    /// Weight of the norm before the block, `[d]`.
    pub fn norm(&self) -> Ptr<f32> {
        self.norm.ptr()
    }

    /// Runs the block on the rows of several requests. `rounded` [m, d] has them normed by [`FusedBlock::norm`], and after
    /// the block by `next`.
    ///
    /// # Errors
    /// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
    pub fn run(
        &self,
        stream: &dyn Stream,
        rows: Rows,
        ragged: Ragged,
        next: NextNorm,
        rounded: PtrMut<bf16>,
        scratch: &mut EncoderScratch,
    ) -> Result<(), DeviceError> {
        let Rows { shape, angles, x, m } = rows;
        let EncoderScratch { qkv, attended, hidden } = scratch;
        let (columns, positions) = (2 * shape.d, Positions::Each(ragged.positions));
        let rotation = Rotation { columns, head_size: shape.head_size(), angles, positions };
        linear_rotary_hopper(stream, self.qkv.product(rounded.read(), m), rotation, qkv.ptr_mut())?;
        attend(self.attention, stream, rows, ragged, qkv.ptr(), attended.ptr_mut())?;
        let residual = |NextNorm { weight, normed }| Residual { x, weight, eps: shape.eps, normed, rounded };
        let inner = NextNorm { weight: self.ffn_norm.ptr(), normed: PtrMut::NULL };
        linear_norm_hopper(stream, self.out.product(attended.ptr(), m), residual(inner))?;
        linear_swiglu_hopper(stream, self.gate_up.product(rounded.read(), m), hidden.ptr_mut())?;
        linear_norm_hopper(stream, self.down.product(hidden.ptr(), m), residual(next))
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let matrices = [&self.qkv, &self.out, &self.gate_up, &self.down];
        let norms = self.norm.bytes() + self.ffn_norm.bytes();
        norms + matrices.iter().map(|matrix| matrix.values.bytes()).sum::<usize>()
    }
}
