//! The inner loops of [`super::tile`] with the sums in named registers, where plain arrays do not get the compiler to
//! keep them.
//!
//! The slices are cut to size first; inside the loops plain pointers walk them, because a check per row and step is a
//! tenth of the time.

use std::arch::x86_64::*;

use crate::cpu::bf16::{self, Pair};
use crate::cpu::tile::{Factors, Sums};

/// f32 for 32 columns, two registers a row.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn wide<const R: usize>(factors: Factors<f32>, mut sums: Sums) {
    let (rows, b) = factors.cut::<R, 32>();
    let (rows, b) = (rows.map(<[f32]>::as_ptr), b.as_ptr());
    let mut registers = load::<R>(&mut sums);
    for k in 0..factors.depth {
        // SAFETY: `cut` checked that `b` holds 32 numbers from row k on; each of the two reads 16 of them.
        let b = unsafe {
            let b = b.add(k * factors.ldb);
            [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))]
        };
        for r in 0..R {
            // SAFETY: `cut` checked that each row holds `depth` numbers.
            let a = _mm512_set1_ps(unsafe { *rows[r].add(k) });
            registers[r] =
                [_mm512_fmadd_ps(a, b[0], registers[r][0]), _mm512_fmadd_ps(a, b[1], registers[r][1])];
        }
    }
    store(&registers, &mut sums);
}

/// bf16 for 32 columns, two registers a row.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn wide_bf16<const R: usize>(factors: Factors<Pair>, mut sums: Sums) {
    let (rows, b) = factors.cut::<R, 32>();
    // SAFETY: both types are 512 bits, and any bits are valid in them.
    let bf16 = |pairs: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(pairs) };
    let (rows, b) = (rows.map(<[Pair]>::as_ptr), b.as_ptr());
    let mut registers = load::<R>(&mut sums);
    for k in 0..factors.depth {
        // SAFETY: `cut` checked that `b` holds 32 pairs from row k on; each of the two reads 16 of them.
        let b = unsafe {
            let b = b.add(k * factors.ldb);
            [bf16(_mm512_loadu_si512(b.cast())), bf16(_mm512_loadu_si512(b.add(16).cast()))]
        };
        for r in 0..R {
            // SAFETY: `cut` checked that each row holds `depth` pairs.
            let a = bf16(_mm512_set1_epi32(unsafe { (*rows[r].add(k)).0 } as i32));
            registers[r] =
                [_mm512_dpbf16_ps(registers[r][0], a, b[0]), _mm512_dpbf16_ps(registers[r][1], a, b[1])];
        }
    }
    store(&registers, &mut sums);
}

/// Calls for the cache lines of `count` numbers from `start` on, to be written. A hint: any address will do.
///
/// In assembly, because the intrinsic becomes a call for lines to be read where the compiler is not told of this
/// instruction, which every machine with AVX-512 has.
#[inline(always)]
pub(crate) fn prefetch_for_write(start: *const f32, count: usize) {
    const LINE: usize = 16;
    for line in (0..count).step_by(LINE) {
        let line = start.wrapping_add(line);
        // SAFETY: prefetching changes no memory and no flags, and never faults.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly))
        };
    }
}

/// [`super::keep`], eight numbers at a time. `kept` and `places` have room for a line more than `row`, whole lines.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
pub(crate) fn keep(row: &[f64], threshold: f64, kept: &mut [f64], places: &mut [u32]) -> usize {
    assert!(kept.len() >= row.len() + 8 && places.len() >= row.len() + 8);
    let (kept, to) = (kept.as_mut_ptr(), places.as_mut_ptr());
    let threshold = _mm512_set1_pd(threshold);
    let mut place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mut count = 0;
    for line in row.as_chunks::<8>().0 {
        // SAFETY: reads the eight numbers of the line.
        let numbers = unsafe { _mm512_loadu_pd(line.as_ptr()) };
        let reach = _mm512_cmp_pd_mask::<_CMP_GE_OQ>(numbers, threshold);
        // SAFETY: `count` is at most the place of the line in `row`, and both have eight more places from there on.
        unsafe {
            _mm512_storeu_pd(kept.add(count), _mm512_maskz_compress_pd(reach, numbers));
            _mm256_storeu_si256(to.add(count).cast(), _mm256_maskz_compress_epi32(reach, place));
        }
        place = _mm256_add_epi32(place, _mm256_set1_epi32(8));
        count += reach.count_ones() as usize;
    }
    count
}

/// Rounds a row to pairs; a last number without a partner gets a zero. Subnormal numbers become zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn round(row: &[f32], to: &mut [Pair]) {
    let (lines, rest) = row.as_chunks::<32>();
    let (to, to_rest) = to[..row.len().div_ceil(2)].split_at_mut(16 * lines.len());
    for (line, to) in lines.iter().zip(to.as_chunks_mut::<16>().0) {
        // SAFETY: reads the 32 numbers of `line`, writes the 16 pairs of `to`; `__m512bh` is 512 bits.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(line.as_ptr()), _mm512_loadu_ps(line[16..].as_ptr()));
            let pairs = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
        }
    }
    bf16::round(rest, to_rest);
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load<const R: usize>(sums: &mut Sums) -> [[__m512; 2]; R] {
    let mut registers = [[_mm512_setzero_ps(); 2]; R];
    if !sums.fresh {
        for (r, register) in registers.iter_mut().enumerate() {
            let row: &[f32; 32] = sums.row(r);
            // SAFETY: each of the two reads 16 of the row's 32 numbers.
            *register = unsafe { [_mm512_loadu_ps(row.as_ptr()), _mm512_loadu_ps(row[16..].as_ptr())] };
        }
    }
    registers
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<const R: usize>(registers: &[[__m512; 2]; R], sums: &mut Sums) {
    for (r, register) in registers.iter().enumerate() {
        let row: &mut [f32; 32] = sums.row(r);
        // SAFETY: each of the two writes 16 of the row's 32 numbers.
        unsafe {
            _mm512_storeu_ps(row.as_mut_ptr(), register[0]);
            _mm512_storeu_ps(row[16..].as_mut_ptr(), register[1]);
        }
    }
}

/// f32 for 16 columns, two registers a row.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn narrow<const R: usize>(factors: Factors<f32>, mut sums: Sums) {
    let (rows, b) = factors.cut::<R, 16>();
    let mut registers = [[_mm256_setzero_ps(); 2]; R];
    if !sums.fresh {
        for (r, register) in registers.iter_mut().enumerate() {
            let row: &[f32; 16] = sums.row(r);
            // SAFETY: each of the two reads 8 of the row's 16 numbers.
            *register = unsafe { [_mm256_loadu_ps(row.as_ptr()), _mm256_loadu_ps(row[8..].as_ptr())] };
        }
    }
    let (rows, b) = (rows.map(<[f32]>::as_ptr), b.as_ptr());
    for k in 0..factors.depth {
        // SAFETY: `cut` checked that `b` holds 16 numbers from row k on; each of the two reads 8 of them.
        let b = unsafe {
            let b = b.add(k * factors.ldb);
            [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))]
        };
        for r in 0..R {
            // SAFETY: `cut` checked that each row holds `depth` numbers.
            let a = _mm256_set1_ps(unsafe { *rows[r].add(k) });
            registers[r] =
                [_mm256_fmadd_ps(a, b[0], registers[r][0]), _mm256_fmadd_ps(a, b[1], registers[r][1])];
        }
    }
    for (r, register) in registers.iter().enumerate() {
        let row: &mut [f32; 16] = sums.row(r);
        // SAFETY: each of the two writes 8 of the row's 16 numbers.
        unsafe {
            _mm256_storeu_ps(row.as_mut_ptr(), register[0]);
            _mm256_storeu_ps(row[8..].as_mut_ptr(), register[1]);
        }
    }
}
