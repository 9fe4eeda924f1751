//! Vectors of processors with products of bf16 or of bytes: AVX-512F and one more extension.
#![allow(unsafe_code)]

use super::cpu_vector::{Isa, Kernel, dispatch, plain};
#[cfg(target_arch = "x86_64")]
use super::cpu_vector::{Vector, first_of_16};
#[cfg(target_arch = "x86_64")]
use half::bf16;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// What both vectors need.
#[cfg(target_arch = "x86_64")]
pub(super) fn wide() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512bw") && has!("avx512vl")
}

/// Floats and pairs of bf16; needs AVX-512 F, BW, VL and BF16.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Pairs(__m512);

/// Floats and fours of bytes; needs AVX-512 F, BW, VL and VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Bytes(__m512);

#[cfg(target_arch = "x86_64")]
macro_rules! forward {
    ($type:ident; $($name:ident($($argument:ident),*);)*) => {
        $(#[inline(always)]
        unsafe fn $name(self $(, $argument: Self)*) -> Self {
            // SAFETY: the trait's contract.
            unsafe { $type(self.0.$name($($argument.0),*)) }
        })*
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! wide {
    ($type:ident { $($own:item)* }) => {
        // SAFETY of every method: the trait's contract is that the processor has the instructions and that pointers are good
        // for what is read or written.
        impl Vector for $type {
            const LANES: usize = 16;
            const ROWS: usize = 6;
            const VECTORS: usize = 4;
            #[inline(always)]
            unsafe fn splat(v: f32) -> Self {
                // SAFETY: see above.
                unsafe { $type(__m512::splat(v)) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> Self {
                // SAFETY: see above.
                unsafe { $type(__m512::load(p)) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32) {
                // SAFETY: see above.
                unsafe { self.0.store(p) }
            }
            #[inline(always)]
            unsafe fn load_part(p: *const f32, n: usize) -> Self {
                // SAFETY: see above.
                unsafe { $type(__m512::load_part(p, n)) }
            }
            #[inline(always)]
            unsafe fn store_part(self, p: *mut f32, n: usize) {
                // SAFETY: see above.
                unsafe { self.0.store_part(p, n) }
            }
            forward! {
                $type;
                mul_add(b, c); add(b); sub(b); mul(b); div(b); max(b); min(b); exp2_whole(); round(); scale_exp2(n);
            }
            $($own)*
        }
    };
}

#[cfg(target_arch = "x86_64")]
wide!(Pairs {
    #[inline(always)]
    unsafe fn dot_bf16(self, b: Self, sum: Self) -> Self {
        // SAFETY: see above; vectors of 512 bits hold any bits.
        unsafe { Pairs(_mm512_dpbf16_ps(sum.0, bits(self.0), bits(b.0))) }
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const f32) -> Self {
        // SAFETY: see above; `p` is good for two vectors.
        unsafe {
            let both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(p.add(16)), _mm512_loadu_ps(p));
            Pairs(std::mem::transmute::<__m512bh, __m512>(both))
        }
    }
    #[inline(always)]
    unsafe fn zip_pairs(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b.0, self.0));
            Pairs(_mm512_castsi512_ps(_mm512_permutexvar_epi16(zipped(), both)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: see above.
        unsafe { widen(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(p.cast(), halves(self.0)) }
    }
    #[inline(always)]
    unsafe fn load_bf16_part(p: *const bf16, n: usize) -> Self {
        // SAFETY: see above; numbers from `n` on are not read.
        unsafe { widen(_mm256_maskz_loadu_epi16(first_of_16(n), p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bf16_part(self, p: *mut bf16, n: usize) {
        // SAFETY: see above; numbers from `n` on are not written.
        unsafe {
            _mm256_mask_storeu_epi16(p.cast(), first_of_16(n), halves(self.0));
        }
    }
});

/// The words of a vector as pairs.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn bits(x: __m512) -> __m512bh {
    // SAFETY: both are 64 bytes that may be anything.
    unsafe { std::mem::transmute::<__m512, __m512bh>(x) }
}

/// Places of 16-bit numbers that bring those of the first and the second half together.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn zipped() -> __m512i {
    const PLACES: [u16; 32] = {
        let (mut places, mut i) = ([0; 32], 0);
        while i < 32 {
            places[i] = (i / 2 + 16 * (i % 2)) as u16;
            i += 1;
        }
        places
    };
    // SAFETY: the caller runs where the instructions are there; 64 bytes are read.
    unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) }
}

/// 16 floats rounded to bf16.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn halves(x: __m512) -> __m256i {
    // SAFETY: the caller runs where the instructions are there; both vectors are 32 bytes that may be anything.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) }
}

/// 16 numbers in bf16 as floats.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn widen(x: __m256i) -> Pairs {
    // SAFETY: the caller runs where the instructions are there.
    unsafe { Pairs(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))) }
}

#[cfg(target_arch = "x86_64")]
wide!(Bytes {
    #[inline(always)]
    unsafe fn dot_bytes(self, b: Self, sum: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let (a, b, sum) = (_mm512_castps_si512(self.0), _mm512_castps_si512(b.0), _mm512_castps_si512(sum.0));
            Bytes(_mm512_castsi512_ps(_mm512_dpbusd_epi32(sum, a, b)))
        }
    }
    #[inline(always)]
    unsafe fn add_whole(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            Bytes(_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_castps_si512(b.0))))
        }
    }
});

/// Runs a kernel with vectors of pairs of bf16, or plain code.
///
/// # Safety
/// `isa` is available; the rest is the kernel's own contract.
pub(crate) unsafe fn dispatch_bf16<K: Kernel>(isa: Isa, kernel: K) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512Bf16 {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn pairs<K: Kernel>(kernel: K) {
            // SAFETY: this function has the instructions; the rest is the caller's contract.
            unsafe { kernel.run::<Pairs>() }
        }
        // SAFETY: `isa` is available.
        return unsafe { pairs(kernel) };
    }
    let _ = isa;
    // SAFETY: the caller's contract.
    unsafe { plain(kernel) }
}

/// Runs a kernel with vectors of fours of bytes, those of AVX2, or plain code.
///
/// # Safety
/// As for [`dispatch_bf16`].
pub(super) unsafe fn dispatch_bytes<K: Kernel>(isa: Isa, kernel: K) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512Vnni {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        unsafe fn bytes<K: Kernel>(kernel: K) {
            // SAFETY: this function has the instructions; the rest is the caller's contract.
            unsafe { kernel.run::<Bytes>() }
        }
        // SAFETY: `isa` is available.
        return unsafe { bytes(kernel) };
    }
    if isa == Isa::Avx2 {
        // SAFETY: `isa` is available; the rest is the caller's contract.
        return unsafe { dispatch(isa, kernel) };
    }
    // SAFETY: the caller's contract.
    unsafe { plain(kernel) }
}
