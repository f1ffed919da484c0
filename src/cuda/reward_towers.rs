//! The towers of the reward model, but for the product of their first layers.

use super::launch::{Buffer, LaunchShape, Stream};
use super::lists::Lists;
use super::mlp::TAIL;
use super::tiling::size;
use crate::error::DeviceError;
use crate::model::mlp::HIDDEN;

crate::kernels! {
    in "reward_towers";

    /// `x = [f ; sum of f over the list]`.
    fn reward_tower_input(features: Ptr<f32>, lengths: Ptr<i32>, slots: u32, d: u32, x: PtrMut<f32>);

    /// The layers 128 -> 32 -> 10 -> 1 and the sigmoid of three towers.
    fn reward_towers(hidden: Ptr<f32>, tails: Ptr<f32>, rows: u32, out: PtrMut<f32>);
}

/// Number of towers: pctr_poi, pctr_creative, pcvr.
pub const TOWERS: usize = 3;

const THREADS: u32 = 256;
const ROWS_PER_BLOCK: usize = 32;

/// The towers' input `x` [rows, 2 d_r] from the slot features [rows, d_r]; zeros in slots that are not filled.
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn input(
    stream: &dyn Stream,
    features: &Buffer<f32>,
    lists: Lists,
    d_r: usize,
    x: &mut Buffer<f32>,
) -> Result<(), DeviceError> {
    assert!(features.len() >= lists.rows() * d_r && x.len() >= lists.rows() * 2 * d_r);
    if lists.rows() == 0 {
        return Ok(());
    }
    let shape = LaunchShape::new([size(lists.count), 1, 1], THREADS);
    let (slots, d_r) = (size(lists.slots), size(d_r));
    reward_tower_input(stream, shape, features.ptr(), lists.lengths.ptr(), slots, d_r, x.ptr_mut())
}

/// Probabilities [3, rows] from the outputs of the first layers, `hidden` [rows, 3 * 128], and the tails of the towers,
/// [3, TAIL]. Slots that are not filled get what the towers make of zeros.
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn run(
    stream: &dyn Stream,
    hidden: &Buffer<f32>,
    rows: usize,
    tails: &Buffer<f32>,
    probabilities: &mut Buffer<f32>,
) -> Result<(), DeviceError> {
    assert!(tails.len() == TOWERS * TAIL && hidden.len() >= rows * TOWERS * HIDDEN[0]);
    assert!(probabilities.len() >= TOWERS * rows);
    if rows == 0 {
        return Ok(());
    }
    let shape = LaunchShape::new([size(rows.div_ceil(ROWS_PER_BLOCK)), size(TOWERS), 1], THREADS);
    reward_towers(stream, shape, hidden.ptr(), tails.ptr(), size(rows), probabilities.ptr_mut())
}
