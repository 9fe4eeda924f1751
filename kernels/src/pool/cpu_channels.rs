//! Means and gates of channels, vectors along the channels.
#![allow(unsafe_code)]

use crate::gemm::{Element, Isa, Kernel, Vector, dispatch_maps};

/// The instructions for maps of `E`.
fn isa<E: Element>() -> Isa {
    Isa::bf16().filter(|_| size_of::<E>() == 2).unwrap_or_else(Isa::best)
}

/// `sum` `[c]` of the `pixels` `[count, c]`, in their order.
pub(super) fn sum<E: Element>(pixels: &[E], sum: &mut [f32]) {
    assert!(pixels.len().is_multiple_of(sum.len()));
    // SAFETY: the instructions were detected, and the lengths were checked above.
    unsafe { dispatch_maps::<E, _>(isa::<E>(), Sum { pixels, sum }) }
}

struct Sum<'a, E> {
    pixels: &'a [E],
    sum: &'a mut [f32],
}

impl<E: Element> Kernel for Sum<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector>(mut self) {
        let c = self.sum.len();
        for first in (0..c).step_by(4 * V::LANES) {
            // SAFETY: that many vectors from `first` on hold channels.
            unsafe {
                match (c - first).div_ceil(V::LANES) {
                    1 => self.channels::<V, 1>(first),
                    2 => self.channels::<V, 2>(first),
                    3 => self.channels::<V, 3>(first),
                    _ => self.channels::<V, 4>(first),
                }
            }
        }
    }
}

impl<E: Element> Sum<'_, E> {
    /// `N` vectors of channels from `first` on, the last of which may be filled in part.
    #[inline(always)]
    unsafe fn channels<V: Vector, const N: usize>(&mut self, first: usize) {
        let c = self.sum.len();
        let last = V::LANES.min(c - first - (N - 1) * V::LANES);
        // SAFETY: `(N - 1) * LANES + last` channels from `first` on are there for each pixel.
        unsafe {
            let mut sum = [V::splat(0.0); N];
            for pixel in 0..self.pixels.len() / c {
                let from = self.pixels.as_ptr().add(pixel * c + first);
                for (j, sum) in sum.iter_mut().enumerate() {
                    let from = from.add(j * V::LANES);
                    let whole = j + 1 < N || last == V::LANES;
                    *sum = sum.add(if whole { E::load(from) } else { E::load_part(from, last) });
                }
            }
            let to = self.sum.as_mut_ptr().add(first);
            for (j, sum) in sum.into_iter().enumerate() {
                sum.store_part(to.add(j * V::LANES), if j + 1 < N { V::LANES } else { last });
            }
        }
    }
}

/// Multiplies numbers by those of the gate, which is repeated as often as needed.
pub(super) fn gate<E: Element>(numbers: &mut [E], gate: &[f32]) {
    // SAFETY: the instructions were detected.
    unsafe { dispatch_maps::<E, _>(isa::<E>(), Gate { numbers, gate }) }
}

struct Gate<'a, E> {
    numbers: &'a mut [E],
    gate: &'a [f32],
}

impl<E: Element> Kernel for Gate<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for numbers in self.numbers.chunks_mut(self.gate.len()) {
            for at in (0..numbers.len()).step_by(V::LANES) {
                let count = V::LANES.min(numbers.len() - at);
                // SAFETY: `count` numbers from `at` on, and of the gate, which is no shorter.
                unsafe {
                    let (at, gate) = (numbers.as_mut_ptr().add(at), self.gate.as_ptr().add(at));
                    if count == V::LANES {
                        E::store(E::load::<V>(at).mul(V::load(gate)), at);
                    } else {
                        E::store_part(E::load_part::<V>(at, count).mul(V::load_part(gate, count)), at, count);
                    }
                }
            }
        }
    }
}
