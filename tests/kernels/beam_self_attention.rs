//! Attention of decoder rows over their own past.

use std::sync::Arc;

use bidslate::cuda::beam_self_attention::{DecoderRows, SelfCache, beam_self_attention};
use bidslate::cuda::launch::{Buffer, Ptr, Stream};
use bidslate::ops;
use half::bf16;

use crate::numbers::*;
use crate::setup::*;
use crate::streams::streams;

/// Requests, beams, heads, head size, positions: one, odd, and past the 32 positions that are met at once.
const SIZES: [(usize, usize, usize, usize, usize); 6] = [
    (0, 3, 1, 32, 2),
    (1, 1, 1, 32, 1),
    (2, 3, 2, 64, 5),
    (3, 1, 3, 32, 4),
    (1, 5, 1, 128, 34),
    (2, 2, 1, 32, 66),
];

/// A decoder's run: what its rows are at each position, and where they come from.
struct Case {
    sizes: DecoderRows,
    positions: usize,
    /// [positions][rows][3 d]
    qkv: Vec<Vec<f32>>,
    /// [positions][rows][positions]: the ancestors of the rows at each position.
    ancestors: Vec<Vec<u32>>,
}

impl Case {
    /// Beams come from any beam of the position before, as a search has it; without `reordered` from themselves.
    fn new(
        inputs: &mut Inputs,
        (requests, beams, heads, head_size, positions): (usize, usize, usize, usize, usize),
        reordered: bool,
    ) -> Self {
        let rows = requests * beams;
        let qkv = (0..positions).map(|_| inputs.numbers(rows * 3 * heads * head_size)).collect();
        // What is not to be read stands for no row at all.
        let mut ancestors = vec![vec![u32::MAX; rows * positions]];
        for position in 1..positions {
            let before = &ancestors[position - 1];
            let mut now = vec![u32::MAX; rows * positions];
            let parents = inputs.indices(rows, beams);
            for (row, now) in now.chunks_mut(positions).enumerate() {
                let own = row % beams;
                let parent = if reordered { parents[row] as usize } else { own };
                let from = (row - own + parent) * positions;
                now[..position - 1].copy_from_slice(&before[from..from + position - 1]);
                now[position - 1] = parent as u32;
            }
            ancestors.push(now);
        }
        Self { sizes: DecoderRows { rows, beams, heads, head_size }, positions, qkv, ancestors }
    }

    fn d(&self) -> usize {
        self.sizes.heads * self.sizes.head_size
    }

    /// Runs all positions; their results one after the other, and the cache's keys and values in the end.
    fn run(&self, stream: &Arc<dyn Stream>, with_table: bool) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (rows, d, positions) = (self.sizes.rows, self.d(), self.positions);
        let mut keys = Buffer::new(stream, positions * rows * d).unwrap();
        let mut values = Buffer::new(stream, positions * rows * d).unwrap();
        let mut newest = Buffer::from_slice(stream, &[0]).unwrap();
        let mut all = Vec::new();
        for position in 0..positions {
            newest.upload(0, &[position as u32]).unwrap();
            let qkv = Buffer::from_slice(stream, &self.qkv[position]).unwrap();
            let table = Buffer::from_slice(stream, &self.ancestors[position]).unwrap();
            let mut out = Buffer::<bf16>::new(stream, rows * d).unwrap();
            let cache = SelfCache {
                keys: keys.ptr_mut(),
                values: values.ptr_mut(),
                ancestors: if with_table { table.ptr() } else { Ptr::NULL },
                positions,
                newest: newest.ptr(),
            };
            beam_self_attention(&**stream, self.sizes, qkv.ptr(), cache, out.ptr_mut()).unwrap();
            all.extend(plain(&out.to_vec().unwrap()));
        }
        (all, keys.to_vec().unwrap(), values.to_vec().unwrap())
    }

    /// Columns of all positions' rows, as the cache holds them.
    fn columns(&self, part: usize) -> Vec<f32> {
        let d = self.d();
        let rows = self.qkv.iter().flat_map(|qkv| qkv.chunks(3 * d));
        rows.flat_map(|row| &row[part * d..(part + 1) * d]).copied().collect()
    }

    fn reference(&self) -> Vec<f64> {
        let DecoderRows { rows, beams, heads, .. } = self.sizes;
        let (d, positions) = (self.d(), self.positions);
        let (keys, values) = (wide(&self.columns(1)), wide(&self.columns(2)));
        let mut out = Vec::new();
        for (position, (qkv, ancestors)) in self.qkv.iter().zip(&self.ancestors).enumerate() {
            for (row, (qkv, ancestors)) in qkv.chunks(3 * d).zip(ancestors.chunks(positions)).enumerate() {
                let first = (row - row % beams) as u32;
                let past = ancestors[..position].iter().map(|ancestor| first + ancestor);
                let slots: Vec<u32> = past.chain([row as u32]).collect();
                let q = wide(&qkv[..d]);
                out.extend(ops::cached_attention::reference(&q, (&keys, &values), rows, &slots, heads));
            }
        }
        out
    }
}

#[test]
fn attention_over_the_past_is_near_the_reference() {
    let mut inputs = Inputs::new();
    for size in SIZES {
        let case = Case::new(&mut inputs, size, true);
        let want = case.reference();
        let bound = |i: usize| ops::cached_attention::TOLERANCE.f32 + 1.01 * BF16_ROUNDING * want[i].abs();
        for stream in streams() {
            let what = format!("{size:?} {}", stream.describe());
            let (got, keys, values) = case.run(&stream, true);
            assert_near(&got, &want, bound, 1.0, &what);
            assert_same(&keys, &case.columns(1), &what);
            assert_same(&values, &case.columns(2), &what);
        }
    }
}

#[test]
fn without_a_table_every_row_is_its_own_ancestor() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (2, 3, 1, 64, 6), false);
    for stream in streams() {
        assert_same(&case.run(&stream, false).0, &case.run(&stream, true).0, &stream.describe());
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row_and_its_heirs() {
    let mut inputs = Inputs::new();
    let mut case = Case::new(&mut inputs, (1, 4, 1, 32, 3), false);
    let d = case.d();
    case.qkv[1][2 * 3 * d + d] = f32::NAN; // a key of row 2 at position 1
    for stream in streams() {
        for (index, out) in case.run(&stream, true).0.chunks(d).enumerate() {
            let (position, row) = (index / 4, index % 4);
            let bad = row == 2 && position > 0;
            assert!(out.iter().all(|x| x.is_finite() != bad), "row {row} at position {position}");
        }
    }
}
