//! [`crate::ops::cached_attention`] on the CPU.

use crate::cpu::Exec;
use crate::cpu::exec::part;
use crate::cpu::isa::{Kernel, Machine};
use crate::cpu::row_attention::attend;
use crate::cpu::shared::Shared;

/// Attention of each row over its own past in an append-only cache: row r's key at position p is the one of slot
/// `ancestors[r * ancestor_stride + p]`.
///
/// `q` holds `m` rows of `stride` columns, the queries from column `q_offset`; `keys` and `values` are
/// `[position][slot][heads * head_size]` with `slots` slots; positions `0..len` are attended to, and with none the
/// result is zeros; `out` is [m, heads * head_size].
#[allow(clippy::too_many_arguments)]
pub fn cached_attention(
    exec: Exec,
    q: &[f32],
    m: usize,
    stride: usize,
    q_offset: usize,
    keys: &[f32],
    values: &[f32],
    slots: usize,
    ancestors: &[u32],
    ancestor_stride: usize,
    len: usize,
    heads: usize,
    head_size: usize,
    out: &mut [f32],
) {
    let d = heads * head_size;
    assert_eq!(out.len(), m * d);
    if m == 0 || d == 0 {
        return;
    }
    assert!(q_offset + d <= stride && q.len() >= (m - 1) * stride + q_offset + d);
    assert!(len <= ancestor_stride && ancestors.len() >= (m - 1) * ancestor_stride + len);
    assert!(keys.len() >= len * slots * d && values.len() >= len * slots * d);
    let pieces = exec.pieces(4 * m * d * len);
    let out = Shared::new(out);
    exec.each(pieces, |piece| {
        let rows = part(m, pieces, piece);
        // SAFETY: each piece has rows of its own.
        let out = unsafe { out.slice_mut(rows.start * d..rows.end * d) };
        exec.isa.run(Cached {
            q: &q[rows.start * stride + q_offset..],
            stride,
            keys,
            values,
            slots,
            ancestors: &ancestors[rows.start * ancestor_stride..],
            ancestor_stride,
            len,
            head_size,
            d,
            out,
        });
    });
}

struct Cached<'a> {
    q: &'a [f32],
    stride: usize,
    keys: &'a [f32],
    values: &'a [f32],
    slots: usize,
    ancestors: &'a [u32],
    ancestor_stride: usize,
    len: usize,
    head_size: usize,
    d: usize,
    out: &'a mut [f32],
}

impl Kernel for Cached<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let Self { slots, head_size, d, len, .. } = self;
        for (row, out) in self.out.chunks_exact_mut(d).enumerate() {
            let q = &self.q[row * self.stride..row * self.stride + d];
            let ancestors = &self.ancestors[row * self.ancestor_stride..row * self.ancestor_stride + len];
            let at = |position: usize| {
                let slot = ancestors[position] as usize;
                assert!(slot < slots);
                (position * slots + slot) * d..(position * slots + slot + 1) * d
            };
            attend(q, head_size, len, |p| &self.keys[at(p)], |p| &self.values[at(p)], out);
        }
    }
}
