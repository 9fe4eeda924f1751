#![allow(unsafe_code)]
//! The one distance function of nearest neighbour and k-center.
//!
//! Squared Euclidean distance by direct difference, in a fixed order: lane `l` of 16 sums the squares of coordinates
//! `l, l + 16, ...` with fused multiply-adds, then lanes are added pairwise (`l` and `l + 8`, then 4, 2, 1). Every variant
//! gives the same bits, so a distance is the same number wherever and however it is computed, and 0 for equal rows.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::cpu_isa::{Isa, Level};

/// Coordinates between two looks at the limit in [`squared_below`].
pub(super) const STRIDE: usize = 128;

/// Squared distance of two rows of equal length.
pub(crate) fn squared(isa: Isa, a: &[f32], b: &[f32]) -> f32 {
    squared_below(isa, a, b, f32::INFINITY)
}

/// The squared distance if it is at most `limit`; otherwise it, or some number above `limit`.
///
/// A partial sum never exceeds the whole one, since rounding is monotone and the terms are not negative.
pub(crate) fn squared_below(isa: Isa, a: &[f32], b: &[f32], limit: f32) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    match isa.level() {
        Level::Portable => portable_below(a, b, limit),
        // SAFETY: an `Isa` exists only for instructions that are there; both slices have the same length.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2_below(a, b, limit) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512_below(a, b, limit) },
    }
}

/// Squared distances of `a` `[d]` to the rows `[out.len(), d]`.
pub(crate) fn squared_rows(isa: Isa, a: &[f32], rows: &[f32], out: &mut [f32]) {
    let d = a.len();
    let rows = &rows[..d * out.len()];
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            let mut quads = out.chunks_exact_mut(4);
            let mut at = 0;
            for quad in &mut quads {
                // SAFETY: the instructions are there; `rows` holds four more rows of `d` from `at * d` on.
                unsafe { avx512_four(a, rows.as_ptr().add(at * d), quad) };
                at += 4;
            }
            for v in quads.into_remainder() {
                *v = squared(isa, a, &rows[at * d..(at + 1) * d]);
                at += 1;
            }
        }
        _ => {
            for (i, v) in out.iter_mut().enumerate() {
                *v = squared(isa, a, &rows[i * d..(i + 1) * d]);
            }
        }
    }
}

pub(super) fn tree(mut lanes: [f32; 16]) -> f32 {
    for width in [8, 4, 2, 1] {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
    }
    lanes[0]
}

fn portable_below(a: &[f32], b: &[f32], limit: f32) -> f32 {
    let mut lanes = [0f32; 16];
    for (a, b) in a.chunks(STRIDE).zip(b.chunks(STRIDE)) {
        for (a, b) in a.chunks(16).zip(b.chunks(16)) {
            for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
                let t = a - b;
                *lane = t.mul_add(t, *lane);
            }
        }
        let sum = tree(lanes);
        if sum > limit {
            return sum;
        }
    }
    tree(lanes)
}

/// Lanes 0..8 of a 16-lane sum, halves already added.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn tree8(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

/// # Safety
/// `a` and `b` have the same length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_below(a: &[f32], b: &[f32], limit: f32) -> f32 {
    let (n, whole) = (a.len(), a.len() / 16 * 16);
    let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    let mut at = 0;
    while at < whole {
        let end = (at + STRIDE).min(whole);
        while at < end {
            // SAFETY: at + 16 <= whole <= n.
            let (x, y) = unsafe {
                let (a, b) = (a.as_ptr().add(at), b.as_ptr().add(at));
                (
                    _mm256_sub_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(b)),
                    _mm256_sub_ps(_mm256_loadu_ps(a.add(8)), _mm256_loadu_ps(b.add(8))),
                )
            };
            low = _mm256_fmadd_ps(x, x, low);
            high = _mm256_fmadd_ps(y, y, high);
            at += 16;
        }
        if limit < f32::INFINITY && at < n {
            let sum = tree8(_mm256_add_ps(low, high));
            if sum > limit {
                return sum;
            }
        }
    }
    if whole < n {
        let mut t = [0f32; 16];
        for (t, (a, b)) in t.iter_mut().zip(a[whole..].iter().zip(&b[whole..])) {
            *t = a - b;
        }
        // SAFETY: `t` has 16 elements.
        let (x, y) = unsafe { (_mm256_loadu_ps(t.as_ptr()), _mm256_loadu_ps(t.as_ptr().add(8))) };
        low = _mm256_fmadd_ps(x, x, low);
        high = _mm256_fmadd_ps(y, y, high);
    }
    tree8(_mm256_add_ps(low, high))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
#[inline]
pub(super) fn halves(v: __m512) -> __m256 {
    let high = _mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b1110>(v, v));
    _mm256_add_ps(_mm512_castps512_ps256(v), high)
}

/// # Safety
/// `a` and `b` have the same length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512_below(a: &[f32], b: &[f32], limit: f32) -> f32 {
    let (n, whole) = (a.len(), a.len() / 16 * 16);
    let mut sum = _mm512_setzero_ps();
    let mut at = 0;
    while at < whole {
        let end = (at + STRIDE).min(whole);
        while at < end {
            // SAFETY: at + 16 <= whole <= n.
            let x = unsafe { _mm512_sub_ps(_mm512_loadu_ps(a.as_ptr().add(at)), _mm512_loadu_ps(b.as_ptr().add(at))) };
            sum = _mm512_fmadd_ps(x, x, sum);
            at += 16;
        }
        if limit < f32::INFINITY && at < n {
            let partial = tree8(halves(sum));
            if partial > limit {
                return partial;
            }
        }
    }
    if whole < n {
        let mask = (1u16 << (n - whole)) - 1;
        // SAFETY: the mask covers the n - whole < 16 elements that are left; masked-off lanes are not read.
        let x = unsafe {
            let (a, b) = (a.as_ptr().add(whole), b.as_ptr().add(whole));
            _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, a), _mm512_maskz_loadu_ps(mask, b))
        };
        sum = _mm512_fmadd_ps(x, x, sum);
    }
    tree8(halves(sum))
}

/// Four rows at once: four independent chains and one shared reduction.
///
/// # Safety
/// `rows` points to four rows of `a.len()`, `out` has four elements.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512_four(a: &[f32], rows: *const f32, out: &mut [f32]) {
    let (n, whole) = (a.len(), a.len() / 16 * 16);
    let mut sum = [_mm512_setzero_ps(); 4];
    let mut at = 0;
    while at < whole {
        // SAFETY: at + 16 <= n, in `a` and in each of the four rows.
        unsafe {
            let q = _mm512_loadu_ps(a.as_ptr().add(at));
            for (r, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_sub_ps(q, _mm512_loadu_ps(rows.add(r * n + at)));
                *sum = _mm512_fmadd_ps(x, x, *sum);
            }
        }
        at += 16;
    }
    if whole < n {
        let mask = (1u16 << (n - whole)) - 1;
        // SAFETY: the mask covers what is left of `a` and of each row.
        unsafe {
            let q = _mm512_maskz_loadu_ps(mask, a.as_ptr().add(whole));
            for (r, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_sub_ps(q, _mm512_maskz_loadu_ps(mask, rows.add(r * n + whole)));
                *sum = _mm512_fmadd_ps(x, x, *sum);
            }
        }
    }
    let quarter = |v: __m512| {
        let v = halves(v);
        _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v))
    };
    // Transposed, so that the last two steps of the tree run for all four rows at once.
    let (r0, r1, r2, r3) = (quarter(sum[0]), quarter(sum[1]), quarter(sum[2]), quarter(sum[3]));
    let (a01, b01) = (_mm_unpacklo_ps(r0, r1), _mm_unpackhi_ps(r0, r1));
    let (a23, b23) = (_mm_unpacklo_ps(r2, r3), _mm_unpackhi_ps(r2, r3));
    let (l0, l1) = (_mm_movelh_ps(a01, a23), _mm_movehl_ps(a23, a01));
    let (l2, l3) = (_mm_movelh_ps(b01, b23), _mm_movehl_ps(b23, b01));
    // SAFETY: `out` has four elements.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), _mm_add_ps(_mm_add_ps(l0, l2), _mm_add_ps(l1, l3))) };
}
