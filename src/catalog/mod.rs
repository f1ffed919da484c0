//! The catalog: items, bids and creatives, live, in consistent snapshots.
//!
//! A [`Catalog`] is opened from the columns of one safetensors file (spec section 7) or from [`Columns`] in
//! memory. Requests read a [`Snapshot`], which never changes; [`Catalog::apply`] makes the next one while
//! they run. Items keep their row for the life of a catalog, so rows of an older snapshot mean the same in a
//! newer.

mod ads;
mod bids;
mod build;
mod codes;
mod columns;
mod embeddings;
mod file;
mod fit;
mod ids;
mod index;
mod lines;
mod quantizer;
mod snapshot;
mod stats;
mod store;
mod tree;
mod update;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::error::{CatalogError, UpdateError};
use crate::model::config::ModelConfig;

pub use ads::AdIndex;
pub use bids::Aggregate;
pub use build::{CatalogBuilder, Quantizers, read_embeddings};
pub use codes::{CodeReport, LayerUse};
pub use columns::{Columns, NO_ADVERTISER};
pub use fit::{FitOptions, fit};
pub use index::IndexOptions;
pub use quantizer::{EncodeError, EncoderLayer, Quantizer, QuantizerKind, read_matrix};
pub use snapshot::{Rejection, Snapshot};
pub use stats::CatalogStats;
pub use update::{NewAdvertiser, NewCreative, NewItem, Update};

use columns::Shape;
use embeddings::Embeddings;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ItemKind {
    /// Content that nobody pays for: no bid, no payment.
    Organic = 0,
    /// Content with a bid.
    Ad = 1,
}

/// A live catalog: the current [`Snapshot`], and the one way to replace it.
///
/// Readers never wait, neither for each other nor for writers; writers wait for each other.
pub struct Catalog {
    current: ArcSwap<Snapshot>,
    /// Serialises writers; what they write is `current`.
    writer: Mutex<()>,
}

impl Catalog {
    /// Opens a catalog file made for a model of this configuration.
    ///
    /// Item embeddings stay in the mapped file, all else is copied. Replace a catalog file by renaming
    /// another over it, as `bidslate catalog build` does: truncating a mapped file kills the processes that
    /// read it.
    ///
    /// # Errors
    /// [`CatalogError::Io`] where the file cannot be read, [`CatalogError::Format`] where it is no
    /// safetensors file, [`CatalogError::Columns`] listing every missing, unexpected, wrongly shaped or
    /// wrongly typed column, [`CatalogError::Value`] naming the first value that is out of range. A NaN in an
    /// embedding is not an error: that item is rejected with [`Rejection::NonFiniteEmbedding`], the others
    /// are not touched.
    pub fn open(path: &Path, config: &ModelConfig) -> Result<Self, CatalogError> {
        let shape = Shape::of(config);
        let (columns, embeddings) = file::read(path, &shape)?;
        columns.check_as(&shape, embeddings.rows(), path)?;
        Ok(Self::new(Snapshot::first(shape, columns, embeddings, path)?))
    }

    /// A catalog of columns in memory.
    ///
    /// # Errors
    /// As [`Catalog::open`], but for files.
    pub fn from_columns(mut columns: Columns, config: &ModelConfig) -> Result<Self, CatalogError> {
        columns.check(config)?;
        let shape = Shape::of(config);
        let embeddings = Embeddings::in_memory(std::mem::take(&mut columns.embeddings), shape.embedding);
        Ok(Self::new(Snapshot::first(shape, columns, embeddings, Path::new(columns::IN_MEMORY))?))
    }

    fn new(first: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(first), writer: Mutex::new(()) }
    }

    /// The catalog as it is now. A snapshot never changes: a request keeps one from start to end.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Applies all updates, or none, and returns the version of the snapshot that has them.
    ///
    /// Insertions of a batch take effect before its other updates, whatever their order; among the others
    /// the last one wins. The version grows by exactly one per successful call.
    ///
    /// A change of bid, reserve, activity or budget costs microseconds, whatever the size of the catalog; a
    /// change of pacing, and a budget that is spent or granted again, that for every ad of the advertiser.
    /// Insertions copy the catalog's columns and merge the index, once per call and linear in the catalog
    /// (about a second at ten million items): gather them. Other writers wait meanwhile, readers do not.
    ///
    /// # Errors
    /// [`UpdateError`] naming the update and the field; nothing was applied.
    pub fn apply(&self, updates: &[Update]) -> Result<u64, UpdateError> {
        // A writer that panicked left `current` as it was, so its lock is as good as a free one.
        let _guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let next = update::apply(&self.current.load_full(), updates)?;
        let version = next.version();
        self.current.store(Arc::new(next));
        Ok(version)
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let snapshot = self.snapshot();
        let (items, ads) = (snapshot.len(), snapshot.ads().len());
        write!(f, "Catalog {{ version: {}, items: {items}, ads: {ads} }}", snapshot.version())
    }
}
