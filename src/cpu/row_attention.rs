//! Attention of one query row over a few keys that lie anywhere: the core of cached and segment attention.

use crate::cpu::lanes::{self, LANES};
use crate::cpu::math::exp2_nonpositive;

/// Keys whose scores are held at once.
const KEYS: usize = 32;

/// log2(e) / sqrt(head_size): the scale of the scores, in units in which the softmax is a power of two.
#[inline(always)]
pub(crate) fn score_scale(head_size: usize) -> f32 {
    (std::f64::consts::LOG2_E / (head_size as f64).sqrt()) as f32
}

/// `out = sum over i < len of softmax_i(q . key(i) / sqrt(head_size)) * value(i)`; zeros for `len` 0.
#[inline(always)]
pub(crate) fn attend<'a>(
    q: &[f32],
    len: usize,
    key: impl Fn(usize) -> &'a [f32],
    value: impl Fn(usize) -> &'a [f32],
    out: &mut [f32],
) {
    let scale = score_scale(q.len());
    out.fill(0.0);
    let (mut max, mut total) = (f32::NEG_INFINITY, [0.0; LANES]);
    for start in (0..len).step_by(KEYS) {
        let count = KEYS.min(len - start);
        let mut scores = [f32::NEG_INFINITY; KEYS];
        for (i, score) in scores[..count].iter_mut().enumerate() {
            *score = lanes::dot(q, key(start + i)) * scale;
        }
        let before = max;
        let mut largest = [max; LANES];
        for scores in scores.as_chunks::<LANES>().0 {
            for l in 0..LANES {
                largest[l] = lanes::larger(scores[l], largest[l]);
            }
        }
        max = lanes::max(largest);
        if start > 0 {
            let shrink = exp2_nonpositive(before - max);
            total.iter_mut().for_each(|total| *total *= shrink);
            out.iter_mut().for_each(|out| *out *= shrink);
        }
        for scores in scores.as_chunks_mut::<LANES>().0 {
            for l in 0..LANES {
                scores[l] = exp2_nonpositive(scores[l] - max);
                total[l] += scores[l];
            }
        }
        for (i, &weight) in scores[..count].iter().enumerate() {
            for (out, value) in out.iter_mut().zip(value(start + i)) {
                *out = weight.mul_add(*value, *out);
            }
        }
    }
    if len > 0 {
        let share = 1.0 / lanes::sum(total);
        out.iter_mut().for_each(|out| *out *= share);
    }
}
