//! Utilities under misreported bids on the GPU: the numbers of [`crate::auction::regret`].

use std::num::NonZeroU64;
use std::sync::Arc;

use super::auction::{AUCTIONS_PER_BLOCK, DeviceBatch, THREADS};
use super::launch::{Buffer, LaunchShape, Stream};
use super::tiling::size;
use crate::auction::regret::GammaGrid;
use crate::error::DeviceError;

crate::kernels! {
    in "auction_regret";

    /// Utilities of every bidder under every gamma.
    fn auction_regret(
        rules: Ptr<u8>,
        tie_seeds: Ptr<u64>,
        bidder_offsets: Ptr<u32>,
        bids: Ptr<u64>,
        reserves: Ptr<u64>,
        weights: Ptr<f64>,
        ids: Ptr<u64>,
        slot_offsets: Ptr<u32>,
        effects: Ptr<f64>,
        gammas: Ptr<f64>,
        count: u32,
        unit: u64,
        auctions: u32,
        ranking: PtrMut<u32>,
        utilities: PtrMut<f64>,
    );
}

/// A grid of misreports in device memory, and room for the utilities of a batch under it.
#[derive(Debug)]
pub struct Misreports {
    gammas: Buffer<f64>,
    ranking: Buffer<u32>,
    utilities: Buffer<f64>,
}

impl Misreports {
    /// Uploads the grid, with room for `batch`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(stream: &Arc<dyn Stream>, batch: &DeviceBatch, grid: &GammaGrid) -> Result<Self, DeviceError> {
        Ok(Self {
            gammas: Buffer::from_slice(stream, grid.gammas())?,
            ranking: Buffer::new(stream, batch.effects.len() + batch.rules.len())?,
            utilities: Buffer::new(stream, batch.bids.len() * grid.gammas().len())?,
        })
    }

    /// Enqueues every misreport of every bidder of `batch`, the one that this was made for.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn run(
        &mut self,
        stream: &dyn Stream,
        batch: &DeviceBatch,
        unit: NonZeroU64,
    ) -> Result<(), DeviceError> {
        let (auctions, count) = (batch.rules.len(), self.gammas.len());
        assert_eq!(self.ranking.len(), batch.effects.len() + auctions);
        assert_eq!(self.utilities.len(), batch.bids.len() * count);
        if self.utilities.is_empty() {
            return Ok(());
        }
        auction_regret(
            stream,
            LaunchShape::new([size(auctions.div_ceil(AUCTIONS_PER_BLOCK)), 1, 1], THREADS),
            batch.rules.ptr(),
            batch.tie_seeds.ptr(),
            batch.bidder_offsets.ptr(),
            batch.bids.ptr(),
            batch.reserves.ptr(),
            batch.weights.ptr(),
            batch.ids(),
            batch.slot_offsets.ptr(),
            batch.effects.ptr(),
            self.gammas.ptr(),
            size(count),
            unit.get(),
            size(auctions),
            self.ranking.ptr_mut(),
            self.utilities.ptr_mut(),
        )
    }

    /// Waits for the sweep and copies the utilities, [bidders, gammas].
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn utilities(&self) -> Result<Vec<f64>, DeviceError> {
        self.utilities.to_vec()
    }
}
