//! Attention of one query row over a few keys that lie anywhere: the core of cached and segment attention.

use crate::cpu::lanes::{self, LANES};
use crate::cpu::math::exp2_nonpositive;

/// Keys whose scores are held at once.
const KEYS: usize = 32;

/// Heads that are computed side by side, so that a key's row is read once and in order.
const HEADS: usize = 8;

/// log2(e) / sqrt(head_size): the scale of the scores, in units in which the softmax is a power of two.
#[inline(always)]
pub(crate) fn score_scale(head_size: usize) -> f32 {
    (std::f64::consts::LOG2_E / (head_size as f64).sqrt()) as f32
}

/// `out = sum over i < len of softmax_i(q . key(i) / sqrt(head_size)) * value(i)`, head by head; zeros for `len` 0.
///
/// `q` and `out` are [heads * head_size], as is what `key` and `value` give.
#[inline(always)]
pub(crate) fn attend<'a>(
    q: &[f32],
    head_size: usize,
    len: usize,
    key: impl Fn(usize) -> &'a [f32],
    value: impl Fn(usize) -> &'a [f32],
    out: &mut [f32],
) {
    out.fill(0.0);
    if len == 0 {
        return;
    }
    let scale = score_scale(head_size);
    let width = HEADS * head_size;
    for (group, (q, out)) in q.chunks(width).zip(out.chunks_mut(width)).enumerate() {
        let columns = group * width..group * width + q.len();
        let mut heads = [Head { scores: [0.0; KEYS], max: f32::NEG_INFINITY, total: [0.0; LANES] }; HEADS];
        for start in (0..len).step_by(KEYS) {
            let count = KEYS.min(len - start);
            for i in 0..count {
                let key = &key(start + i)[columns.clone()];
                let parts = q.chunks_exact(head_size).zip(key.chunks_exact(head_size));
                for (head, (q, key)) in heads.iter_mut().zip(parts) {
                    head.scores[i] = lanes::dot(q, key) * scale;
                }
            }
            for (head, out) in heads.iter_mut().zip(out.chunks_exact_mut(head_size)) {
                head.weigh(count, out);
            }
            for i in 0..count {
                let value = &value(start + i)[columns.clone()];
                let parts = out.chunks_exact_mut(head_size).zip(value.chunks_exact(head_size));
                for (head, (out, value)) in heads.iter().zip(parts) {
                    for (out, value) in out.iter_mut().zip(value) {
                        *out = head.scores[i].mul_add(*value, *out);
                    }
                }
            }
        }
        for (head, out) in heads.iter().zip(out.chunks_exact_mut(head_size)) {
            let share = 1.0 / lanes::sum(head.total);
            out.iter_mut().for_each(|out| *out *= share);
        }
    }
}

/// The running softmax of one head.
#[derive(Clone, Copy)]
struct Head {
    /// Scores, then weights.
    scores: [f32; KEYS],
    max: f32,
    total: [f32; LANES],
}

impl Head {
    /// Turns the first `count` scores into weights relative to the new maximum, and brings `out` to it.
    #[inline(always)]
    fn weigh(&mut self, count: usize, out: &mut [f32]) {
        self.scores[count..].fill(f32::NEG_INFINITY);
        let mut largest = [self.max; LANES];
        for scores in self.scores.as_chunks::<LANES>().0 {
            for l in 0..LANES {
                largest[l] = lanes::larger(scores[l], largest[l]);
            }
        }
        let before = std::mem::replace(&mut self.max, lanes::max(largest));
        if before != self.max {
            let shrink = exp2_nonpositive(before - self.max);
            self.total.iter_mut().for_each(|total| *total *= shrink);
            out.iter_mut().for_each(|out| *out *= shrink);
        }
        for scores in self.scores.as_chunks_mut::<LANES>().0 {
            for (score, total) in scores.iter_mut().zip(&mut self.total) {
                *score = exp2_nonpositive(*score - self.max);
                *total += *score;
            }
        }
    }
}
