//! Input vectors on the GPU: a token's embedding and the feature rows that it adds.

use half::bf16;

use crate::cuda::launch::{LaunchShape, Stream};
use crate::cuda::tiling::size;
use crate::error::DeviceError;

crate::kernels! {
    in "embed";

    /// `x[t] = table[token[t]]`.
    fn embed(table: Ptr<bf16>, token: Ptr<u32>, x: PtrMut<f32>, tokens: u32, d: u32);
    /// `x[t] = table[token[t]] + sum over i in feature_start[t] .. feature_start[t + 1] of features[feature_row[i]]`.
    fn embed_with_features(
        table: Ptr<bf16>,
        token: Ptr<u32>,
        features: Ptr<bf16>,
        feature_start: Ptr<u32>,
        feature_row: Ptr<u32>,
        x: PtrMut<f32>,
        tokens: u32,
        d: u32,
    );
}

/// Tokens of a block.
const TOKENS: usize = 8;

/// The feature rows that tokens add.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// The tables of all features, one below the other: [all sizes, d].
    pub table: Ptr<bf16>,
    /// Where each token's rows start in `row`, [tokens + 1].
    pub start: Ptr<u32>,
    /// Rows of `table`, added in this order.
    pub row: Ptr<u32>,
}

/// Writes the input vectors of `tokens` tokens, rows of `table` [V, d], to `x` [tokens, d].
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// If d is odd.
pub fn embeddings(
    stream: &dyn Stream,
    table: Ptr<bf16>,
    token: Ptr<u32>,
    features: Option<Features>,
    tokens: usize,
    d: usize,
    x: PtrMut<f32>,
) -> Result<(), DeviceError> {
    assert!(d.is_multiple_of(2), "rows of {d} columns: they are read in pairs");
    if tokens == 0 {
        return Ok(());
    }
    let shape = LaunchShape::new([size(tokens.div_ceil(TOKENS)), 1, 1], 32 * TOKENS as u32);
    let (tokens, d) = (size(tokens), size(d));
    match features {
        None => embed(stream, shape, table, token, x, tokens, d),
        Some(Features { table: features, start, row }) => {
            embed_with_features(stream, shape, table, token, features, start, row, x, tokens, d)
        }
    }
}
