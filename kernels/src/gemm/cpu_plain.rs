//! Vectors of plain code, for processors whose instructions are not known here.
#![allow(unsafe_code)]

use super::cpu_vector::Vector;
use super::cpu_words::{four, pair};

/// Eight plain floats. `f32::mul_add` without hardware is slow but right; what matters here is the same rounding.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 8]);

macro_rules! lanes {
    ($a:expr, $f:expr) => {
        Plain(std::array::from_fn(|i| $f($a.0[i])))
    };
    ($a:expr, $b:expr, $f:expr) => {
        Plain(std::array::from_fn(|i| $f($a.0[i], $b.0[i])))
    };
}

impl Vector for Plain {
    const LANES: usize = 8;
    const ROWS: usize = 4;
    const VECTORS: usize = 2;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        Plain([v; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller guarantees 8 readable floats.
        Plain(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller guarantees 8 writable floats.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Plain(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        lanes!(self, b, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        lanes!(self, b, |x, y| x - y)
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        lanes!(self, b, |x, y| x * y)
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        lanes!(self, b, |x, y| x / y)
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        lanes!(self, b, |x: f32, y: f32| if x > y { x } else { y })
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        lanes!(self, b, |x: f32, y: f32| if x < y { x } else { y })
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        lanes!(self, |x: f32| f32::from_bits(((x as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        lanes!(self, f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn dot_bf16(self, b: Self, sum: Self) -> Self {
        Plain(std::array::from_fn(|i| f32::from_bits(pair(self.0[i].to_bits(), b.0[i].to_bits(), sum.0[i].to_bits()))))
    }
    #[inline(always)]
    unsafe fn dot_bytes(self, b: Self, sum: Self) -> Self {
        Plain(std::array::from_fn(|i| f32::from_bits(four(self.0[i].to_bits(), b.0[i].to_bits(), sum.0[i].to_bits()))))
    }
}
