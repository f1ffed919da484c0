//! [`crate::ops::rms_norm`], [`crate::ops::linear`] and [`crate::ops::rotary`] in one kernel: the projections that
//! follow a norm.

use half::bf16;

use crate::cuda::launch::Stream;
pub use crate::cuda::norm_product::{NormedRows, Tiling};
use crate::cuda::tiling::{Width, size};
use crate::error::DeviceError;

crate::kernels! {
    in "norm_linear";

    /// To f32, tiles of 64 columns.
    fn norm_linear_f32_64(
        x: Ptr<f32>,
        weight: Ptr<f32>,
        w: Ptr<bf16>,
        angles: Ptr<f32>,
        position: Ptr<u32>,
        normed: PtrMut<f32>,
        y: PtrMut<f32>,
        m: u32,
        n: u32,
        d: u32,
        eps: f32,
        rotated: u32,
        head_shift: u32,
        position_stride: u32,
        tiles_per_block: u32,
    );
    /// To f32, tiles of 128 columns.
    fn norm_linear_f32_128(
        x: Ptr<f32>,
        weight: Ptr<f32>,
        w: Ptr<bf16>,
        angles: Ptr<f32>,
        position: Ptr<u32>,
        normed: PtrMut<f32>,
        y: PtrMut<f32>,
        m: u32,
        n: u32,
        d: u32,
        eps: f32,
        rotated: u32,
        head_shift: u32,
        position_stride: u32,
        tiles_per_block: u32,
    );
    /// To bf16, tiles of 64 columns.
    fn norm_linear_bf16_64(
        x: Ptr<f32>,
        weight: Ptr<f32>,
        w: Ptr<bf16>,
        angles: Ptr<f32>,
        position: Ptr<u32>,
        normed: PtrMut<f32>,
        y: PtrMut<bf16>,
        m: u32,
        n: u32,
        d: u32,
        eps: f32,
        rotated: u32,
        head_shift: u32,
        position_stride: u32,
        tiles_per_block: u32,
    );
    /// To bf16, tiles of 128 columns.
    fn norm_linear_bf16_128(
        x: Ptr<f32>,
        weight: Ptr<f32>,
        w: Ptr<bf16>,
        angles: Ptr<f32>,
        position: Ptr<u32>,
        normed: PtrMut<f32>,
        y: PtrMut<bf16>,
        m: u32,
        n: u32,
        d: u32,
        eps: f32,
        rotated: u32,
        head_shift: u32,
        position_stride: u32,
        tiles_per_block: u32,
    );
}

/// The rotary embedding of a projection's first columns.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// Columns that turn, whole heads from the first on.
    pub columns: usize,
    /// 32, 64 or 128.
    pub head_size: usize,
    /// Of each position head_size / 2 cosines, then as many sines: [positions, head_size], as
    /// [`Rotary::table`](crate::cpu::Rotary::table) has them.
    pub angles: Ptr<f32>,
    /// Positions of the rows.
    pub positions: Positions,
}

/// At which positions rows stand.
#[derive(Debug, Clone, Copy)]
pub enum Positions {
    /// One for each row, `[m]`.
    Each(Ptr<u32>),
    /// One for all rows, `[1]`.
    All(Ptr<u32>),
}

/// Where the projection [m, n] goes, aligned to two elements.
#[derive(Debug, Clone, Copy)]
pub enum Projected {
    /// As it is.
    F32(PtrMut<f32>),
    /// Rounded.
    Bf16(PtrMut<bf16>),
}

/// `y = rotary(rms_norm(x) W^T)`, `w` [n, d] aligned to 16 bytes. `normed` [m, d], unless null, takes the normed rows.
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// If the sizes are not as [`NormedRows`] and [`Rotation`] say, or n is not in whole heads where columns turn.
pub fn norm_linear(
    stream: &dyn Stream,
    rows: NormedRows,
    w: Ptr<bf16>,
    n: usize,
    rotation: Option<Rotation>,
    normed: PtrMut<f32>,
    y: Projected,
) -> Result<(), DeviceError> {
    norm_linear_in(stream, Tiling::of(rows.m, n), rows, w, n, rotation, normed, y)
}

/// [`norm_linear`] cut by `tiling`: the same bits for every one.
///
/// # Errors
/// [`DeviceError::Failed`].
///
/// # Panics
/// As [`norm_linear`].
#[allow(clippy::too_many_arguments)]
pub fn norm_linear_in(
    stream: &dyn Stream,
    tiling: Tiling,
    rows: NormedRows,
    w: Ptr<bf16>,
    n: usize,
    rotation: Option<Rotation>,
    normed: PtrMut<f32>,
    y: Projected,
) -> Result<(), DeviceError> {
    let (shape, tiles) = tiling.shape(&rows, n);
    let turn = Turn::new(rotation, n);
    if rows.m == 0 || n == 0 {
        return Ok(());
    }
    let NormedRows { x, weight, m, d, eps } = rows;
    let Turn { angles, position, stride, columns, shift } = turn;
    let (m, n, d) = (size(m), size(n), size(d));
    macro_rules! launch {
        ($kernel:ident, $y:expr) => {
            $kernel(
                stream, shape, x, weight, w, angles, position, normed, $y, m, n, d, eps, columns, shift,
                stride, tiles,
            )
        };
    }
    match (y, tiling.width) {
        (Projected::F32(y), Width::Narrow) => launch!(norm_linear_f32_64, y),
        (Projected::F32(y), Width::Wide) => launch!(norm_linear_f32_128, y),
        (Projected::Bf16(y), Width::Narrow) => launch!(norm_linear_bf16_64, y),
        (Projected::Bf16(y), Width::Wide) => launch!(norm_linear_bf16_128, y),
    }
}

/// A [`Rotation`] as the kernels take it.
pub(super) struct Turn {
    pub(super) angles: Ptr<f32>,
    pub(super) position: Ptr<u32>,
    pub(super) stride: u32,
    pub(super) columns: u32,
    pub(super) shift: u32,
}

impl Turn {
    pub(super) fn new(rotation: Option<Rotation>, n: usize) -> Self {
        let Some(Rotation { columns, head_size, angles, positions }) = rotation else {
            return Self { angles: Ptr::NULL, position: Ptr::NULL, stride: 0, columns: 0, shift: 0 };
        };
        assert!([32, 64, 128].contains(&head_size), "heads of {head_size} columns");
        assert!(
            columns <= n && columns.is_multiple_of(head_size) && n.is_multiple_of(head_size),
            "{columns} of {n} columns are no whole heads of {head_size}"
        );
        let (position, stride) = match positions {
            Positions::Each(position) => (position, 1),
            Positions::All(position) => (position, 0),
        };
        let shift = head_size.trailing_zeros() - 5;
        Self { angles, position, stride, columns: size(columns), shift }
    }
}
