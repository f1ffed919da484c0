//! The catalog's items and creatives in device memory: one copy for all streams of a device. Bids are elsewhere, with the
//! ads of a search.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::launch::{Buffer, Element, Stream};
use crate::catalog::Snapshot;
use crate::error::DeviceError;
use crate::model::config::ModelConfig;

/// Items and creatives as the kernels read them. The creatives of an item lie together, sorted by their codes, equals in
/// catalog order: a creative is named by its place among all.
pub struct DeviceCatalog {
    /// Tells this state of the catalog from all others of the device.
    number: u64,
    /// A snapshot with these items.
    snapshot: Snapshot,
    /// Row in the snapshot of the creative at each place, `[M]`.
    rows: Vec<u32>,
    /// [N, C_p]
    pub item_codes: Buffer<u16>,
    /// Raw embeddings, [N, d_item].
    pub embeddings: Buffer<f32>,
    /// Places of each item's creatives, `[N + 1]`.
    pub creative_offsets: Buffer<u32>,
    /// By place, [M, C_c].
    pub creative_codes: Buffer<u16>,
}

/// Most bytes that are gathered on the host for one copy.
const PIECE_BYTES: usize = 16 << 20;

impl DeviceCatalog {
    /// Uploads the items and creatives of `snapshot`, and waits until they are there for every stream.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn upload(
        stream: &Arc<dyn Stream>,
        config: &ModelConfig,
        snapshot: &Snapshot,
    ) -> Result<Self, DeviceError> {
        let items = snapshot.len();
        let ModelConfig { poi_code_layers, creative_code_layers, item_embedding_size, .. } = *config;
        let rows = by_codes(snapshot);
        let catalog = Self {
            number: 0,
            item_codes: gather(stream, items, poi_code_layers, |item, out| {
                out.copy_from_slice(snapshot.codes(item));
            })?,
            embeddings: gather(stream, items, item_embedding_size, |item, out| {
                snapshot.embedding(item, out)
            })?,
            creative_offsets: gather(stream, items + 1, 1, |item, out| {
                out[0] = if item == 0 { 0 } else { snapshot.creatives(item - 1).end };
            })?,
            creative_codes: gather(stream, rows.len(), creative_code_layers, |place, out| {
                out.copy_from_slice(snapshot.creative_codes(rows[place as usize]));
            })?,
            rows,
            snapshot: snapshot.clone(),
        };
        stream.synchronize()?;
        Ok(catalog)
    }

    /// Tells this state of the catalog from all others that [`Catalogs`] held.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Row in the snapshot of the creative at a place.
    pub fn row(&self, place: u32) -> u32 {
        self.rows[place as usize]
    }

    /// Place of a creative of an item; both are rows of the snapshot.
    ///
    /// # Panics
    /// If the creative is not the item's.
    pub fn place(&self, item: u32, creative: u32) -> u32 {
        let mut places = self.snapshot.creatives(item);
        places.find(|&place| self.row(place) == creative).expect("a creative of the item")
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let codes = self.item_codes.bytes() + self.creative_codes.bytes();
        codes + self.embeddings.bytes() + self.creative_offsets.bytes()
    }
}

/// The creatives of all items, item after item: those of each sorted by their codes.
fn by_codes(snapshot: &Snapshot) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..snapshot.creatives_len() as u32).collect();
    for item in 0..snapshot.len() as u32 {
        let creatives = snapshot.creatives(item);
        // The sort is stable.
        rows[creatives.start as usize..creatives.end as usize]
            .sort_by_key(|&creative| snapshot.creative_codes(creative));
    }
    rows
}

/// An array [rows, width] on the device, of which `read` writes a row at a time.
fn gather<T: Element>(
    stream: &Arc<dyn Stream>,
    rows: usize,
    width: usize,
    read: impl Fn(u32, &mut [T]),
) -> Result<Buffer<T>, DeviceError> {
    let mut buffer = Buffer::new(stream, rows * width)?;
    let most = (PIECE_BYTES / (width * size_of::<T>())).max(1);
    let mut piece = vec![T::zeroed(); most.min(rows) * width];
    for first in (0..rows).step_by(most) {
        let count = most.min(rows - first);
        for (row, out) in (first..first + count).zip(piece.chunks_exact_mut(width)) {
            read(row as u32, out);
        }
        buffer.upload(first * width, &piece[..count * width])?;
    }
    Ok(buffer)
}

/// The catalogs on a device: the newest, and those that older batches still use.
#[derive(Default)]
pub struct Catalogs(Mutex<Held>);

#[derive(Default)]
struct Held {
    catalogs: Vec<Arc<DeviceCatalog>>,
    /// How many there were so far.
    uploaded: u64,
}

impl Catalogs {
    /// The items and creatives of `snapshot`: uploaded by `stream` where the device does not hold them. It is to be kept
    /// until whatever reads it is done.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], [`DeviceError::Failed`].
    pub fn hold(
        &self,
        stream: &Arc<dyn Stream>,
        config: &ModelConfig,
        snapshot: &Snapshot,
    ) -> Result<Arc<DeviceCatalog>, DeviceError> {
        let mut held = self.lock();
        let versions = held.catalogs.iter().map(|catalog| catalog.snapshot.version());
        let newest = versions.fold(snapshot.version(), u64::max);
        // Before another is uploaded: of a large catalog two may not fit.
        held.catalogs.retain(|catalog| {
            let used = Arc::strong_count(catalog) > 1;
            used || catalog.snapshot.version() == newest || catalog.snapshot.shares_items(snapshot)
        });
        if let Some(catalog) = held.catalogs.iter().find(|held| held.snapshot.shares_items(snapshot)) {
            return Ok(catalog.clone());
        }
        let number = held.uploaded;
        let catalog = Arc::new(DeviceCatalog { number, ..DeviceCatalog::upload(stream, config, snapshot)? });
        held.uploaded += 1;
        held.catalogs.push(catalog.clone());
        Ok(catalog)
    }

    /// Runs `work` while no catalog is uploaded or given back: a recording of its stream would be spoilt by that.
    pub fn undisturbed<T>(&self, work: impl FnOnce() -> T) -> T {
        let _held = self.lock();
        work()
    }

    /// A panic while it was locked left it as it was before a change.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
