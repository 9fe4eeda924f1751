#![allow(unsafe_code)]
//! Distances to rows kept in fewer bits, which are decoded in registers.
//!
//! The numbers decoded and the order of the sum are those of [`squared_below`] on decoded rows: the same bits.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::f16;

use super::cpu_distance::{STRIDE, squared_below, squared_rows, tree};
#[cfg(target_arch = "x86_64")]
use super::cpu_distance::{halves, tree8};
use super::cpu_isa::{Isa, Level};
use super::rows::{View, dequantise};

/// As [`squared_below`], for a row in any storage.
pub(crate) fn squared_below_of(isa: Isa, a: &[f32], row: View<'_>, limit: f32) -> f32 {
    match row {
        View::F32(b) => squared_below(isa, a, b, limit),
        View::F16(b) => compact_below(isa, a, Halves(b), limit),
        View::Int8 { codes, scale, offset } => {
            let n = codes.len().min(scale.len()).min(offset.len());
            compact_below(isa, a, Bytes { codes: &codes[..n], scale: &scale[..n], offset: &offset[..n] }, limit)
        }
    }
}

/// Squared distances of `a` `[d]` to the first `out.len()` rows.
pub(crate) fn squared_rows_of(isa: Isa, a: &[f32], rows: View<'_>, out: &mut [f32]) {
    match rows {
        View::F32(b) => squared_rows(isa, a, b, out),
        other => {
            for (i, v) in out.iter_mut().enumerate() {
                *v = squared_below_of(isa, a, other.row(a.len(), i), f32::INFINITY);
            }
        }
    }
}

/// A row that is decoded as it is read.
trait Coded: Copy {
    fn len(self) -> usize;

    fn value(self, at: usize) -> f32;

    /// # Safety
    /// `at + 8 <= len`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn eight(self, at: usize) -> __m256;

    /// # Safety
    /// `at + 16 <= len`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn sixteen(self, at: usize) -> __m512;
}

#[derive(Clone, Copy)]
struct Halves<'a>(&'a [f16]);

impl Coded for Halves<'_> {
    fn len(self) -> usize {
        self.0.len()
    }

    fn value(self, at: usize) -> f32 {
        self.0[at].to_f32()
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn eight(self, at: usize) -> __m256 {
        // SAFETY: eight halves begin at `at`, by the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(self.0.as_ptr().add(at).cast())) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    #[inline]
    unsafe fn sixteen(self, at: usize) -> __m512 {
        // SAFETY: sixteen halves begin at `at`, by the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(self.0.as_ptr().add(at).cast())) }
    }
}

/// The three slices have one length.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    codes: &'a [i8],
    scale: &'a [f32],
    offset: &'a [f32],
}

impl Coded for Bytes<'_> {
    fn len(self) -> usize {
        self.codes.len()
    }

    fn value(self, at: usize) -> f32 {
        dequantise(self.codes[at], self.scale[at], self.offset[at])
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn eight(self, at: usize) -> __m256 {
        // SAFETY: eight codes, scales and offsets begin at `at`, by the caller's promise and since the lengths agree.
        unsafe {
            let codes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(self.codes.as_ptr().add(at).cast()));
            let (scale, offset) = (self.scale.as_ptr().add(at), self.offset.as_ptr().add(at));
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(codes), _mm256_loadu_ps(scale), _mm256_loadu_ps(offset))
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    #[inline]
    unsafe fn sixteen(self, at: usize) -> __m512 {
        // SAFETY: sixteen codes, scales and offsets begin at `at`, by the caller's promise and since the lengths agree.
        unsafe {
            let codes = _mm512_cvtepi8_epi32(_mm_loadu_si128(self.codes.as_ptr().add(at).cast()));
            let (scale, offset) = (self.scale.as_ptr().add(at), self.offset.as_ptr().add(at));
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), _mm512_loadu_ps(scale), _mm512_loadu_ps(offset))
        }
    }
}

fn compact_below<C: Coded>(isa: Isa, a: &[f32], b: C, limit: f32) -> f32 {
    assert_eq!(a.len(), b.len(), "rows of one length");
    match isa.level() {
        Level::Portable => portable_below(a, b, limit),
        // SAFETY: an `Isa` exists only for instructions that are there; both rows have the same length.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2_below(a, b, limit) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512_below(a, b, limit) },
    }
}

fn portable_below<C: Coded>(a: &[f32], b: C, limit: f32) -> f32 {
    let mut lanes = [0f32; 16];
    for (s, a) in a.chunks(STRIDE).enumerate() {
        for (i, a) in a.iter().enumerate() {
            let t = a - b.value(s * STRIDE + i);
            lanes[i % 16] = t.mul_add(t, lanes[i % 16]);
        }
        let sum = tree(lanes);
        if sum > limit {
            return sum;
        }
    }
    tree(lanes)
}

/// The differences from `whole` on, then zeros.
#[cfg(target_arch = "x86_64")]
fn rest<C: Coded>(a: &[f32], b: C, whole: usize) -> [f32; 16] {
    let mut t = [0f32; 16];
    for (i, t) in t.iter_mut().enumerate().take(a.len() - whole) {
        *t = a[whole + i] - b.value(whole + i);
    }
    t
}

/// # Safety
/// `a` and `b` have the same length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_below<C: Coded>(a: &[f32], b: C, limit: f32) -> f32 {
    let (n, whole) = (a.len(), a.len() / 16 * 16);
    let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    let mut at = 0;
    while at < whole {
        let end = (at + STRIDE).min(whole);
        while at < end {
            // SAFETY: at + 16 <= whole <= n, in both.
            let (x, y) = unsafe {
                let a = a.as_ptr().add(at);
                (
                    _mm256_sub_ps(_mm256_loadu_ps(a), b.eight(at)),
                    _mm256_sub_ps(_mm256_loadu_ps(a.add(8)), b.eight(at + 8)),
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
        let t = rest(a, b, whole);
        // SAFETY: `t` has 16 elements.
        let (x, y) = unsafe { (_mm256_loadu_ps(t.as_ptr()), _mm256_loadu_ps(t.as_ptr().add(8))) };
        low = _mm256_fmadd_ps(x, x, low);
        high = _mm256_fmadd_ps(y, y, high);
    }
    tree8(_mm256_add_ps(low, high))
}

/// # Safety
/// `a` and `b` have the same length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn avx512_below<C: Coded>(a: &[f32], b: C, limit: f32) -> f32 {
    let (n, whole) = (a.len(), a.len() / 16 * 16);
    let mut sum = _mm512_setzero_ps();
    let mut at = 0;
    while at < whole {
        let end = (at + STRIDE).min(whole);
        while at < end {
            // SAFETY: at + 16 <= whole <= n, in both.
            let x = unsafe { _mm512_sub_ps(_mm512_loadu_ps(a.as_ptr().add(at)), b.sixteen(at)) };
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
        let t = rest(a, b, whole);
        // SAFETY: `t` has 16 elements.
        let x = unsafe { _mm512_loadu_ps(t.as_ptr()) };
        sum = _mm512_fmadd_ps(x, x, sum);
    }
    tree8(halves(sum))
}
