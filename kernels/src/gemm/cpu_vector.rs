//! One vector type for each instruction set, so that every kernel is written once.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::bf16;

use super::cpu_plain::Plain;
use super::cpu_words::{four, pair, words, words_of};

/// Instruction sets a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// AVX-512F: 16 lanes, 32 registers.
    Avx512,
    /// AVX2 with FMA: 8 lanes, 16 registers.
    Avx2,
    /// NEON of 64-bit ARM: 8 lanes in two registers each, 32 registers.
    Neon,
    /// What the compiler makes of plain code.
    Portable,
    /// AVX-512 with products of pairs of bf16.
    Avx512Bf16,
    /// AVX-512 with products of four bytes.
    Avx512Vnni,
}

impl Isa {
    /// The best one this processor has.
    pub fn best() -> Isa {
        [Isa::Avx512, Isa::Avx2, Isa::Neon].into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// Those this processor has, best first.
    pub fn available() -> Vec<Isa> {
        [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable].into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The instructions for products in bf16, where this processor has them.
    pub fn bf16() -> Option<Isa> {
        Some(Isa::Avx512Bf16).filter(|isa| isa.is_available())
    }

    /// The best instructions for products of bytes.
    pub fn int8() -> Isa {
        [Isa::Avx512Vnni, Isa::Avx2].into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => std::arch::is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => super::cpu_reduced::wide() && std::arch::is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => super::cpu_reduced::wide() && std::arch::is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Isa::Portable => true,
            _ => false,
        }
    }

    /// Columns of a panel: the vectors of a register tile.
    pub(crate) fn panel(self) -> usize {
        match self {
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Avx512Vnni => 64,
            Isa::Avx2 | Isa::Neon | Isa::Portable => 16,
        }
    }
}

/// A vector of floats, or of 32-bit words that hold smaller numbers. The methods may only be called where the processor has the instructions: [`dispatch`] sees to it.
pub trait Vector: Copy {
    /// Number of lanes.
    const LANES: usize;
    /// Rows of a register tile.
    const ROWS: usize;
    /// Vectors of each of them.
    const VECTORS: usize;

    /// All lanes equal.
    unsafe fn splat(v: f32) -> Self;
    /// Reads `LANES` floats.
    unsafe fn load(p: *const f32) -> Self;
    /// Writes `LANES` floats.
    unsafe fn store(self, p: *mut f32);
    /// `self * b + c`, rounded once.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// Sum.
    unsafe fn add(self, b: Self) -> Self;
    /// Difference.
    unsafe fn sub(self, b: Self) -> Self;
    /// Product.
    unsafe fn mul(self, b: Self) -> Self;
    /// Quotient.
    unsafe fn div(self, b: Self) -> Self;
    /// The larger one; `b` if either is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// The smaller one; `b` if either is NaN.
    unsafe fn min(self, b: Self) -> Self;
    /// `2^n` for whole `n` from -126 to 127, in float lanes.
    unsafe fn exp2_whole(self) -> Self;
    /// Nearest whole number, ties to even.
    unsafe fn round(self) -> Self;

    /// `self * 2^n` for whole `n` from -126 to 127.
    #[inline(always)]
    unsafe fn scale_exp2(self, n: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { self.mul(n.exp2_whole()) }
    }

    /// `self * b + sum`, where each lane of `self` and `b` is a pair of bf16; the second of a pair is added first.
    #[inline(always)]
    unsafe fn dot_bf16(self, b: Self, sum: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { words(self, b, sum, pair) }
    }

    /// `self * b + sum` in whole numbers, where each lane of `self` is four bytes without sign, and of `b` four with one.
    #[inline(always)]
    unsafe fn dot_bytes(self, b: Self, sum: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { words(self, b, sum, four) }
    }

    /// `float(self + b)`, where both hold 32-bit integers.
    #[inline(always)]
    unsafe fn add_whole(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { words(self, b, b, |a, b, _| (a.wrapping_add(b) as i32 as f32).to_bits()) }
    }

    /// Reads twice `LANES` floats, rounded to nearest even: neighbours become the pairs of bf16 of a lane.
    #[inline(always)]
    unsafe fn load_pairs(p: *const f32) -> Self {
        // SAFETY: the trait's contract; an array of pairs is an array of words.
        unsafe { words_of::<Self>(|i| (*p.add(2 * i), *p.add(2 * i + 1))) }
    }

    /// Pairs of bf16, rounded to nearest even: the first of each from `self`, the second from `b`.
    #[inline(always)]
    unsafe fn zip_pairs(self, b: Self) -> Self {
        let (mut first, mut second) = ([0.0f32; 16], [0.0f32; 16]);
        // SAFETY: the trait's contract; at most 16 lanes.
        unsafe {
            self.store(first.as_mut_ptr());
            b.store(second.as_mut_ptr());
            words_of::<Self>(|i| (first[i], second[i]))
        }
    }

    /// Reads `LANES` numbers in bf16.
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self::load_bf16_part(p, Self::LANES) }
    }

    /// Writes `LANES` numbers in bf16, rounded to nearest even.
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16) {
        // SAFETY: the trait's contract.
        unsafe { self.store_bf16_part(p, Self::LANES) }
    }

    /// Reads `n <= LANES` numbers in bf16; zeros after them.
    #[inline(always)]
    unsafe fn load_bf16_part(p: *const bf16, n: usize) -> Self {
        let mut buffer = [0.0f32; 16];
        // SAFETY: the caller guarantees n readable numbers; n <= LANES <= 16.
        unsafe {
            for (i, to) in buffer.iter_mut().enumerate().take(n) {
                *to = (*p.add(i)).to_f32();
            }
            Self::load(buffer.as_ptr())
        }
    }

    /// Writes the first `n <= LANES` lanes in bf16, rounded to nearest even.
    #[inline(always)]
    unsafe fn store_bf16_part(self, p: *mut bf16, n: usize) {
        let mut buffer = [0.0f32; 16];
        // SAFETY: the caller guarantees n writable numbers; n <= LANES <= 16.
        unsafe {
            self.store(buffer.as_mut_ptr());
            for (i, &from) in buffer.iter().enumerate().take(n) {
                *p.add(i) = bf16::from_f32(from);
            }
        }
    }

    /// Reads `n <= LANES` floats; zeros after them.
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        let mut buffer = [0.0f32; 16];
        // SAFETY: the caller guarantees n readable floats; n <= LANES <= 16.
        unsafe {
            std::ptr::copy_nonoverlapping(p, buffer.as_mut_ptr(), n);
            Self::load(buffer.as_ptr())
        }
    }

    /// Writes the first `n <= LANES` lanes.
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        let mut buffer = [0.0f32; 16];
        // SAFETY: the caller guarantees n writable floats; n <= LANES <= 16.
        unsafe {
            self.store(buffer.as_mut_ptr());
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), p, n);
        }
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($name:ident, $lanes:literal, $vectors:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $sub:ident, $mul:ident,
     $div:ident, $max:ident, $min:ident, $exp2:expr, $round:expr, $scale:expr, $load_part:expr, $store_part:expr; $($own:item)*) => {
        // SAFETY of every method: the trait's contract is that the processor has the instructions and that pointers are
        // good for a whole vector.
        impl Vector for $name {
            const LANES: usize = $lanes;
            const ROWS: usize = 6;
            const VECTORS: usize = $vectors;
            #[inline(always)]
            unsafe fn splat(v: f32) -> Self {
                // SAFETY: see above.
                unsafe { $splat(v) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> Self {
                // SAFETY: see above.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32) {
                // SAFETY: see above.
                unsafe { $store(p, self) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: see above.
                unsafe { $fma(self, b, c) }
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                // SAFETY: see above.
                unsafe { $add(self, b) }
            }
            #[inline(always)]
            unsafe fn sub(self, b: Self) -> Self {
                // SAFETY: see above.
                unsafe { $sub(self, b) }
            }
            #[inline(always)]
            unsafe fn mul(self, b: Self) -> Self {
                // SAFETY: see above.
                unsafe { $mul(self, b) }
            }
            #[inline(always)]
            unsafe fn div(self, b: Self) -> Self {
                // SAFETY: see above.
                unsafe { $div(self, b) }
            }
            #[inline(always)]
            unsafe fn max(self, b: Self) -> Self {
                // SAFETY: see above.
                unsafe { $max(self, b) }
            }
            #[inline(always)]
            unsafe fn min(self, b: Self) -> Self {
                // SAFETY: see above.
                unsafe { $min(self, b) }
            }
            #[inline(always)]
            unsafe fn exp2_whole(self) -> Self {
                // SAFETY: see above.
                unsafe { $exp2(self) }
            }
            #[inline(always)]
            unsafe fn round(self) -> Self {
                // SAFETY: see above.
                unsafe { $round(self) }
            }
            #[inline(always)]
            unsafe fn scale_exp2(self, n: Self) -> Self {
                // SAFETY: see above.
                unsafe { $scale(self, n) }
            }
            #[inline(always)]
            unsafe fn load_part(p: *const f32, n: usize) -> Self {
                // SAFETY: see above; lanes from `n` on are not read.
                unsafe { $load_part(p, n) }
            }
            #[inline(always)]
            unsafe fn store_part(self, p: *mut f32, n: usize) {
                // SAFETY: see above; lanes from `n` on are not written.
                unsafe { $store_part(p, n, self) }
            }
            $($own)*
        }
    };
}

#[cfg(target_arch = "x86_64")]
x86!(
    __m512,
    16,
    4,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    _mm512_max_ps,
    _mm512_min_ps,
    |x| _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(127)))),
    |x| _mm512_roundscale_ps::<8>(x),
    |x, n| _mm512_scalef_ps(x, n),
    |p, n| _mm512_maskz_loadu_ps(first_of_16(n), p),
    |p, n, v| _mm512_mask_storeu_ps(p, first_of_16(n), v);
);

#[cfg(target_arch = "x86_64")]
x86!(
    __m256,
    8,
    2,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    _mm256_max_ps,
    _mm256_min_ps,
    |x| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127)))),
    |x| _mm256_round_ps::<8>(x),
    |x: __m256, n: __m256| x.mul(n.exp2_whole()),
    |p, n| _mm256_maskload_ps(p, first_of_8(n)),
    |p, n, v| _mm256_maskstore_ps(p, first_of_8(n), v);
    // Products of 16-bit numbers and their sums in pairs are exact, those of bytes (`vpmaddubsw`) are cut to 16 bits.
    #[inline(always)]
    unsafe fn dot_bytes(self, b: Self, sum: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let (a, b, sum) = (_mm256_castps_si256(self), _mm256_castps_si256(b), _mm256_castps_si256(sum));
            let (a_even, b_even) = (_mm256_and_si256(a, _mm256_set1_epi16(0xff)), _mm256_slli_epi16::<8>(b));
            let even = _mm256_madd_epi16(a_even, _mm256_srai_epi16::<8>(b_even));
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
            _mm256_castsi256_ps(_mm256_add_epi32(sum, _mm256_add_epi32(even, odd)))
        }
    }
    #[inline(always)]
    unsafe fn add_whole(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_castps_si256(self), _mm256_castps_si256(b))) }
    }
);

/// The mask of the first `n` of 16 lanes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn first_of_16(n: usize) -> u16 {
    ((1u32 << n.min(16)) - 1) as u16
}

/// The mask of the first `n` of 8 lanes.
///
/// # Safety
/// AVX2 is there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn first_of_8(n: usize) -> __m256i {
    // SAFETY: the caller runs where the instructions are there.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

/// Work written over a [`Vector`].
pub(crate) trait Kernel {
    /// Runs with the vectors of one instruction set.
    ///
    /// # Safety
    /// The processor has the instructions of `V`; what else holds is the kernel's own contract.
    unsafe fn run<V: Vector>(self);
}

/// Runs a kernel with the instructions of `isa`, which must be one of [`Isa::available`].
///
/// # Safety
/// The kernel's own contract.
pub(crate) unsafe fn dispatch<K: Kernel>(isa: Isa, kernel: K) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        unsafe fn avx512<K: Kernel>(kernel: K) {
            // SAFETY: this function has the instructions; the rest is the caller's contract.
            unsafe { kernel.run::<__m512>() }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2<K: Kernel>(kernel: K) {
            // SAFETY: as above.
            unsafe { kernel.run::<__m256>() }
        }
        match isa {
            // SAFETY: `isa` is one of the available ones.
            Isa::Avx512 => return unsafe { avx512(kernel) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2(kernel) },
            // SAFETY: both have AVX-512F.
            Isa::Avx512Bf16 | Isa::Avx512Vnni => return unsafe { avx512(kernel) },
            Isa::Neon | Isa::Portable => {}
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        #[target_feature(enable = "neon")]
        unsafe fn neon<K: Kernel>(kernel: K) {
            // SAFETY: this function has the instructions; the rest is the caller's contract.
            unsafe { kernel.run::<super::cpu_neon::Neon>() }
        }
        if isa == Isa::Neon {
            // SAFETY: `isa` is one of the available ones.
            return unsafe { neon(kernel) };
        }
    }
    // SAFETY: the caller's contract.
    unsafe { plain(kernel) }
}

/// Runs a kernel with plain code.
///
/// # Safety
/// The kernel's own contract.
pub(super) unsafe fn plain<K: Kernel>(kernel: K) {
    // SAFETY: plain code runs everywhere; the rest is the caller's contract.
    unsafe { kernel.run::<Plain>() }
}

/// Plain loops, which the compiler turns into the widest vectors there are.
pub(crate) trait Loops {
    /// Runs them; must be `#[inline(always)]` to be compiled for the chosen instructions.
    fn run(self);
}

/// Runs plain loops with the best instructions of this processor. The results are those of the plain code: nothing is fused
/// or reordered.
pub(crate) fn vectorised<L: Loops>(loops: L) {
    struct Job<L>(L);
    impl<L: Loops> Kernel for Job<L> {
        #[inline(always)]
        unsafe fn run<V: Vector>(self) {
            self.0.run();
        }
    }
    // SAFETY: the instructions were detected, and the loops are safe code.
    unsafe { dispatch(Isa::best(), Job(loops)) }
}
