//! A position of the POI decoder in one launch, by a team of blocks: the same bits as the launches of
//! [`super::decoder`].

use bytemuck::{Pod, Zeroable};
use half::bf16;

use super::launch::{KernelArgument, LaunchShape, Stream};
use super::tiling::size;
use super::{norm_product, persistent_search};
use crate::error::DeviceError;

crate::kernels! {
    in "decode_step";

    /// A request by each cluster, heads of 32.
    fn decode_step_cluster_32(step: DecodeStep);
    /// A request by each cluster, heads of 64.
    fn decode_step_cluster_64(step: DecodeStep);
    /// All requests by all blocks, heads of 32.
    fn decode_step_grid_32(step: DecodeStep);
    /// All requests by all blocks, heads of 64.
    fn decode_step_grid_64(step: DecodeStep);
}

/// Layers that there is room for among a kernel's arguments.
pub const MOST_LAYERS: usize = 8;

const THREADS: u32 = 256;

/// Blocks of a cluster.
const CLUSTERS: [u32; 5] = [16, 8, 4, 2, 1];

/// Blocks that decode together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Team {
    /// Each request has a cluster of so many blocks, up to 16.
    Cluster(u32),
    /// So many blocks, all resident at once, have all requests.
    Grid(u32),
}

/// Weights of a layer, and its keys and values.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Layer {
    /// Weight of the norm before self-attention, `[d]`.
    pub norm: Ptr<f32>,
    /// Its projections, [3 d, d].
    pub qkv: Ptr<bf16>,
    /// [d, d]
    pub out: Ptr<bf16>,
    /// Weight of the norm before cross-attention, `[d]`.
    pub cross_norm: Ptr<f32>,
    /// [d, d]
    pub cross_q: Ptr<bf16>,
    /// [d, d]
    pub cross_out: Ptr<bf16>,
    /// Weight of the norm before the feed-forward layer, `[d]`.
    pub ffn_norm: Ptr<f32>,
    /// [2 ffn, d], see [`interleave`](super::swiglu::interleave).
    pub gate_up: Ptr<bf16>,
    /// [d, ffn]
    pub down: Ptr<bf16>,
    /// Keys of the layer's own positions, `[positions][rows][d]`.
    pub keys: PtrMut<f32>,
    /// Values, likewise.
    pub values: PtrMut<f32>,
    /// Keys and values of the encoder's rows.
    pub cross: Ptr<bf16>,
}

/// The argument of the kernels: `DecodeStep` of `kernels/decode.cuh`, field by field.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct DecodeStep {
    /// The first `layer_count` are in use.
    pub layers: [Layer; MOST_LAYERS],
    /// Embeddings, [V, d].
    pub table: Ptr<bf16>,
    /// Rotary table, [positions, head_size].
    pub angles: Ptr<f32>,
    /// Weight of the final norm, `[d]`.
    pub norm: Ptr<f32>,
    /// The head of the position's code layer, [codes, d], or null.
    pub head: Ptr<bf16>,
    /// Input token of each row.
    pub tokens: Ptr<u32>,
    /// See [`SelfCache`](super::beam_self_attention::SelfCache).
    pub ancestors: Ptr<u32>,
    /// The position, `[1]`.
    pub newest: Ptr<u32>,
    /// See [`CrossKeys`](super::beam_attention::CrossKeys).
    pub offsets: Ptr<u32>,
    /// [rows, d]
    pub x: PtrMut<f32>,
    /// [rows, 3 d]
    pub qkv: PtrMut<f32>,
    /// [rows, d]
    pub q: PtrMut<bf16>,
    /// [rows, d]
    pub attended: PtrMut<bf16>,
    /// [rows, ffn]
    pub hidden: PtrMut<bf16>,
    /// See [`BeamScratch`](super::beam_attention::BeamScratch).
    pub partials: PtrMut<f32>,
    /// Likewise.
    pub counters: PtrMut<u32>,
    /// Hidden states of the position, [rows, d].
    pub states: PtrMut<f32>,
    /// Logits, [rows, codes], where there is a head.
    pub logits: PtrMut<f32>,
    /// The barrier of a [`Team::Grid`], two zeros.
    pub team: PtrMut<u32>,
    /// Layers in use.
    pub layer_count: u32,
    /// Requests.
    pub requests: u32,
    /// Rows of each.
    pub beams: u32,
    /// Heads.
    pub heads: u32,
    /// Width of the feed-forward layer.
    pub ffn: u32,
    /// Codes of a layer.
    pub codes: u32,
    /// Positions that there is room for.
    pub positions: u32,
    /// Elements from a row of `cross` to the next.
    pub cross_stride: u32,
    /// Chunks of keys of the request with most.
    pub chunks: u32,
    /// Epsilon of the norms.
    pub eps: f32,
}

impl KernelArgument for DecodeStep {
    const CPP: &'static str = "DecodeStep";

    fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }
}

/// Whether decoders of so many layers and columns in heads of `head_size` can be run by a team.
pub fn fits(layers: usize, d: usize, head_size: usize) -> bool {
    layers <= MOST_LAYERS && [32, 64].contains(&head_size) && d <= norm_product::MOST_COLUMNS
}

/// The largest cluster of up to `most` blocks in which a request can be decoded and searched here, if any.
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
pub fn cluster(
    stream: &dyn Stream,
    most: u32,
    d: usize,
    head_size: usize,
) -> Result<Option<Team>, DeviceError> {
    stream.hopper()?;
    for team in CLUSTERS.into_iter().filter(|&blocks| blocks <= most).map(Team::Cluster) {
        if team.resident(stream, d, head_size)? > 0 {
            return Ok(Some(team));
        }
    }
    Ok(None)
}

/// All blocks that are resident here at once, if any.
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
pub fn grid(stream: &dyn Stream, d: usize, head_size: usize) -> Result<Option<Team>, DeviceError> {
    stream.hopper()?;
    let blocks = Team::Grid(1).resident(stream, d, head_size)?;
    Ok((blocks > 0).then(|| Team::Grid(size(blocks))))
}

impl Team {
    /// Its place among kernels for either team and heads of 32 and 64.
    pub(super) fn index(self, head_size: usize) -> usize {
        let grid = matches!(self, Self::Grid(_));
        usize::from(grid) * 2 + usize::from(head_size != 32)
    }

    /// Blocks that are resident at once, of whichever kernel.
    fn resident(self, stream: &dyn Stream, d: usize, head_size: usize) -> Result<usize, DeviceError> {
        let shape = self.shape(1, d, head_size);
        let step = stream.resident(&KERNELS[self.index(head_size)], shape)?;
        Ok(step.min(stream.resident(persistent_search::kernel(self, head_size), shape)?))
    }

    fn shape(self, requests: usize, d: usize, head_size: usize) -> LaunchShape {
        let shared = size(shared_bytes(d, head_size));
        match self {
            Self::Cluster(blocks) => {
                LaunchShape::new([blocks, size(requests), 1], THREADS).shared(shared).clusters(blocks)
            }
            Self::Grid(blocks) => LaunchShape::new([blocks, 1, 1], THREADS).shared(shared).cooperative(),
        }
    }
}

impl DecodeStep {
    /// The launch of a team.
    ///
    /// # Panics
    /// If the sizes do not fit.
    pub(super) fn launch(&self, team: Team, head_size: usize) -> LaunchShape {
        let (layers, d) = (self.layer_count as usize, self.heads as usize * head_size);
        assert!(fits(layers, d, head_size), "{layers} layers of {d} columns in heads of {head_size}");
        team.shape(self.requests as usize, d, head_size)
    }
}

/// The most that a phase needs: normed rows and their ring, or a ring of 64 + 32 rows of 128 bytes in four stages, or five
/// tiles of 64 rows for each half of the block and a word for each.
fn shared_bytes(d: usize, head_size: usize) -> usize {
    norm_product::shared_bytes(d).max((64 + 32) * 128 * 4).max(2 * (5 * 64 * head_size * 2 + 4))
}

/// Runs the newest position of all rows.
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
///
/// # Panics
/// If the sizes do not fit.
pub fn decode_step(
    stream: &dyn Stream,
    team: Team,
    head_size: usize,
    step: DecodeStep,
) -> Result<(), DeviceError> {
    let shape = step.launch(team, head_size);
    stream.hopper()?;
    if step.requests * step.beams == 0 {
        return Ok(());
    }
    let launch = match (team, head_size) {
        (Team::Cluster(_), 32) => decode_step_cluster_32,
        (Team::Cluster(_), _) => decode_step_cluster_64,
        (Team::Grid(_), 32) => decode_step_grid_32,
        (Team::Grid(_), _) => decode_step_grid_64,
    };
    launch(stream, shape, step)
}
