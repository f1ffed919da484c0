//! Stand-alone auctions on the GPU: the integers of [`crate::auction::standalone`].

use std::num::NonZeroU64;
use std::sync::Arc;

use super::launch::{Buffer, LaunchShape, Stream};
use super::tiling::size;
use crate::auction::batch::AuctionBatch;
use crate::auction::standalone::Outcomes;
use crate::error::DeviceError;
use crate::money::Micros;

crate::kernels! {
    in "auction";

    /// Winners and payments of every slot of every auction.
    fn auction(
        rules: Ptr<u8>,
        tie_seeds: Ptr<u64>,
        bidder_offsets: Ptr<u32>,
        bids: Ptr<u64>,
        reserves: Ptr<u64>,
        weights: Ptr<f64>,
        ids: Ptr<u64>,
        slot_offsets: Ptr<u32>,
        effects: Ptr<f64>,
        unit: u64,
        auctions: u32,
        winners: PtrMut<u32>,
        payments: PtrMut<u64>,
    );
}

pub(super) const THREADS: u32 = 128;
pub(super) const AUCTIONS_PER_BLOCK: usize = 4;

/// A batch of auctions in device memory, and room for its outcomes.
#[derive(Debug)]
pub struct DeviceBatch {
    pub(super) rules: Buffer<u8>,
    pub(super) tie_seeds: Buffer<u64>,
    pub(super) bidder_offsets: Buffer<u32>,
    pub(super) bids: Buffer<u64>,
    pub(super) reserves: Buffer<u64>,
    pub(super) weights: Buffer<f64>,
    ids: Option<Buffer<u64>>,
    pub(super) slot_offsets: Buffer<u32>,
    pub(super) effects: Buffer<f64>,
    winners: Buffer<u32>,
    payments: Buffer<u64>,
}

impl DeviceBatch {
    /// Uploads a batch.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(stream: &Arc<dyn Stream>, batch: &AuctionBatch) -> Result<Self, DeviceError> {
        let ids = (!batch.ids.is_empty()).then(|| Buffer::from_slice(stream, &batch.ids));
        let slots = batch.position_effects.len();
        Ok(Self {
            rules: Buffer::from_slice(stream, &batch.rules)?,
            tie_seeds: Buffer::from_slice(stream, &batch.tie_seeds)?,
            bidder_offsets: Buffer::from_slice(stream, &batch.bidder_offsets)?,
            bids: Buffer::from_slice(stream, &batch.bids)?,
            reserves: Buffer::from_slice(stream, &batch.reserves)?,
            weights: Buffer::from_slice(stream, &batch.weights)?,
            ids: ids.transpose()?,
            slot_offsets: Buffer::from_slice(stream, &batch.slot_offsets)?,
            effects: Buffer::from_slice(stream, &batch.position_effects)?,
            winners: Buffer::new(stream, slots)?,
            payments: Buffer::new(stream, slots)?,
        })
    }

    /// Enqueues all auctions of the batch. Payments are multiples of `unit` micros where bid and reserve allow.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn run(&mut self, stream: &dyn Stream, unit: NonZeroU64) -> Result<(), DeviceError> {
        let auctions = self.rules.len();
        if auctions == 0 {
            return Ok(());
        }
        auction(
            stream,
            LaunchShape::new([size(auctions.div_ceil(AUCTIONS_PER_BLOCK)), 1, 1], THREADS),
            self.rules.ptr(),
            self.tie_seeds.ptr(),
            self.bidder_offsets.ptr(),
            self.bids.ptr(),
            self.reserves.ptr(),
            self.weights.ptr(),
            self.ids(),
            self.slot_offsets.ptr(),
            self.effects.ptr(),
            unit.get(),
            size(auctions),
            self.winners.ptr_mut(),
            self.payments.ptr_mut(),
        )
    }

    /// The bidders' ids; null where they are the indices.
    pub(super) fn ids(&self) -> Ptr<u64> {
        self.ids.as_ref().map_or(Ptr::NULL, Buffer::ptr)
    }

    /// Waits for the auctions and copies their outcomes.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn outcomes(&self) -> Result<Outcomes, DeviceError> {
        let payments = self.payments.to_vec()?.into_iter().map(Micros).collect();
        Ok(Outcomes { winners: self.winners.to_vec()?, payments })
    }
}
