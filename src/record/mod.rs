//! The audit record: what was allocated and charged, and all that is needed to do it again, one JSON line each.
//!
//! A [`Recorder`] answers requests through an engine and appends a line for every answer to a file before it hands the
//! answer out. A line holds the weights' digest, the bids that the request saw, the request with its defaults filled in,
//! and per ad the bid, the reserve, the price before and after rounding and what the price rests on. It carries a
//! checksum and is written whole, so that a crash loses whole records and never half of one.
//!
//! A [`RecordReader`] reads such a file and says of every line that is truncated or corrupted what is wrong with it.
//! [`AllocationRecord::replay`] and [`AuctionRecord::replay`] run a record again and name every field that is not the same to the bit; [`explain`] says in words why
//! each ad won and why it pays what it pays. `docs/records.md` states the format.

mod allocation;
mod auction;
mod compare;
mod explain;
mod line;
mod recorder;
mod replay;
mod state;
mod writer;

pub use allocation::{AdRecord, AllocationRecord, SlotRecord, charge_key};
pub use auction::AuctionRecord;
pub use compare::Difference;
pub use explain::explain;
pub use line::{FORMAT_VERSION, LineFault, RecordReader};
pub use recorder::Recorder;
pub use replay::ReplayError;
pub use state::{AdState, AdvertiserState, CatalogState, MOST_CHANGES};
pub use writer::{RecordError, RecordWriter};

use serde::{Deserialize, Serialize};

/// A record, by what it is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A request that was answered.
    Allocation(Box<AllocationRecord>),
    /// A stand-alone auction.
    Auction(Box<AuctionRecord>),
}

impl Record {
    /// The name of what was recorded.
    pub fn id(&self) -> &crate::request::RequestId {
        match self {
            Self::Allocation(record) => &record.request.id,
            Self::Auction(record) => &record.auction.id,
        }
    }
}

/// Version of the engine that writes records.
pub(crate) const ENGINE: &str = env!("CARGO_PKG_VERSION");
