//! Slot vectors of the reward model: what it sees of the items and creatives of a list, and of the user.

use half::bf16;

use super::launch::{Buffer, LaunchShape, Stream};
use super::lists::Lists;
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "reward_input";

    /// `x = [sum of POI embeddings ; sum of creative embeddings ; mean ; e_poi]` of every slot.
    fn reward_input(
        items: Ptr<u32>,
        creatives: Ptr<u32>,
        lengths: Ptr<i32>,
        requests: Ptr<u32>,
        embed: Ptr<bf16>,
        poi_codes: Ptr<u16>,
        creative_codes: Ptr<u16>,
        mean: Ptr<f32>,
        embedding: Ptr<f32>,
        poi_layers: u32,
        creative_layers: u32,
        codebook: u32,
        slots: u32,
        d: u32,
        d_item: u32,
        x: PtrMut<f32>,
    );
}

const THREADS: u32 = 256;

/// What the lists show.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Item of each filled slot: a row of [`Tables::poi_codes`] and [`Tables::embedding`], `[rows]`.
    pub items: &'a Buffer<u32>,
    /// Its creative: a row of [`Tables::creative_codes`], `[rows]`.
    pub creatives: &'a Buffer<u32>,
    /// Request of each list, `[lists]`.
    pub requests: &'a Buffer<u32>,
}

/// What is known of items and creatives.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// Token embeddings, [V, d].
    pub embed: &'a Buffer<bf16>,
    /// [items, C_p]
    pub poi_codes: &'a Buffer<u16>,
    /// [creatives, C_c]
    pub creative_codes: &'a Buffer<u16>,
    /// e_poi, [items, d_item].
    pub embedding: &'a Buffer<f32>,
}

/// Sizes of the slot vectors.
#[derive(Debug, Clone, Copy)]
pub struct InputShape {
    /// C_p.
    pub poi_layers: usize,
    /// C_c.
    pub creative_layers: usize,
    /// W.
    pub codebook: usize,
    /// d.
    pub d: usize,
    /// d_item.
    pub d_item: usize,
}

impl InputShape {
    /// Width of a slot vector.
    pub fn width(&self) -> usize {
        3 * self.d + self.d_item
    }
}

/// Writes the slot vectors to `x` [rows, 3 d + d_item], zeros in slots that are not filled. `mean` is [requests, d].
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn run(
    stream: &dyn Stream,
    shape: InputShape,
    lists: Lists,
    shown: Shown,
    tables: Tables,
    mean: &Buffer<f32>,
    x: &mut Buffer<f32>,
) -> Result<(), DeviceError> {
    let rows = lists.rows();
    assert!(shown.items.len() >= rows && shown.creatives.len() >= rows);
    assert!(shown.requests.len() >= lists.count && x.len() >= rows * shape.width());
    if rows == 0 {
        return Ok(());
    }
    reward_input(
        stream,
        LaunchShape::new([size(rows), 1, 1], THREADS),
        shown.items.ptr(),
        shown.creatives.ptr(),
        lists.lengths.ptr(),
        shown.requests.ptr(),
        tables.embed.ptr(),
        tables.poi_codes.ptr(),
        tables.creative_codes.ptr(),
        mean.ptr(),
        tables.embedding.ptr(),
        size(shape.poi_layers),
        size(shape.creative_layers),
        size(shape.codebook),
        size(lists.slots),
        size(shape.d),
        size(shape.d_item),
        x.ptr_mut(),
    )
}
