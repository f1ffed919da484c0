//! [`crate::ops::segment_attention`] on the CPU.

use crate::cpu::Exec;
use crate::cpu::exec::part;
use crate::cpu::isa::{Kernel, Machine};
use crate::cpu::row_attention::attend;
use crate::cpu::shared::Shared;

/// Full attention inside each of many short segments of rows.
///
/// `qkv` is [rows, 3 d] with d = heads * head_size: queries, keys and values side by side. Segment s is the rows
/// `offsets[s]..offsets[s + 1]`; the segments lie in order and may be empty. `out` is [rows, d]; rows in no segment
/// are left alone.
pub fn segment_attention(
    exec: Exec,
    qkv: &[f32],
    offsets: &[usize],
    heads: usize,
    head_size: usize,
    out: &mut [f32],
) {
    let d = heads * head_size;
    assert_eq!(qkv.len(), 3 * out.len());
    assert!(offsets.is_sorted());
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else { return };
    assert!(last * d <= out.len());
    if d == 0 || first == last {
        return;
    }
    let segments = offsets.len() - 1;
    let pieces = exec.pieces(4 * (last - first) * d * (last - first) / segments);
    let out = Shared::new(out);
    exec.each(pieces, |piece| {
        for segment in part(segments, pieces, piece) {
            let rows = offsets[segment]..offsets[segment + 1];
            // SAFETY: the offsets are sorted, so each segment has rows of its own.
            let out = unsafe { out.slice_mut(rows.start * d..rows.end * d) };
            let qkv = &qkv[rows.start * 3 * d..rows.end * 3 * d];
            exec.isa.run(Segment { qkv, head_size, d, out });
        }
    });
}

struct Segment<'a> {
    qkv: &'a [f32],
    head_size: usize,
    d: usize,
    out: &'a mut [f32],
}

impl Kernel for Segment<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let Self { qkv, head_size, d, .. } = self;
        let len = qkv.len() / (3 * d);
        for (row, out) in self.out.chunks_exact_mut(d).enumerate() {
            let q = &qkv[row * 3 * d..][..d];
            let at = |row: usize, part: usize| &qkv[(3 * row + part) * d..][..d];
            attend(q, head_size, len, |row| at(row, 1), |row| at(row, 2), out);
        }
    }
}
