//! [`crate::ops::rms_norm`] on the CPU.

use crate::cpu::Exec;
use crate::cpu::exec::part;
use crate::cpu::isa::{Kernel, Machine};
use crate::cpu::lanes;
use crate::cpu::shared::Shared;

/// Root-mean-square norm of each row: `y = x * 1 / sqrt(mean(x^2) + eps) * weight`.
///
/// `x` and `y` are [m, d], `weight` is `[d]`.
pub fn rms_norm(exec: Exec, x: &[f32], m: usize, weight: &[f32], eps: f32, y: &mut [f32]) {
    let d = weight.len();
    assert_eq!(x.len(), m * d);
    assert_eq!(y.len(), m * d);
    let pieces = exec.pieces(4 * m * d);
    let y = Shared::new(y);
    exec.each(pieces, |piece| {
        let rows = part(m, pieces, piece);
        let x = &x[rows.start * d..rows.end * d];
        // SAFETY: each piece has rows of its own.
        let y = unsafe { y.slice_mut(rows.start * d..rows.end * d) };
        exec.isa.run(Norm { x, weight, eps, y });
    });
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let d = self.weight.len();
        if d == 0 {
            return;
        }
        for (x, y) in self.x.chunks_exact(d).zip(self.y.chunks_exact_mut(d)) {
            let mean = lanes::dot(x, x) / d as f32;
            let scale = 1.0 / (mean + self.eps).sqrt();
            for ((y, x), weight) in y.iter_mut().zip(x).zip(self.weight) {
                *y = x * scale * weight;
            }
        }
    }
}
