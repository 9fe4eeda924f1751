#![allow(unsafe_code)]
//! Sixteen lanes of `f32`: one AVX-512 register, two AVX ones, or an array.

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// Sixteen lanes.
///
/// # Safety
/// Methods may be called only where the processor has the type's instructions, from a function that enables them; pointers
/// must be valid for the lanes read or written.
pub(super) unsafe trait Vector: Copy {
    /// All lanes `v`.
    unsafe fn splat(v: f32) -> Self;
    /// Sixteen floats.
    unsafe fn load(from: *const f32) -> Self;
    /// Floats `first..end`, zero in the other lanes, which are not read.
    unsafe fn load_lanes(from: *const f32, first: usize, end: usize) -> Self;
    /// Writes sixteen floats.
    unsafe fn store(self, to: *mut f32);
    /// `a * b + self`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// Sum by lanes.
    unsafe fn add(self, other: Self) -> Self;
    /// Sum of all lanes.
    #[inline(always)]
    unsafe fn total(self) -> f32 {
        let mut v = [0.0f32; LANES];
        // SAFETY: the array has sixteen floats; the instructions are the caller's contract.
        unsafe { self.store(v.as_mut_ptr()) };
        for half in [8, 4, 2, 1] {
            for l in 0..half {
                v[l] += v[l + half];
            }
        }
        v[0]
    }
}

/// Portable lanes; a multiply-add rounds twice.
#[derive(Clone, Copy)]
pub(super) struct Lanes([f32; LANES]);

// SAFETY: plain Rust on arrays; pointers are the caller's contract.
unsafe impl Vector for Lanes {
    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        Lanes([v; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for sixteen floats; the read may be unaligned.
        Lanes(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_lanes(from: *const f32, first: usize, end: usize) -> Self {
        let mut v = [0.0; LANES];
        for (l, v) in v.iter_mut().enumerate().take(end).skip(first) {
            // SAFETY: the caller vouches for these lanes.
            *v = unsafe { from.wrapping_add(l).read() };
        }
        Lanes(v)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for sixteen floats; the write may be unaligned.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) };
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        Lanes(std::array::from_fn(|l| a.0[l] * b.0[l] + self.0[l]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Lanes(std::array::from_fn(|l| self.0[l] + other.0[l]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    /// One AVX-512 register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY: each method is one or two AVX-512F instructions, which the caller's contract covers, as it does pointers;
    // masked-off lanes are not accessed.
    unsafe impl Vector for Avx512 {
        #[inline(always)]
        unsafe fn splat(v: f32) -> Self {
            // SAFETY: see the impl.
            unsafe { Avx512(_mm512_set1_ps(v)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the impl.
            unsafe { Avx512(_mm512_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn load_lanes(from: *const f32, first: usize, end: usize) -> Self {
            let mask = ((1u32 << end) - (1u32 << first)) as u16;
            // SAFETY: see the impl.
            unsafe { Avx512(_mm512_maskz_loadu_ps(mask, from)) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the impl.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see the impl.
            unsafe { Avx512(_mm512_fmadd_ps(a.0, b.0, self.0)) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the impl.
            unsafe { Avx512(_mm512_add_ps(self.0, other.0)) }
        }
    }

    /// Two AVX registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    /// A window of this starting at `16 - end` has its first `end` lanes set; one starting at `32 - first`, those from
    /// `first` on.
    const MASK: &[i32; 48] = &{
        let mut mask = [0; 48];
        let mut i = 0;
        while i < 16 {
            mask[i] = -1;
            mask[i + 32] = -1;
            i += 1;
        }
        mask
    };

    // SAFETY: each method is a few AVX, AVX2 or FMA instructions, which the caller's contract covers, as it does pointers;
    // masked-off lanes are not accessed.
    unsafe impl Vector for Avx2 {
        #[inline(always)]
        unsafe fn splat(v: f32) -> Self {
            // SAFETY: see the impl.
            unsafe { Avx2(_mm256_set1_ps(v), _mm256_set1_ps(v)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the impl.
            unsafe { Avx2(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }
        #[inline(always)]
        unsafe fn load_lanes(from: *const f32, first: usize, end: usize) -> Self {
            // SAFETY: see the impl; both windows of sixteen lie within the table, as `first` and `end` are at most 16.
            unsafe {
                let half = |at: usize| {
                    let until = _mm256_loadu_si256(MASK.as_ptr().add(16 - end + at).cast());
                    let since = _mm256_loadu_si256(MASK.as_ptr().add(32 - first + at).cast());
                    _mm256_maskload_ps(from.wrapping_add(at), _mm256_and_si256(until, since))
                };
                Avx2(half(0), half(8))
            }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the impl.
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see the impl.
            unsafe { Avx2(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the impl.
            unsafe { Avx2(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }
    }
}
