//! Input rows of the creative decoder: norms of hidden states and of embeddings, side by side.

use half::bf16;

use super::launch::{Buffer, LaunchShape, Stream};
use super::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "creative_input";

    /// `x = [RMSNorm(hidden[hidden_row]) ; RMSNorm(embed[token])]`, [rows, 2 d].
    fn creative_input(
        hidden: Ptr<f32>,
        hidden_row: Ptr<u32>,
        embed: Ptr<bf16>,
        token: Ptr<u32>,
        hidden_norm: Ptr<f32>,
        embed_norm: Ptr<f32>,
        eps: f32,
        rows: u32,
        d: u32,
        x: PtrMut<bf16>,
    );
}

/// In [`Rows::hidden_row`]: nothing to compute, the input is zeros.
pub const NO_ROW: u32 = u32::MAX;

const THREADS: u32 = 256;
const ROWS_PER_BLOCK: usize = 8;

/// Weights of the two norms, `[d]` each.
#[derive(Debug)]
pub struct Norms {
    /// `creative.hidden_norm.weight`.
    pub hidden: Buffer<f32>,
    /// `creative.embed_norm.weight`.
    pub embed: Buffer<f32>,
    /// Epsilon of both.
    pub eps: f32,
}

/// The rows: which hidden state and which token each of them reads.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Hidden states of the POI decoder, [any, d].
    pub hidden: &'a Buffer<f32>,
    /// Row of `hidden` or [`NO_ROW`], `[rows]`.
    pub hidden_row: &'a Buffer<u32>,
    /// Token embeddings, [V, d].
    pub embed: &'a Buffer<bf16>,
    /// Token before the one to be chosen, `[rows]`; not read for [`NO_ROW`].
    pub token: &'a Buffer<u32>,
}

/// Writes the inputs of the first `rows` rows to `x` [rows, 2 d].
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn run(
    stream: &dyn Stream,
    from: Rows,
    norms: &Norms,
    rows: usize,
    x: &mut Buffer<bf16>,
) -> Result<(), DeviceError> {
    let d = norms.hidden.len();
    assert_eq!(norms.embed.len(), d);
    assert!(from.hidden_row.len() >= rows && from.token.len() >= rows && x.len() >= rows * 2 * d);
    if rows == 0 {
        return Ok(());
    }
    creative_input(
        stream,
        LaunchShape::new([size(rows.div_ceil(ROWS_PER_BLOCK)), 1, 1], THREADS),
        from.hidden.ptr(),
        from.hidden_row.ptr(),
        from.embed.ptr(),
        from.token.ptr(),
        norms.hidden.ptr(),
        norms.embed.ptr(),
        norms.eps,
        size(rows),
        size(d),
        x.ptr_mut(),
    )
}
