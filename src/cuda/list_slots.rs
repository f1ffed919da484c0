//! From the lists of a search to what creatives, reward model and payment network read of their slots.

use std::sync::Arc;

use super::launch::{Buffer, LaunchShape, Stream};
use super::search::SearchedLists;
use super::tiling::size;
use crate::error::DeviceError;
use crate::model::config::BOC;

crate::kernels! {
    in "list_slots";

    /// Looks up what stands in each slot of each list.
    fn list_slots(
        items: Ptr<u32>,
        list_ads: Ptr<u32>,
        counts: Ptr<u32>,
        paths: Ptr<u32>,
        ad_bids: Ptr<u64>,
        creative_offsets: Ptr<u32>,
        requests: u32,
        per_request: u32,
        slots: u32,
        layers: u32,
        positions: u32,
        boc: u32,
        lengths: PtrMut<i32>,
        list_request: PtrMut<u32>,
        offsets: PtrMut<u32>,
        hidden_row: PtrMut<u32>,
        creative: PtrMut<u32>,
        creatives_end: PtrMut<u32>,
        token: PtrMut<u32>,
        bids: PtrMut<u64>,
        fault: PtrMut<u32>,
    );
}

const THREADS: u32 = 256;

/// Slots of the lists of a batch, in device memory: slot i of list l is row `l * slots + i`.
#[derive(Debug)]
pub struct ListSlots {
    /// Filled slots of each list, [`NO_LIST`](super::lists::NO_LIST) where there is none.
    pub lengths: Buffer<i32>,
    /// Request of each list.
    pub list_request: Buffer<u32>,
    /// First list of each request, and their end.
    pub offsets: Buffer<u32>,
    /// Row of the POI decoder's hidden states behind the item's last code, or
    /// [`NO_ROW`](super::creative_input::NO_ROW).
    pub hidden_row: Buffer<u32>,
    /// Places in the catalog of the first creative that is left to choose from, and behind the last. Once all is
    /// decided the first is the choice.
    pub creative: Buffer<u32>,
    /// See `creative`.
    pub creatives_end: Buffer<u32>,
    /// Token of the creative's code before the one to be chosen.
    pub token: Buffer<u32>,
    /// Bid in micros, 0 for organic items and empty slots.
    pub bids: Buffer<u64>,
    /// Of each request: 1 where the logit of a creative's code is not finite.
    pub fault: Buffer<u32>,
}

impl ListSlots {
    /// Room for `per_request` lists of `slots` slots for each of `requests` requests.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(
        stream: &Arc<dyn Stream>,
        requests: usize,
        per_request: usize,
        slots: usize,
    ) -> Result<Self, DeviceError> {
        let lists = requests * per_request;
        let rows = lists * slots;
        Ok(Self {
            lengths: Buffer::new(stream, lists)?,
            list_request: Buffer::new(stream, lists)?,
            offsets: Buffer::new(stream, requests + 1)?,
            hidden_row: Buffer::new(stream, rows)?,
            creative: Buffer::new(stream, rows)?,
            creatives_end: Buffer::new(stream, rows)?,
            token: Buffer::new(stream, rows)?,
            bids: Buffer::new(stream, rows)?,
            fault: Buffer::new(stream, requests)?,
        })
    }

    /// Opens the slots of `lists`. `creative_offsets` are the catalog's, [items + 1].
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn open(
        &mut self,
        stream: &dyn Stream,
        lists: SearchedLists,
        creative_offsets: &Buffer<u32>,
    ) -> Result<(), DeviceError> {
        let SearchedLists { requests, per_request, slots, layers, positions, .. } = lists;
        let rows = requests * per_request * slots;
        assert!(self.lengths.len() >= requests * per_request && self.offsets.len() > requests);
        assert!(self.hidden_row.len() >= rows && lists.items.len() >= rows);
        if rows == 0 {
            return Ok(());
        }
        list_slots(
            stream,
            LaunchShape::new([size(rows).div_ceil(THREADS), 1, 1], THREADS),
            lists.items.ptr(),
            lists.ads.ptr(),
            lists.counts.ptr(),
            lists.paths.ptr(),
            lists.ad_bids.ptr(),
            creative_offsets.ptr(),
            size(requests),
            size(per_request),
            size(slots),
            size(layers),
            size(positions),
            BOC as u32,
            self.lengths.ptr_mut(),
            self.list_request.ptr_mut(),
            self.offsets.ptr_mut(),
            self.hidden_row.ptr_mut(),
            self.creative.ptr_mut(),
            self.creatives_end.ptr_mut(),
            self.token.ptr_mut(),
            self.bids.ptr_mut(),
            self.fault.ptr_mut(),
        )
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let words = [
            &self.list_request,
            &self.offsets,
            &self.hidden_row,
            &self.creative,
            &self.creatives_end,
            &self.token,
            &self.fault,
        ];
        words.iter().map(|b| b.bytes()).sum::<usize>() + self.lengths.bytes() + self.bids.bytes()
    }
}
