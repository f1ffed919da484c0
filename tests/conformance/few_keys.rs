//! Attention through an ancestor table, and inside short segments.

use bidslate::cpu::{Exec, cached_attention, segment_attention};
use bidslate::ops;

use crate::setup::*;

#[test]
fn cached_attention_reads_its_ancestors() {
    let mut inputs = Inputs::new();
    for (m, slots, len, heads, head_size) in [
        (0, 4, 3, 1, 32),
        (2, 2, 0, 1, 32),
        (1, 1, 1, 1, 64),
        (5, 7, 3, 2, 32),
        (3, 3, 16, 1, 64),
        (4, 6, 33, 3, 5),
        (64, 64, 31, 4, 64),
        (3, 3, 70, 2, 128),
    ] {
        let d = heads * head_size;
        let (stride, q_offset, ancestor_stride) = (d + 5, 3, len + 2);
        let q = inputs.numbers(m * stride);
        let (keys, values) = (inputs.numbers(len * slots * d), inputs.numbers(len * slots * d));
        let ancestors = inputs.indices(m * ancestor_stride, slots);
        let mut want = Vec::new();
        for row in 0..m {
            if len == 0 {
                want.extend(vec![0.0; d]);
                continue;
            }
            let q = wide(&q[row * stride + q_offset..][..d]);
            let ancestors = &ancestors[row * ancestor_stride..][..len];
            let cache = (wide(&keys), wide(&values));
            want.extend(ops::cached_attention::reference(&q, (&cache.0, &cache.1), slots, ancestors, heads));
        }
        let run = |exec: Exec, first: usize, m: usize| {
            let mut out = vec![f32::NAN; m * d];
            cached_attention(
                exec,
                &q[first * stride..],
                m,
                stride,
                q_offset,
                &keys,
                &values,
                slots,
                &ancestors[first * ancestor_stride..],
                ancestor_stride,
                len,
                heads,
                head_size,
                &mut out,
            );
            out
        };
        let first = run(execs()[0], 0, m);
        for exec in execs() {
            let what = format!("{m} rows, {len} positions, {heads} heads of {head_size}, {}", name(exec));
            let got = run(exec, 0, m);
            assert_near(&got, &want, |_| 1.0, ops::cached_attention::TOLERANCE.f32, &what);
            assert_same(&got, &first, &what);
            if m > 0 {
                assert_same(&run(exec, m - 1, 1), &first[(m - 1) * d..], &what);
            }
        }
    }
}

#[test]
fn segments_attend_to_themselves_only() {
    let mut inputs = Inputs::new();
    for (lengths, heads, head_size) in [
        (vec![], 1, 32),
        (vec![0], 1, 32),
        (vec![1], 1, 64),
        (vec![3, 0, 1, 10], 2, 32),
        (vec![32, 33, 2], 1, 64),
        (vec![7, 5], 3, 5),
        (vec![4], 1, 1),
        (vec![10; 64], 4, 64),
        (vec![70], 1, 17),
    ] {
        let d = heads * head_size;
        let offsets: Vec<usize> = std::iter::once(0)
            .chain(lengths.iter().scan(0, |end, len| Some((*end += len, *end).1)))
            .collect();
        let rows = offsets[offsets.len() - 1];
        let qkv = inputs.numbers(rows * 3 * d);
        let want: Vec<f64> = offsets
            .windows(2)
            .flat_map(|w| {
                ops::segment_attention::reference(&wide(&qkv[w[0] * 3 * d..w[1] * 3 * d]), heads, head_size)
            })
            .collect();
        let run = |exec, qkv: &[f32], offsets: &[usize]| {
            let mut out = vec![f32::NAN; qkv.len() / 3];
            segment_attention(exec, qkv, offsets, heads, head_size, &mut out);
            out
        };
        let first = run(execs()[0], &qkv, &offsets);
        for exec in execs() {
            let what = format!("{lengths:?}, {heads} heads of {head_size}, {}", name(exec));
            let got = run(exec, &qkv, &offsets);
            assert_near(&got, &want, |_| 1.0, ops::segment_attention::TOLERANCE.f32, &what);
            assert_same(&got, &first, &what);
            for w in offsets.windows(2) {
                let alone = run(exec, &qkv[w[0] * 3 * d..w[1] * 3 * d], &[0, w[1] - w[0]]);
                assert_same(&alone, &first[w[0] * d..w[1] * d], &what);
            }
        }
    }
}
