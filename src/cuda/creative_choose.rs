//! Greedy choice among the creatives of many items, one code layer at a time.

use super::launch::{Buffer, LaunchShape, Stream};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "creative_choose";

    /// Narrows `begin..end` to the creatives with the best code in `layer`, and writes that code's token.
    fn creative_choose(
        logits: Ptr<f32>,
        codes: Ptr<u16>,
        rows: u32,
        per_request: u32,
        width: u32,
        layer: u32,
        layers: u32,
        first_token: u32,
        begin: PtrMut<u32>,
        end: PtrMut<u32>,
        token: PtrMut<u32>,
        fault: PtrMut<u32>,
    );
}

const THREADS: u32 = 128;
const ROWS_PER_BLOCK: usize = 4;

/// The code layer that is being chosen.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Its index.
    pub index: usize,
    /// C_c, the number of layers.
    pub count: usize,
    /// W, the number of codes.
    pub codebook: usize,
    /// Token id of its code 0.
    pub first_token: usize,
}

/// What the rows have left to choose from.
#[derive(Debug)]
pub struct Choices<'a> {
    /// Codes of creatives, [any, C_c]; those of an item lie together, sorted, equals in catalog order.
    pub codes: &'a Buffer<u16>,
    /// Rows of each request: those of the first, then those of the second, and so on.
    pub per_request: usize,
    /// First of the creatives left to each row, `[rows]`. After the last layer it is the choice.
    pub begin: &'a mut Buffer<u32>,
    /// The one behind the last of them, `[rows]`.
    pub end: &'a mut Buffer<u32>,
    /// Token of the code that was chosen, `[rows]`: the next input. Left alone where no creative is left.
    pub token: &'a mut Buffer<u32>,
    /// `[requests]`: becomes 1 where the logit of a code that may follow is not finite.
    pub fault: &'a mut Buffer<u32>,
}

/// Chooses a code for each of the first `rows` rows by `logits` [rows, W].
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn run(
    stream: &dyn Stream,
    logits: &Buffer<f32>,
    layer: Layer,
    rows: usize,
    choices: &mut Choices,
) -> Result<(), DeviceError> {
    assert!(layer.index < layer.count && logits.len() >= rows * layer.codebook);
    assert!(choices.begin.len() >= rows && choices.end.len() >= rows && choices.token.len() >= rows);
    assert!(choices.fault.len() * choices.per_request >= rows);
    if rows == 0 {
        return Ok(());
    }
    creative_choose(
        stream,
        LaunchShape::new([size(rows.div_ceil(ROWS_PER_BLOCK)), 1, 1], THREADS),
        logits.ptr(),
        choices.codes.ptr(),
        size(rows),
        size(choices.per_request),
        size(layer.codebook),
        size(layer.index),
        size(layer.count),
        size(layer.first_token),
        choices.begin.ptr_mut(),
        choices.end.ptr_mut(),
        choices.token.ptr_mut(),
        choices.fault.ptr_mut(),
    )
}
