//! Gathering the numbers of a row that reach a threshold.

use crate::cpu::isa::Machine;
#[cfg(target_arch = "x86_64")]
use crate::cpu::x86;

/// Numbers that are looked at together.
pub(crate) const KEEP_LINE: usize = 8;

/// Gathers the numbers of `row` that are at least `threshold`, in their order, to `kept`, and their places in the row to
/// `places`; returns how many there are. `row` is whole lines, the other two have room for a line more than it; what
/// stands behind the gathered numbers is overwritten.
#[inline(always)]
pub(crate) fn keep<M: Machine>(row: &[f64], threshold: f64, kept: &mut [f64], places: &mut [u32]) -> usize {
    assert!(row.len().is_multiple_of(KEEP_LINE));
    let (kept, places) = (&mut kept[..row.len() + KEEP_LINE], &mut places[..row.len() + KEEP_LINE]);
    #[cfg(target_arch = "x86_64")]
    if M::WIDE {
        // SAFETY: a machine is `WIDE` only where its code is entered with AVX-512 detected.
        return unsafe { x86::keep(row, threshold, kept, places) };
    }
    let mut count = 0;
    for (place, &number) in row.iter().enumerate() {
        // Written in any case, and kept or overwritten by the next one.
        kept[count] = number;
        places[count] = place as u32;
        count += usize::from(number >= threshold);
    }
    count
}
