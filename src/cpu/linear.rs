//! [`crate::ops::linear`] on the CPU: `y = x W^T` with the weights packed into panels of 32 output columns.

use std::cell::RefCell;

use crate::cpu::aligned::Aligned;
use crate::cpu::bf16::Pair;
use crate::cpu::exec::part;
use crate::cpu::isa::{Kernel, Machine};
use crate::cpu::math::silu;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{self, Factors, Operand, PANEL, ROWS, Sums};
#[cfg(target_arch = "x86_64")]
use crate::cpu::x86;
use crate::cpu::{Exec, Precision};

/// The weights of a product, packed at load.
///
/// Panel p holds the columns 32 p .. 32 p + 32 of `W^T`, one row of 32 after the other, columns past the end zero.
/// In bf16 a row of the panel holds pairs of neighbours along the input.
pub struct Linear {
    panels: Aligned,
    precision: Precision,
    in_size: usize,
    out_size: usize,
    gated: bool,
}

impl Linear {
    /// Stacks several [out_i, in] row-major matrices into one [sum of out_i, in].
    pub fn pack(weights: &[&[f32]], in_size: usize, precision: Precision) -> Self {
        assert!(in_size > 0 && weights.iter().all(|weight| weight.len().is_multiple_of(in_size)));
        let rows: Vec<&[f32]> = weights.iter().flat_map(|weight| weight.chunks_exact(in_size)).collect();
        let panels = pack_rows(rows.chunks(PANEL), rows.len().div_ceil(PANEL), in_size, precision);
        Self { panels, precision, in_size, out_size: rows.len(), gated: false }
    }

    /// The gate and up projections of a gated feed-forward layer, [hidden, in] each, interleaved so that one pass
    /// yields `silu(gate x) * up x` ([`Epilogue::SiluGate`]). [`Linear::out_size`] is `hidden`.
    pub fn pack_gated(gate: &[f32], up: &[f32], in_size: usize, precision: Precision) -> Self {
        assert!(in_size > 0 && gate.len() == up.len() && gate.len().is_multiple_of(in_size));
        const HALF: usize = PANEL / 2;
        let zeros = vec![0.0; in_size];
        let half = |weight: &'_ [f32]| -> Vec<Vec<f32>> {
            weight.chunks_exact(in_size).map(<[f32]>::to_vec).collect()
        };
        let (gate, up) = (half(gate), half(up));
        let mut rows: Vec<&[f32]> = Vec::new();
        for (gate, up) in gate.chunks(HALF).zip(up.chunks(HALF)) {
            for half in [gate, up] {
                rows.extend(half.iter().map(Vec::as_slice));
                rows.extend((half.len()..HALF).map(|_| zeros.as_slice()));
            }
        }
        let panels = pack_rows(rows.chunks(PANEL), rows.len().div_ceil(PANEL), in_size, precision);
        Self { panels, precision, in_size, out_size: gate.len(), gated: true }
    }

    /// Columns of `x`.
    pub fn in_size(&self) -> usize {
        self.in_size
    }

    /// Columns of `y`.
    pub fn out_size(&self) -> usize {
        self.out_size
    }

    /// Size of the packed weights in bytes.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// Columns of `y` that one panel makes.
    fn panel_outputs(&self) -> usize {
        if self.gated { PANEL / 2 } else { PANEL }
    }
}

fn pack_rows<'a>(
    panels: impl Iterator<Item = &'a [&'a [f32]]>,
    count: usize,
    in_size: usize,
    precision: Precision,
) -> Aligned {
    let depth = match precision {
        Precision::F32 => in_size,
        Precision::Bf16 => in_size.div_ceil(2),
    };
    let mut packed = Aligned::zeroed(count * depth * PANEL);
    for (index, rows) in panels.enumerate() {
        let panel = index * depth * PANEL..(index + 1) * depth * PANEL;
        for (column, row) in rows.iter().enumerate() {
            match precision {
                Precision::F32 => {
                    let panel = &mut packed.floats_mut()[panel.clone()];
                    for (k, &value) in row.iter().enumerate() {
                        panel[k * PANEL + column] = value;
                    }
                }
                Precision::Bf16 => {
                    let panel = &mut bytemuck::cast_slice_mut::<_, Pair>(packed.pairs_mut())[panel.clone()];
                    for (k, pair) in row.chunks(2).enumerate() {
                        panel[k * PANEL + column] = Pair::new(pair[0], pair.get(1).copied().unwrap_or(0.0));
                    }
                }
            }
        }
    }
    packed
}

/// What becomes of the sums of a product.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a> {
    /// `y = x W^T`.
    Store,
    /// `y += x W^T`: the residual connection.
    Add,
    /// `y = x W^T + bias`, bias `[out]`.
    Bias(&'a [f32]),
    /// `y = max(x W^T + bias, 0)`.
    BiasRelu(&'a [f32]),
    /// `y = silu(x gate^T) * x up^T`, only and always for [`Linear::pack_gated`].
    SiluGate,
}

/// The product of `x` [m, in] and the packed weights, and its epilogue: `y` is [m, out].
pub fn linear(exec: Exec, x: &[f32], m: usize, w: &Linear, epilogue: Epilogue, y: &mut [f32]) {
    assert_eq!(x.len(), m * w.in_size);
    assert_eq!(y.len(), m * w.out_size);
    assert_eq!(w.gated, matches!(epilogue, Epilogue::SiluGate));
    if let Epilogue::Bias(bias) | Epilogue::BiasRelu(bias) = epilogue {
        assert_eq!(bias.len(), w.out_size);
    }
    let panels = w.out_size.div_ceil(w.panel_outputs());
    let pieces = exec.pieces(2 * m * w.in_size * panels * PANEL);
    let by_rows = m >= pieces * BLOCK_ROWS || panels < pieces;
    let y = Shared::new(y);
    exec.each(pieces, |piece| {
        let (rows, panels) = if by_rows {
            (part(m.div_ceil(ROWS), pieces, piece), 0..panels)
        } else {
            (0..m.div_ceil(ROWS), part(panels, pieces, piece))
        };
        let rows = rows.start * ROWS..m.min(rows.end * ROWS);
        let y = &y;
        STAGED.with_borrow_mut(|staged| match w.precision {
            Precision::F32 => {
                let (b, staged) = (w.panels.floats(), bytemuck::cast_slice_mut(staged.as_mut_slice()));
                exec.isa.run(Product { x, w, b, rows, panels, epilogue, staged, y });
            }
            Precision::Bf16 => {
                let b: &[Pair] = bytemuck::cast_slice(w.panels.pairs());
                let staged = bytemuck::cast_slice_mut(staged.as_mut_slice());
                exec.isa.run(Product { x, w, b, rows, panels, epilogue, staged, y });
            }
        });
    });
}

/// Rows that meet a panel while they are in the second-level cache.
const BLOCK_ROWS: usize = 8 * ROWS;

/// Words of the rows as the product reads them.
const STAGE: usize = 96 * 1024;

thread_local! {
    static STAGED: RefCell<[u32; STAGE]> = const { RefCell::new([0; STAGE]) };
}

/// The part of a product that one thread computes.
struct Product<'a, E> {
    x: &'a [f32],
    w: &'a Linear,
    b: &'a [E],
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    epilogue: Epilogue<'a>,
    /// Room for the rows as the product reads them.
    staged: &'a mut [E],
    y: &'a Shared<'a, f32>,
}

impl<E: Operand> Kernel for Product<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(mut self) {
        let staged = std::mem::take(&mut self.staged);
        let in_size = self.w.in_size;
        let depth = in_size.div_ceil(E::NUMBERS);
        // An odd number of cache lines apart, so that the rows of a tile lie in different sets of the cache.
        let stride = (depth.div_ceil(16) | 1) * 16;
        let block = match (staged.len() / stride).min(BLOCK_ROWS) {
            0 => return self.deep::<M>(staged),
            rows if rows < ROWS => rows,
            rows => rows / ROWS * ROWS,
        };
        let mut start = self.rows.start;
        while start < self.rows.end {
            let end = self.rows.end.min(start + block);
            for (to, row) in staged.chunks_exact_mut(stride).zip(start..end) {
                E::convert::<M>(&self.x[row * in_size..(row + 1) * in_size], to);
            }
            self.block::<M>(staged, stride, depth, start..end);
            start = end;
        }
    }
}

impl<E: Operand> Product<'_, E> {
    /// The rows `rows`, which are staged `stride` apart, against all panels.
    #[inline(always)]
    fn block<M: Machine>(&self, staged: &[E], stride: usize, depth: usize, rows: std::ops::Range<usize>) {
        let mut sums = [[0.0; PANEL]; ROWS];
        for panel in self.panels.clone() {
            let b = &self.b[panel * depth * PANEL..(panel + 1) * depth * PANEL];
            for row in rows.clone().step_by(ROWS) {
                let count = ROWS.min(rows.end - row);
                self.prefetch::<M>(row..row + count, panel);
                let a = &staged[(row - rows.start) * stride..];
                let factors = Factors { a, lda: stride, b, ldb: PANEL, depth };
                let to = Sums { rows: sums.as_flattened_mut(), stride: PANEL, fresh: true };
                tile::multiply::<M, E>(count, factors, to);
                self.finish(&sums[..count], row, panel);
            }
        }
    }

    /// Rows too long to be staged whole: one at a time, piece by piece, the sums carried on.
    #[inline(always)]
    fn deep<M: Machine>(&self, staged: &mut [E]) {
        let depth = self.w.in_size.div_ceil(E::NUMBERS);
        for row in self.rows.clone() {
            let x = &self.x[row * self.w.in_size..(row + 1) * self.w.in_size];
            for panel in self.panels.clone() {
                let b = &self.b[panel * depth * PANEL..(panel + 1) * depth * PANEL];
                let mut sums = [[0.0; PANEL]; 1];
                for (x, b) in x.chunks(staged.len() * E::NUMBERS).zip(b.chunks(staged.len() * PANEL)) {
                    E::convert::<M>(x, staged);
                    let factors = Factors { a: &*staged, lda: 0, b, ldb: PANEL, depth: b.len() / PANEL };
                    let to = Sums { rows: sums.as_flattened_mut(), stride: PANEL, fresh: false };
                    tile::multiply::<M, E>(1, factors, to);
                }
                self.finish(&sums, row, panel);
            }
        }
    }

    /// Calls for the part of `y` that [`Product::finish`] will write, while the sums are made. Stores that miss the
    /// caches are done one after the other, and would hold up the next tile for a tenth of its time.
    #[inline(always)]
    fn prefetch<M: Machine>(&self, rows: std::ops::Range<usize>, panel: usize) {
        #[cfg(target_arch = "x86_64")]
        if M::WIDE {
            let width = self.w.panel_outputs();
            for row in rows {
                x86::prefetch_for_write(self.y.address(row * self.w.out_size + panel * width), width);
            }
        }
    }

    /// Writes the sums of the rows from `row` on.
    #[inline(always)]
    fn finish(&self, sums: &[[f32; PANEL]], row: usize, panel: usize) {
        let out_size = self.w.out_size;
        let width = self.w.panel_outputs();
        let columns = panel * width..out_size.min((panel + 1) * width);
        for (row, sums) in (row..).zip(sums) {
            // SAFETY: each piece of the product has rows or panels of its own, and each slice ends with this turn.
            let y = unsafe { self.y.slice_mut(row * out_size + columns.start..row * out_size + columns.end) };
            match self.epilogue {
                Epilogue::Store => y.copy_from_slice(&sums[..y.len()]),
                Epilogue::Add => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
                Epilogue::Bias(bias) => {
                    let bias = &bias[columns.clone()];
                    y.iter_mut().zip(sums).zip(bias).for_each(|((y, sum), bias)| *y = sum + bias);
                }
                Epilogue::BiasRelu(bias) => {
                    let bias = &bias[columns.clone()];
                    y.iter_mut().zip(sums).zip(bias).for_each(|((y, sum), bias)| *y = relu(sum + bias));
                }
                Epilogue::SiluGate => {
                    let (gate, up) = sums.split_at(PANEL / 2);
                    y.iter_mut().zip(gate).zip(up).for_each(|((y, gate), up)| *y = silu(*gate) * up);
                }
            }
        }
    }
}

/// NaN stays NaN.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}
