//! The search of a batch in one launch, by a team of blocks: the same bits as the launches of [`super::decoder`] and
//! [`super::search`], position after position.

use bytemuck::{Pod, Zeroable};

use super::decode_step::{DecodeStep, Team};
use super::launch::{Kernel, KernelArgument, Stream};
use crate::error::DeviceError;

crate::kernels! {
    in "persistent_search";

    /// A request by each cluster, heads of 32.
    fn persistent_search_cluster_32(all: PersistentSearch);
    /// A request by each cluster, heads of 64.
    fn persistent_search_cluster_64(all: PersistentSearch);
    /// All requests by all blocks, heads of 32.
    fn persistent_search_grid_32(all: PersistentSearch);
    /// All requests by all blocks, heads of 64.
    fn persistent_search_grid_64(all: PersistentSearch);
}

/// Beams of a request, at most: a thread each.
pub const MOST_BEAMS: usize = 256;

/// The tables of a search, as `kernels/search.cuh` lays them out.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
#[allow(missing_docs, reason = "search.cuh, expand.cu and select.cu tell what each is")]
pub struct SearchArrays {
    pub nodes: Ptr<u32>,
    pub bids: Ptr<u64>,
    pub ads: Ptr<u32>,
    pub ad_bids: Ptr<u64>,
    pub ad_ids: Ptr<u64>,
    pub rules: Ptr<u32>,
    pub terms: Ptr<f64>,
    pub seeds: Ptr<u64>,
    pub organic: Ptr<u32>,
    pub organic_ids: Ptr<u64>,
    pub ln_w: Ptr<f64>,
    pub progress: PtrMut<u32>,
    pub beams: PtrMut<u32>,
    pub sums: PtrMut<f64>,
    pub rows: PtrMut<u32>,
    pub chosen: PtrMut<u32>,
    pub chosen_ln_z: PtrMut<f64>,
    pub ln_z: PtrMut<f64>,
    pub best: PtrMut<u64>,
    pub tokens: PtrMut<u32>,
    pub position: PtrMut<u32>,
}

/// The argument of the kernels: `PersistentSearch` of `kernels/persistent_search.cu`, field by field.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct PersistentSearch {
    /// Position 0, with the heads of all code layers.
    pub decode: DecodeStep,
    /// What the beams are chosen by.
    pub tables: SearchArrays,
    /// Positions that are decoded before the last.
    pub steps: u64,
    /// Code layers of an item.
    pub layers: u32,
    /// Entries of a row's path.
    pub positions: u32,
    /// The token of code 0 in layer 0.
    pub first_code_token: u32,
    /// The token that begins a list.
    pub boi: u32,
}

impl KernelArgument for PersistentSearch {
    const CPP: &'static str = "PersistentSearch";

    fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }
}

/// The kernel of a team.
pub(super) fn kernel(team: Team, head_size: usize) -> &'static Kernel {
    &KERNELS[team.index(head_size)]
}

/// Runs the whole search of a batch that has begun.
///
/// # Errors
/// [`DeviceError::NotHopper`] on any other card, [`DeviceError::Failed`].
///
/// # Panics
/// If the sizes do not fit.
pub fn persistent_search(
    stream: &dyn Stream,
    team: Team,
    head_size: usize,
    all: PersistentSearch,
) -> Result<(), DeviceError> {
    let shape = all.decode.launch(team, head_size);
    assert!(all.decode.beams as usize <= MOST_BEAMS, "{} beams", all.decode.beams);
    stream.hopper()?;
    if all.decode.requests * all.decode.beams == 0 {
        return Ok(());
    }
    let launch = match (team, head_size) {
        (Team::Cluster(_), 32) => persistent_search_cluster_32,
        (Team::Cluster(_), _) => persistent_search_cluster_64,
        (Team::Grid(_), 32) => persistent_search_grid_32,
        (Team::Grid(_), _) => persistent_search_grid_64,
    };
    launch(stream, shape, all)
}
