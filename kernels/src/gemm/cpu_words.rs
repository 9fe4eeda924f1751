//! Products within a 32-bit word, in plain code.
#![allow(unsafe_code)]

use half::bf16;

use super::cpu_vector::Vector;

/// One lane of [`Vector::dot_bf16`](super::cpu_vector::Vector::dot_bf16).
#[inline(always)]
pub(super) fn pair(a: u32, b: u32, sum: u32) -> u32 {
    let (low, high) = (|x: u32| f32::from_bits(x << 16), |x: u32| f32::from_bits(x & 0xffff_0000));
    low(a).mul_add(low(b), high(a).mul_add(high(b), f32::from_bits(sum))).to_bits()
}

/// One lane of [`Vector::dot_bytes`](super::cpu_vector::Vector::dot_bytes).
#[inline(always)]
pub(super) fn four(a: u32, b: u32, sum: u32) -> u32 {
    let pairs = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    pairs.fold(sum, |sum, (a, b)| sum.wrapping_add((i32::from(a) * i32::from(b as i8)) as u32))
}

/// `f` of each lane's bits.
#[inline(always)]
pub(super) unsafe fn words<V: Vector>(a: V, b: V, c: V, f: impl Fn(u32, u32, u32) -> u32) -> V {
    let read = |v: V| {
        let mut buffer = [0.0f32; 16];
        // SAFETY: at most 16 lanes; the rest is the caller's contract.
        unsafe { v.store(buffer.as_mut_ptr()) };
        buffer.map(f32::to_bits)
    };
    let (a, b, c) = (read(a), read(b), read(c));
    let result: [f32; 16] = std::array::from_fn(|i| f32::from_bits(f(a[i], b[i], c[i])));
    // SAFETY: as above.
    unsafe { V::load(result.as_ptr()) }
}

/// Lanes of pairs `(first, second)` of bf16, rounded to nearest even.
#[inline(always)]
pub(super) unsafe fn words_of<V: Vector>(pair: impl Fn(usize) -> (f32, f32)) -> V {
    let bits = |x: f32| u32::from(bf16::from_f32(x).to_bits());
    let mut result = [0.0f32; 16];
    for (i, to) in result.iter_mut().enumerate().take(V::LANES) {
        let (first, second) = pair(i);
        *to = f32::from_bits(bits(first) | bits(second) << 16);
    }
    // SAFETY: at most 16 lanes.
    unsafe { V::load(result.as_ptr()) }
}
