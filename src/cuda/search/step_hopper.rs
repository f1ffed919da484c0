//! Launches of `kernels/search_step_hopper.cu`: head, expansion and selection of a step by a cluster for each request.

use half::bf16;

use super::layout;
use crate::cuda::beam_attention_hopper::Cluster;
use crate::cuda::norm_product::{self, NormedRows};
use crate::cuda::tiling::BUSY_BLOCKS;

crate::kernels! {
    in "search_step_hopper";

    /// A step of every request from the decoder's rows.
    fn search_step_hopper(
        x: Ptr<f32>,
        norm: Ptr<f32>,
        w: Ptr<bf16>,
        hidden: PtrMut<f32>,
        nodes: Ptr<u32>,
        bids: Ptr<u64>,
        ads: Ptr<u32>,
        ad_bids: Ptr<u64>,
        ad_ids: Ptr<u64>,
        rules: Ptr<u32>,
        terms: Ptr<f64>,
        seeds: Ptr<u64>,
        organic: Ptr<u32>,
        organic_ids: Ptr<u64>,
        ln_w: Ptr<f64>,
        progress: PtrMut<u32>,
        beams: PtrMut<u32>,
        sums: PtrMut<f64>,
        rows: PtrMut<u32>,
        chosen: PtrMut<u32>,
        chosen_ln_z: PtrMut<f64>,
        tokens: PtrMut<u32>,
        position: PtrMut<u32>,
        n: u32,
        layers: u32,
        codes: u32,
        positions: u32,
        first_code_token: u32,
        boi: u32,
        d: u32,
        eps: f32,
    );
}

/// Threads of a block.
pub(super) const THREADS: u32 = 256;
/// Most rows of a request.
const MOST_ROWS: usize = 256;
/// Bytes of a candidate, of a beam of this step and of the next, and of what a block needs beside its arrays.
const CANDIDATE_BYTES: usize = 32;
const BEAM_BYTES: usize = 32;
const NEXT_BYTES: usize = 64;
const BLOCK_BYTES: usize = 3952;
/// Codes of a beam that a warp multiplies with at once.
const FEW_CODES: usize = 8;

/// The norm and the product that make the logits of a step.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// The decoder's rows, as many as the searches have.
    pub rows: NormedRows,
    /// The head's rows of the code layer, [W, d], aligned to 16 bytes.
    pub w: Ptr<bf16>,
    /// Takes the normed rows, [m, d].
    pub hidden: PtrMut<f32>,
}

/// Sizes that the memory of a step depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepSizes {
    /// Rows of a request.
    pub rows: usize,
    pub codes: usize,
    pub layers: usize,
    pub positions: usize,
    /// Columns of a row.
    pub d: usize,
}

impl StepSizes {
    /// Shared memory of a block: `StepMemory` of `kernels/step_memory.cuh`.
    pub(super) fn shared_bytes(&self, cluster: Cluster) -> usize {
        let Self { rows, codes, layers, positions, d } = *self;
        let (blocks, round) = (cluster as usize, |bytes: usize| bytes.next_multiple_of(16));
        let slots = rows.div_ceil(blocks);
        let used = layout::expand_shared(layers, (positions - 1) / layers) as usize;
        let warps = THREADS as usize / 32;
        let few = (slots + warps * FEW_CODES) * (d.next_multiple_of(16) * 2 + 16);
        let expansion = slots * layout::ways(codes) * 8 + warps * used;
        let parts = [
            norm_product::shared_bytes(d).max(few).max(expansion),
            blocks * rows * CANDIDATE_BYTES,
            slots * codes * 4,
            slots * NEXT_BYTES,
            slots * BEAM_BYTES,
            rows * 20,
            slots * positions * 4,
            BLOCK_BYTES,
        ];
        parts.into_iter().map(round).sum()
    }

    /// The cluster for a step of so many requests, in which it finds room where a block may have `held` bytes: large ones
    /// for few requests, that the card is not idle, small ones for many, whose blocks repeat less of each other's work.
    pub(super) fn cluster(&self, requests: usize, held: usize) -> Option<Cluster> {
        let (large, small) = (Cluster::Eight, Cluster::Four);
        // A block has most of a multiprocessor's shared memory.
        let few = requests * large as usize <= BUSY_BLOCKS / 2;
        let order = if few { [large, small] } else { [small, large] };
        let fits = |cluster: &Cluster| self.rows <= MOST_ROWS && self.shared_bytes(*cluster) <= held;
        order.into_iter().find(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_requests_take_small_clusters_as_far_as_they_fit() {
        let cluster = |requests, d, rows, codes| {
            StepSizes { rows, codes, layers: 3, positions: 31, d }.cluster(requests, 232_448)
        };
        assert_eq!(cluster(1, 256, 64, 1024), Some(Cluster::Eight));
        assert_eq!(cluster(128, 256, 64, 1024), Some(Cluster::Four));
        assert_eq!(cluster(128, 1024, 64, 1024), Some(Cluster::Eight));
        assert_eq!(cluster(1, 256, 257, 64), None);
        assert_eq!(cluster(1, 256, 64, 65_536), None);
    }
}
