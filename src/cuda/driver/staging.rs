//! Page-locked host memory that a stream's small copies go through.

use std::ptr;

use cudarc::driver::sys::CUstream;
use cudarc::driver::{DriverError, result};

use crate::cuda::launch::{Address, Download};

/// Bytes of the staging memory of a stream. Copies that are larger (weights, catalogs) are rare and go without it.
pub(super) const STAGING_BYTES: usize = 4 << 20;

/// Each copy starts on a line of its own.
const LINE: usize = 64;

/// Staging memory: the device reads and writes it while the host goes on, and at the full rate of the bus, which it
/// does not with memory that may be paged out. It is used from the front, and again after the stream was waited for.
pub(super) struct Staging {
    start: *mut u8,
    used: usize,
}

// SAFETY: the memory belongs to this object alone, and any thread may use it.
unsafe impl Send for Staging {}

/// Bytes that copies take up in staging memory.
fn staged_bytes(copies: &[Download]) -> usize {
    copies.iter().map(|copy| copy.to.len().next_multiple_of(LINE)).sum()
}

impl Staging {
    /// Whether there is room for these copies.
    pub fn holds(copies: &[Download]) -> bool {
        staged_bytes(copies) <= STAGING_BYTES
    }

    /// Allocates it in the current context.
    pub fn new() -> Result<Self, DriverError> {
        // SAFETY: there are no requirements; the contents are undefined, and are written before they are read.
        let start = unsafe { result::malloc_host(STAGING_BYTES, 0) }?;
        Ok(Self { start: start.cast(), used: 0 })
    }

    /// Takes `bytes`, at most [`STAGING_BYTES`], waiting for the stream where all is in use.
    fn take(&mut self, bytes: usize, stream: CUstream) -> Result<*mut u8, DriverError> {
        if self.used + bytes > STAGING_BYTES {
            self.synchronize(stream)?;
        }
        let start = self.start.wrapping_add(self.used);
        self.used = (self.used + bytes).next_multiple_of(LINE);
        Ok(start)
    }

    /// Waits for the stream; all of the memory is free again.
    pub fn synchronize(&mut self, stream: CUstream) -> Result<(), DriverError> {
        // SAFETY: the caller's stream lives.
        unsafe { result::stream::synchronize(stream) }?;
        self.used = 0;
        Ok(())
    }

    /// Enqueues a copy of `from`, at most [`STAGING_BYTES`], to the device.
    ///
    /// # Safety
    /// `to` is device memory with room for it, and all of this object's copies are on the one stream.
    pub unsafe fn upload(&mut self, to: Address, from: &[u8], stream: CUstream) -> Result<(), DriverError> {
        let staged = self.take(from.len(), stream)?;
        // SAFETY: `take` gave room for so many bytes, which nothing that is enqueued uses; the copy to the device has
        // been made before they are given out again.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr(), staged, from.len());
            result::memcpy_htod_async(to, std::slice::from_raw_parts(staged, from.len()), stream)
        }
    }

    /// Waits for the stream and copies from the device: as much as [`Staging::holds`].
    ///
    /// # Safety
    /// As of [`Staging::upload`].
    pub unsafe fn download(&mut self, copies: &mut [Download], stream: CUstream) -> Result<(), DriverError> {
        let staged = self.take(staged_bytes(copies), stream)?;
        let mut places = Vec::with_capacity(copies.len());
        let mut place = staged;
        for copy in &*copies {
            places.push(place);
            let bytes = copy.to.len();
            // SAFETY: `take` gave room for all of them, which nothing that is enqueued uses.
            unsafe {
                result::memcpy_dtoh_async(std::slice::from_raw_parts_mut(place, bytes), copy.from, stream)?;
            }
            place = place.wrapping_add(bytes.next_multiple_of(LINE));
        }
        self.synchronize(stream)?;
        for (copy, place) in copies.iter_mut().zip(places) {
            // SAFETY: the stream was waited for, so these bytes are there.
            unsafe { ptr::copy_nonoverlapping(place, copy.to.as_mut_ptr(), copy.to.len()) };
        }
        Ok(())
    }

    /// Gives the memory back to the context, which is current.
    ///
    /// # Safety
    /// Nothing that is enqueued uses it, and it is not used again.
    pub unsafe fn free(&mut self) -> Result<(), DriverError> {
        // SAFETY: `new` allocated it; the rest is the caller's promise.
        unsafe { result::free_host(self.start.cast()) }
    }
}
