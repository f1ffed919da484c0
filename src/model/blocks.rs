//! Pre-norm transformer blocks: what the encoder, the two decoders and the reward model are made of.

use crate::cpu::attention::{AttentionScratch, KeyValues, attention};
use crate::cpu::cached_attention::cached_attention;
use crate::cpu::linear::{Epilogue, Linear, linear};
use crate::cpu::norm::rms_norm;
use crate::cpu::rotary::{Rotary, rotate};
use crate::cpu::{Exec, Precision};
use crate::model::config::ModelConfig;
use crate::model::weights::Weights;

/// Width, heads and epsilon of a stack of blocks.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Width.
    pub d: usize,
    /// Heads.
    pub heads: usize,
    /// Feed-forward width.
    pub ffn: usize,
    /// Epsilon of the norms.
    pub eps: f32,
}

impl Shape {
    /// That of the encoder's and the decoders' blocks.
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            d: config.hidden_size,
            heads: config.num_heads,
            ffn: config.ffn_size,
            eps: config.rms_eps as f32,
        }
    }

    /// Width of a head.
    pub fn head_size(self) -> usize {
        self.d / self.heads
    }
}

/// Reads tensors by name and packs them.
pub struct Packer<'w> {
    /// The checked weights.
    pub weights: &'w Weights,
    /// Precision of the products.
    pub precision: Precision,
}

impl Packer<'_> {
    /// The matrices `names`, each [out_i, in], stacked.
    pub fn linear(&self, names: &[String], in_size: usize) -> Linear {
        let tensors: Vec<_> = names.iter().map(|name| self.weights.f32(name)).collect();
        let slices: Vec<&[f32]> = tensors.iter().map(|t| &t[..]).collect();
        Linear::pack(&slices, in_size, self.precision)
    }

    /// The matrices of `codes` rows that `name` stacks, one per code layer.
    pub fn heads(&self, name: &str, codes: usize, in_size: usize) -> Vec<Linear> {
        let stacked = self.weights.f32(name);
        let layers = stacked.chunks_exact(codes * in_size);
        layers.map(|rows| Linear::pack(&[rows], in_size, self.precision)).collect()
    }

    /// A vector.
    pub fn vector(&self, name: &str) -> Vec<f32> {
        self.weights.f32(name).into_owned()
    }
}

/// RMSNorm, then `down(silu(gate x) * up x)`, added to the residual.
pub struct FeedForward {
    norm: Vec<f32>,
    gate_up: Linear,
    down: Linear,
}

impl FeedForward {
    /// Reads `{prefix}.ffn_norm` and `{prefix}.ffn.*`.
    pub fn load(packer: &Packer, prefix: &str, shape: Shape) -> Self {
        let gate = packer.weights.f32(&format!("{prefix}.ffn.gate_proj.weight"));
        let up = packer.weights.f32(&format!("{prefix}.ffn.up_proj.weight"));
        Self {
            norm: packer.vector(&format!("{prefix}.ffn_norm.weight")),
            gate_up: Linear::pack_gated(&gate, &up, shape.d, packer.precision),
            down: packer.linear(&[format!("{prefix}.ffn.down_proj.weight")], shape.ffn),
        }
    }

    /// Adds the layer's output to the `m` rows of `x` [m, d].
    pub fn run(&self, exec: Exec, shape: Shape, x: &mut [f32], m: usize, scratch: &mut Scratch) {
        let normed = &mut scratch.normed[..m * shape.d];
        rms_norm(exec, x, m, &self.norm, shape.eps, normed);
        let hidden = &mut scratch.hidden[..m * shape.ffn];
        linear(exec, normed, m, &self.gate_up, Epilogue::SiluGate, hidden);
        linear(exec, hidden, m, &self.down, Epilogue::Add, x);
    }

    fn bytes(&self) -> usize {
        self.norm.len() * 4 + self.gate_up.bytes() + self.down.bytes()
    }
}

/// RMSNorm and the projections of self-attention.
pub struct SelfAttention {
    norm: Vec<f32>,
    qkv: Linear,
    out: Linear,
}

impl SelfAttention {
    /// Reads `{prefix}.{attn}_norm` and `{prefix}.{attn}.*`.
    pub fn load(packer: &Packer, prefix: &str, attn: &str, shape: Shape) -> Self {
        let name = |p: &str| format!("{prefix}.{attn}.{p}_proj.weight");
        Self {
            norm: packer.vector(&format!("{prefix}.{attn}_norm.weight")),
            qkv: packer.linear(&[name("q"), name("k"), name("v")], shape.d),
            out: packer.linear(&[name("o")], shape.d),
        }
    }

    /// Queries, keys and values of the rows of `x`, into `scratch.qkv` [m, 3d].
    pub fn project(&self, exec: Exec, shape: Shape, x: &[f32], m: usize, scratch: &mut Scratch) {
        let normed = &mut scratch.normed[..m * shape.d];
        rms_norm(exec, x, m, &self.norm, shape.eps, normed);
        linear(exec, normed, m, &self.qkv, Epilogue::Store, &mut scratch.qkv[..m * 3 * shape.d]);
    }

    /// Adds the output projection of `scratch.attended` to `x`.
    pub fn add_output(&self, exec: Exec, shape: Shape, x: &mut [f32], m: usize, scratch: &Scratch) {
        linear(exec, &scratch.attended[..m * shape.d], m, &self.out, Epilogue::Add, x);
    }

    fn bytes(&self) -> usize {
        self.norm.len() * 4 + self.qkv.bytes() + self.out.bytes()
    }
}

/// A block of the encoder, or of the reward model.
pub struct EncoderBlock {
    /// Self-attention.
    pub attn: SelfAttention,
    /// Feed-forward layer.
    pub ffn: FeedForward,
}

impl EncoderBlock {
    /// Reads `{prefix}.attn_norm`, `{prefix}.attn.*`, `{prefix}.ffn_norm`, `{prefix}.ffn.*`.
    pub fn load(packer: &Packer, prefix: &str, shape: Shape) -> Self {
        Self {
            attn: SelfAttention::load(packer, prefix, "attn", shape),
            ffn: FeedForward::load(packer, prefix, shape),
        }
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.attn.bytes() + self.ffn.bytes()
    }
}

/// Buffers of one block, for as many rows as the widest stage has.
pub struct Scratch {
    /// [rows, d]
    pub normed: Vec<f32>,
    /// [rows, 3d]
    pub qkv: Vec<f32>,
    /// [rows, d]
    pub attended: Vec<f32>,
    /// [rows, d_ff]
    pub hidden: Vec<f32>,
    /// Of attention over an encoder's keys.
    pub attention: AttentionScratch,
}

impl Scratch {
    /// Buffers for `rows` rows of blocks of `shape`, run by up to `threads` threads.
    pub fn new(rows: usize, shape: Shape, threads: usize) -> Self {
        Self {
            normed: vec![0.0; rows * shape.d],
            qkv: vec![0.0; rows * 3 * shape.d],
            attended: vec![0.0; rows * shape.d],
            hidden: vec![0.0; rows * shape.ffn],
            attention: AttentionScratch::new(threads, shape.head_size()),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let floats = self.normed.len() + self.qkv.len() + self.attended.len() + self.hidden.len();
        floats * 4 + self.attention.bytes()
    }
}

/// A block of the POI decoder, or the creative decoder's one block.
pub struct DecoderBlock {
    self_attn: SelfAttention,
    cross_norm: Vec<f32>,
    cross_q: Linear,
    cross_kv: Linear,
    cross_out: Linear,
    ffn: FeedForward,
}

impl DecoderBlock {
    /// Reads `{prefix}.self_attn*`, `{prefix}.cross_attn*`, `{prefix}.ffn*`.
    pub fn load(packer: &Packer, prefix: &str, shape: Shape) -> Self {
        let name = |p: &str| format!("{prefix}.cross_attn.{p}_proj.weight");
        Self {
            self_attn: SelfAttention::load(packer, prefix, "self_attn", shape),
            cross_norm: packer.vector(&format!("{prefix}.cross_attn_norm.weight")),
            cross_q: packer.linear(&[name("q")], shape.d),
            cross_kv: packer.linear(&[name("k"), name("v")], shape.d),
            cross_out: packer.linear(&[name("o")], shape.d),
            ffn: FeedForward::load(packer, prefix, shape),
        }
    }

    /// Packs this block's keys and values of the encoder output `states` [n, d] for all later steps.
    /// `projected` is a buffer of [n, 2d].
    pub fn fill_cross(
        &self,
        exec: Exec,
        shape: Shape,
        states: &[f32],
        projected: &mut [f32],
        keys: &mut KeyValues,
    ) {
        let n = states.len() / shape.d;
        let projected = &mut projected[..n * 2 * shape.d];
        linear(exec, states, n, &self.cross_kv, Epilogue::Store, projected);
        keys.fill(exec, projected, n, 2 * shape.d, 0, shape.d);
    }

    /// Queries, keys and values of the rows of `x`, into `scratch.qkv` [m, 3d], before they know their position.
    pub fn project(&self, exec: Exec, shape: Shape, x: &[f32], m: usize, scratch: &mut Scratch) {
        self.self_attn.project(exec, shape, x, m, scratch);
    }

    /// Runs the block on the `m` rows of `x`, all at the newest position of `cache`, whose queries, keys and values
    /// [`DecoderBlock::project`] left in `scratch`.
    pub fn run(&self, exec: Exec, shape: Shape, x: &mut [f32], m: usize, step: Step, scratch: &mut Scratch) {
        let (d, heads, head) = (shape.d, shape.heads, shape.head_size());
        let position = step.position;
        rotate(exec, step.rotary, &mut scratch.qkv[..m * 3 * d], 3 * d, 0..2 * d, |_| position);
        step.cache.append(position, step.first, &scratch.qkv[..m * 3 * d]);
        cached_attention(
            exec,
            &scratch.qkv,
            m,
            3 * d,
            0,
            &step.cache.keys,
            &step.cache.values,
            step.cache.slots,
            step.ancestors,
            step.ancestor_stride,
            position + 1,
            heads,
            head,
            &mut scratch.attended[..m * d],
        );
        self.self_attn.add_output(exec, shape, x, m, scratch);
        self.cross(exec, shape, x, m, step.cross, scratch);
        self.ffn.run(exec, shape, x, m, scratch);
    }

    fn cross(
        &self,
        exec: Exec,
        shape: Shape,
        x: &mut [f32],
        m: usize,
        keys: &KeyValues,
        scratch: &mut Scratch,
    ) {
        let d = shape.d;
        let normed = &mut scratch.normed[..m * d];
        rms_norm(exec, x, m, &self.cross_norm, shape.eps, normed);
        let q = &mut scratch.qkv[..m * d];
        linear(exec, normed, m, &self.cross_q, Epilogue::Store, q);
        let attended = &mut scratch.attended[..m * d];
        attention(exec, q, m, d, 0, keys, &mut scratch.attention, attended);
        linear(exec, attended, m, &self.cross_out, Epilogue::Add, x);
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let cross = self.cross_q.bytes() + self.cross_kv.bytes() + self.cross_out.bytes();
        self.self_attn.bytes() + self.cross_norm.len() * 4 + cross + self.ffn.bytes()
    }
}

/// What a decoder block reads besides its rows.
pub struct Step<'a> {
    /// Position of the rows, from 0.
    pub position: usize,
    /// Rotary table.
    pub rotary: &'a Rotary,
    /// This block's keys and values of the encoder output.
    pub cross: &'a KeyValues,
    /// This block's keys and values of the positions so far.
    pub cache: &'a mut SelfCache,
    /// Slot of the first row in `cache`; the others follow.
    pub first: usize,
    /// [m, ancestor_stride]: which slot of each position a row descends from.
    pub ancestors: &'a [u32],
    /// Positions a row of `ancestors` has room for.
    pub ancestor_stride: usize,
}

/// Keys and values of a block's own positions: `[position][slot][d]`, appended to and never reordered.
pub struct SelfCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    slots: usize,
    d: usize,
}

impl SelfCache {
    /// Room for `positions` of `slots` rows of width `d`.
    pub fn new(positions: usize, slots: usize, d: usize) -> Self {
        let len = positions * slots * d;
        Self { keys: vec![0.0; len], values: vec![0.0; len], slots, d }
    }

    /// Takes over the first `count` slots of `position` of another cache.
    pub fn adopt(&mut self, other: &Self, position: usize, count: usize) {
        let (to, from) = (position * self.slots * self.d, position * other.slots * self.d);
        let slots = |start: usize| start..start + count * self.d;
        self.keys[slots(to)].copy_from_slice(&other.keys[slots(from)]);
        self.values[slots(to)].copy_from_slice(&other.values[slots(from)]);
    }

    /// Stores the keys and values of the rows of `qkv` [m, 3d] at `position`, in the slots from `first` on.
    fn append(&mut self, position: usize, first: usize, qkv: &[f32]) {
        let d = self.d;
        let start = (position * self.slots + first) * d;
        for (r, row) in qkv.chunks_exact(3 * d).enumerate() {
            let at = start + r * d..start + (r + 1) * d;
            self.keys[at.clone()].copy_from_slice(&row[d..2 * d]);
            self.values[at].copy_from_slice(&row[2 * d..]);
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.keys.len() + self.values.len()) * 4
    }
}
