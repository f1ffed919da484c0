//! [`crate::ops::attention`] on the CPU: many query rows against one request's keys, in tiles of keys with a running
//! maximum, so that no row of scores is ever held whole.

use crate::cpu::aligned::Aligned;
use crate::cpu::bf16::Pair;
use crate::cpu::exec::part;
use crate::cpu::isa::{Kernel, Machine};
use crate::cpu::lanes::{self, LANES};
use crate::cpu::math::exp2_nonpositive;
use crate::cpu::row_attention::score_scale;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{self, Factors, Operand, PANEL, ROWS, Sums};
use crate::cpu::{Exec, Precision};

/// Keys that are met at once: their scores stay in the first-level cache, they themselves in the second.
const KEYS: usize = 8 * PANEL;

/// Query rows that meet a tile of keys while it is near.
const QUERIES: usize = 64;

/// The keys and values of one request, packed for [`attention`].
///
/// Per head, keys in panels of 32: the panel's rows run over the head's dimensions, its columns over keys. Values per
/// head in panels of 32 dimensions, whose rows run over all keys. In bf16 a row of a keys' panel holds pairs of
/// neighbouring dimensions, one of a values' panel pairs of neighbouring keys. Keys past the end are zero up to a
/// whole panel.
pub struct KeyValues {
    keys: Aligned,
    values: Aligned,
    precision: Precision,
    heads: usize,
    head_size: usize,
    /// Keys there is room for, whole panels.
    capacity: usize,
    len: usize,
}

impl KeyValues {
    /// Room for `tokens` keys of `heads` heads of `head_size` 32, 64 or 128; empty.
    pub fn with_capacity(tokens: usize, heads: usize, head_size: usize, precision: Precision) -> Self {
        assert!([32, 64, 128].contains(&head_size));
        let capacity = tokens.next_multiple_of(PANEL);
        let numbers = match precision {
            Precision::F32 => 1,
            Precision::Bf16 => 2,
        };
        let words = capacity * heads * head_size / numbers;
        let (keys, values) = (Aligned::zeroed(words), Aligned::zeroed(words));
        Self { keys, values, precision, heads, head_size, capacity, len: 0 }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces the contents by the keys and values of `n` rows of `stride` columns: keys from column `k_offset`,
    /// values from column `v_offset`. `n` is at most the capacity.
    pub fn fill(
        &mut self,
        exec: Exec,
        rows: &[f32],
        n: usize,
        stride: usize,
        k_offset: usize,
        v_offset: usize,
    ) {
        let d = self.heads * self.head_size;
        assert!(n <= self.capacity && k_offset + d <= stride && v_offset + d <= stride);
        assert!(n == 0 || rows.len() >= (n - 1) * stride + d + k_offset.max(v_offset));
        self.len = n;
        let source = Source { rows, n, stride, k_offset, v_offset };
        let (capacity, head_size) = (self.capacity, self.head_size);
        match self.precision {
            Precision::F32 => {
                let (keys, values) = (self.keys.floats_mut(), self.values.floats_mut());
                fill(exec, source, capacity, head_size, self.heads, keys, values);
            }
            Precision::Bf16 => {
                let keys: &mut [Pair] = bytemuck::cast_slice_mut(self.keys.pairs_mut());
                let values: &mut [Pair] = bytemuck::cast_slice_mut(self.values.pairs_mut());
                fill(exec, source, capacity, head_size, self.heads, keys, values);
            }
        }
    }
}

/// Where keys and values are packed from.
#[derive(Clone, Copy)]
struct Source<'a> {
    rows: &'a [f32],
    n: usize,
    stride: usize,
    k_offset: usize,
    v_offset: usize,
}

fn fill<E: Operand>(
    exec: Exec,
    source: Source,
    capacity: usize,
    head_size: usize,
    heads: usize,
    keys: &mut [E],
    values: &mut [E],
) {
    let words = capacity * head_size / E::NUMBERS;
    let panels = source.n.div_ceil(PANEL);
    let pieces = exec.pieces(8 * source.n * heads * head_size);
    let (keys, values) = (Shared::new(keys), Shared::new(values));
    let panel_words = PANEL * head_size / E::NUMBERS;
    exec.each(pieces, |piece| {
        for panel in part(panels, pieces, piece) {
            for head in 0..heads {
                let start = head * words + panel * panel_words;
                let value_start =
                    |dims: usize| head * words + (dims * capacity + panel * PANEL) * PANEL / E::NUMBERS;
                // SAFETY: each piece has panels of keys of its own, and so rows of its own in all panels of values.
                let (keys, values) = unsafe {
                    let values = std::array::from_fn(|dims| match value_start(dims) {
                        start if dims < head_size / PANEL => {
                            values.slice_mut(start..start + PANEL * PANEL / E::NUMBERS)
                        }
                        _ => &mut [],
                    });
                    (keys.slice_mut(start..start + panel_words), values)
                };
                exec.isa.run(Fill { source, head_size, head, panel, keys, values });
            }
        }
    });
}

/// Packs one panel of one head.
struct Fill<'a, E> {
    source: Source<'a>,
    head_size: usize,
    head: usize,
    panel: usize,
    keys: &'a mut [E],
    /// The keys' rows in each panel of dimensions.
    values: [&'a mut [E]; 128 / PANEL],
}

impl<E: Operand> Kernel for Fill<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let Self { source, head_size, head, panel, keys, values } = self;
        let zeros = [0.0; 128];
        let row = |key: usize, offset: usize| {
            let key = panel * PANEL + key;
            if key < source.n {
                let start = key * source.stride + offset + head * head_size;
                &source.rows[start..start + head_size]
            } else {
                &zeros[..head_size]
            }
        };
        // Gathered first: read down a column, rows a power of two apart would fall on each other in the cache.
        let mut gathered = [[0.0; 128 + LANES]; PANEL];
        for (column, gathered) in gathered.iter_mut().enumerate() {
            gathered[..head_size].copy_from_slice(row(column, source.k_offset));
        }
        for (k, panel) in keys.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            let k = k * E::NUMBERS;
            for (key, gathered) in panel.iter_mut().zip(&gathered) {
                *key = E::from_numbers(&gathered[k..k + E::NUMBERS]);
            }
        }
        for (dims, values) in values.into_iter().enumerate() {
            for (index, values) in values.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
                let first = &row(index * E::NUMBERS, source.v_offset)[dims * PANEL..];
                let last = &row(index * E::NUMBERS + E::NUMBERS - 1, source.v_offset)[dims * PANEL..];
                for ((value, first), last) in values.iter_mut().zip(first).zip(last) {
                    *value = E::from_numbers(&[*first, *last][..E::NUMBERS]);
                }
            }
        }
    }
}

/// Room for the tiles of [`attention`], one share per thread.
pub struct AttentionScratch(Vec<Share>);

struct Share {
    /// Queries, rounded: [QUERIES, head_size].
    queries: Aligned,
    /// Weighted sums of values: [QUERIES, head_size].
    sums: Aligned,
    /// Scores, then weights: [ROWS, KEYS].
    scores: Aligned,
    /// The weights, rounded: [ROWS, KEYS].
    weights: Aligned,
    /// Running maximum of each row.
    max: [f32; QUERIES],
    /// Running sum of weights of each row, lane by lane.
    total: [[f32; LANES]; QUERIES],
}

impl AttentionScratch {
    /// Room for `threads` threads and heads of up to `head_size`.
    pub fn new(threads: usize, head_size: usize) -> Self {
        let share = || Share {
            queries: Aligned::zeroed(QUERIES * head_size),
            sums: Aligned::zeroed(QUERIES * head_size),
            scores: Aligned::zeroed(ROWS * KEYS),
            weights: Aligned::zeroed(ROWS * KEYS),
            max: [0.0; QUERIES],
            total: [[0.0; LANES]; QUERIES],
        };
        Self((0..threads.max(1)).map(|_| share()).collect())
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        let share = |share: &Share| {
            std::mem::size_of_val(share)
                + share.queries.bytes()
                + share.sums.bytes()
                + share.scores.bytes()
                + share.weights.bytes()
        };
        self.0.iter().map(share).sum()
    }
}

/// Softmax attention of `m` query rows over all of `kv`'s keys: zeros where there are none.
///
/// `q` holds rows of `stride` columns, the queries from column `q_offset`; `out` is [m, heads * head_size].
#[allow(clippy::too_many_arguments)]
pub fn attention(
    exec: Exec,
    q: &[f32],
    m: usize,
    stride: usize,
    q_offset: usize,
    kv: &KeyValues,
    scratch: &mut AttentionScratch,
    out: &mut [f32],
) {
    let d = kv.heads * kv.head_size;
    assert_eq!(out.len(), m * d);
    if m == 0 {
        return;
    }
    assert!(q_offset + d <= stride && q.len() >= (m - 1) * stride + q_offset + d);
    if kv.len == 0 {
        return out.fill(0.0);
    }
    let blocks = m.div_ceil(QUERIES);
    let pieces = exec.pieces(4 * m * kv.len * d).min(scratch.0.len());
    let out = Shared::new(out);
    exec.each_with(&mut scratch.0[..pieces], |piece, share| {
        let units = part(blocks * kv.heads, pieces, piece);
        let attend = Attend { q: &q[q_offset..], m, stride, kv, units, share, out: &out };
        match (kv.head_size, kv.precision) {
            (32, Precision::F32) => {
                exec.isa.run(Typed::<f32, 32>(attend, kv.keys.floats(), kv.values.floats()))
            }
            (64, Precision::F32) => {
                exec.isa.run(Typed::<f32, 64>(attend, kv.keys.floats(), kv.values.floats()))
            }
            (_, Precision::F32) => {
                exec.isa.run(Typed::<f32, 128>(attend, kv.keys.floats(), kv.values.floats()))
            }
            (head_size, Precision::Bf16) => {
                let keys: &[Pair] = bytemuck::cast_slice(kv.keys.pairs());
                let values: &[Pair] = bytemuck::cast_slice(kv.values.pairs());
                match head_size {
                    32 => exec.isa.run(Typed::<Pair, 32>(attend, keys, values)),
                    64 => exec.isa.run(Typed::<Pair, 64>(attend, keys, values)),
                    _ => exec.isa.run(Typed::<Pair, 128>(attend, keys, values)),
                }
            }
        }
    });
}

/// The part of an attention that one thread computes: `units` counts blocks of queries, head after head.
struct Attend<'a> {
    q: &'a [f32],
    m: usize,
    stride: usize,
    kv: &'a KeyValues,
    units: std::ops::Range<usize>,
    share: &'a mut Share,
    out: &'a Shared<'a, f32>,
}

struct Typed<'a, E, const D: usize>(Attend<'a>, &'a [E], &'a [E]);

impl<E: Operand + bytemuck::Pod, const D: usize> Kernel for Typed<'_, E, D> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let Self(Attend { q, m, stride, kv, units, share, out }, keys, values) = self;
        let blocks = m.div_ceil(QUERIES);
        let words = kv.capacity * D / E::NUMBERS;
        let d = kv.heads * D;
        for unit in units {
            let (head, block) = (unit / blocks, unit % blocks);
            let rows = part(m, blocks, block);
            let head_words = head * words..(head + 1) * words;
            let (keys, values) = (&keys[head_words.clone()], &values[head_words]);
            let queries: &mut [E] = bytemuck::cast_slice_mut(share.queries.pairs_mut());
            load_queries::<M, E, D>(&q[rows.start * stride + head * D..], stride, rows.len(), queries);
            let mut state = State::<D> {
                sums: share.sums.floats_mut().as_chunks_mut().0,
                scores: share.scores.floats_mut().as_chunks_mut().0,
                max: &mut share.max,
                total: &mut share.total,
            };
            state.clear(rows.len());
            let weights: &mut [E] = bytemuck::cast_slice_mut(share.weights.pairs_mut());
            for start in (0..kv.len).step_by(KEYS) {
                let count = KEYS.min(kv.len - start);
                let padded = count.next_multiple_of(PANEL);
                let keys = &keys[start * D / E::NUMBERS..(start + padded) * D / E::NUMBERS];
                let values = &values[start * PANEL / E::NUMBERS..];
                for row in (0..rows.len()).step_by(ROWS) {
                    let tile_rows = ROWS.min(rows.len() - row);
                    let queries = &queries[row * D / E::NUMBERS..];
                    state.score::<M, E>(queries, keys, tile_rows);
                    state.weigh(row, tile_rows, count, padded);
                    state.add::<M, E>(row, tile_rows, padded, values, kv.capacity, weights);
                }
            }
            for (index, row) in rows.enumerate() {
                let start = row * d + head * D;
                // SAFETY: each unit has rows or a head of its own, and the slice ends with this turn.
                let out = unsafe { out.slice_mut(start..start + D) };
                let share = 1.0 / lanes::sum(state.total[index]);
                for (out, sum) in out.iter_mut().zip(&state.sums[index]) {
                    *out = sum * share;
                }
            }
        }
    }
}

/// Rounds and gathers the queries of one head.
#[inline(always)]
fn load_queries<M: Machine, E: Operand, const D: usize>(
    q: &[f32],
    stride: usize,
    rows: usize,
    queries: &mut [E],
) {
    for (row, queries) in queries.chunks_exact_mut(D / E::NUMBERS).take(rows).enumerate() {
        let q: &[f32; D] = q[row * stride..row * stride + D].try_into().expect("D columns");
        E::convert::<M>(q, queries);
    }
}

/// The running softmax of a block of queries.
struct State<'a, const D: usize> {
    sums: &'a mut [[f32; D]],
    scores: &'a mut [[f32; KEYS]],
    max: &'a mut [f32; QUERIES],
    total: &'a mut [[f32; LANES]; QUERIES],
}

impl<const D: usize> State<'_, D> {
    #[inline(always)]
    fn clear(&mut self, rows: usize) {
        self.sums[..rows].fill([0.0; D]);
        self.max[..rows].fill(f32::NEG_INFINITY);
        self.total[..rows].fill([0.0; LANES]);
    }

    /// The scores of a tile.
    #[inline(always)]
    fn score<M: Machine, E: Operand>(&mut self, queries: &[E], keys: &[E], rows: usize) {
        let depth = D / E::NUMBERS;
        for (panel, b) in keys.chunks_exact(depth * PANEL).enumerate() {
            let factors = Factors { a: queries, lda: depth, b, ldb: PANEL, depth };
            let scores = &mut self.scores.as_flattened_mut()[panel * PANEL..];
            tile::multiply::<M, E>(rows, factors, Sums { rows: scores, stride: KEYS, fresh: true });
        }
    }

    /// Turns the scores into weights relative to the new maximum, and brings the running sums to it.
    ///
    /// The maximum is rounded up to a whole power of two: another maximum then moves the exponents of weights and sums
    /// alone, and how they are rounded does not depend on the tiles that keys are met in.
    #[inline(always)]
    fn weigh(&mut self, row: usize, rows: usize, count: usize, padded: usize) {
        let scale = score_scale(D);
        let max = &mut self.max[row..row + rows];
        let mut shrink = [1.0; ROWS];
        for ((max, shrink), scores) in max.iter_mut().zip(&mut shrink).zip(&mut *self.scores) {
            scores[count..padded].fill(f32::NEG_INFINITY);
            let mut largest = [f32::NEG_INFINITY; LANES];
            for scores in scores[..padded].as_chunks::<LANES>().0 {
                for l in 0..LANES {
                    largest[l] = lanes::larger(scores[l], largest[l]);
                }
            }
            let largest = (lanes::max(largest) * scale).ceil();
            let before = std::mem::replace(max, lanes::larger(largest, *max));
            *shrink = before - *max;
        }
        for shrink in &mut shrink {
            *shrink = exp2_nonpositive(*shrink);
        }
        for r in 0..rows {
            let total = &mut self.total[row + r];
            // A factor of 1 changes nothing, and is the rule once the largest score was seen.
            if shrink[r] != 1.0 {
                total.iter_mut().for_each(|total| *total *= shrink[r]);
                self.sums[row + r].iter_mut().for_each(|sum| *sum *= shrink[r]);
            }
            let scores = self.scores[r][..padded].as_chunks_mut::<LANES>().0;
            for scores in &mut *scores {
                for score in scores {
                    *score = exp2_nonpositive(score.mul_add(scale, -max[r]));
                }
            }
            // On its own, so that the sums stay in a register.
            let mut lanes = *total;
            for scores in scores {
                for l in 0..LANES {
                    lanes[l] += scores[l];
                }
            }
            *total = lanes;
        }
    }

    /// Adds the weighted values of a tile to the running sums. `values` starts at the tile's first key, its panels are
    /// `capacity` keys apart.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    fn add<M: Machine, E: Operand>(
        &mut self,
        row: usize,
        rows: usize,
        padded: usize,
        values: &[E],
        capacity: usize,
        room: &mut [E],
    ) {
        let words = rows * KEYS / E::NUMBERS;
        let weights = E::rounded::<M>(self.scores[..rows].as_flattened(), &mut room[..words]);
        for column in (0..D).step_by(PANEL) {
            let b = &values[column * capacity / E::NUMBERS..];
            let depth = padded / E::NUMBERS;
            let factors = Factors { a: weights, lda: KEYS / E::NUMBERS, b, ldb: PANEL, depth };
            let sums = &mut self.sums[row..row + rows].as_flattened_mut()[column..];
            tile::multiply::<M, E>(rows, factors, Sums { rows: sums, stride: D, fresh: false });
        }
    }
}
