//! Means and gates of channels, vectors along the channels.
#![allow(unsafe_code)]

use crate::gemm::{Element, Isa, Kernel, Vector, dispatch_maps};

/// Channels averaged by one task.
pub(super) const CHANNELS: usize = 64;

/// The instructions for maps of `E`.
fn isa<E: Element>() -> Isa {
    Isa::bf16().filter(|_| size_of::<E>() == 2).unwrap_or_else(Isa::best)
}

/// `mean` of the channels `first..` of `map`, `[positions, c]`; at most [`CHANNELS`] of them.
pub(super) fn mean<E: Element>(map: &[E], c: usize, first: usize, mean: &mut [f32]) {
    assert!(mean.len() <= CHANNELS && first + mean.len() <= c && map.len().is_multiple_of(c));
    // SAFETY: the instructions were detected, and the lengths were checked above.
    unsafe { dispatch_maps::<E, _>(isa::<E>(), Mean { map, c, first, mean }) }
}

struct Mean<'a, E> {
    map: &'a [E],
    c: usize,
    first: usize,
    mean: &'a mut [f32],
}

impl<E: Element> Kernel for Mean<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let positions = self.map.len() / self.c;
        let each = V::LANES * 4;
        let mut done = 0;
        // SAFETY: `mean.len()` channels from `first` are there at each position.
        unsafe {
            let scale = V::splat(positions as f32);
            let from = self.map.as_ptr().add(self.first);
            while done + each <= self.mean.len() {
                let mut sum = [V::splat(0.0); 4];
                for p in 0..positions {
                    for (j, sum) in sum.iter_mut().enumerate() {
                        *sum = sum.add(E::load(from.add(p * self.c + done + j * V::LANES)));
                    }
                }
                for (j, sum) in sum.into_iter().enumerate() {
                    sum.div(scale).store(self.mean.as_mut_ptr().add(done + j * V::LANES));
                }
                done += each;
            }
            while done < self.mean.len() {
                let count = V::LANES.min(self.mean.len() - done);
                let mut sum = V::splat(0.0);
                for p in 0..positions {
                    let at = from.add(p * self.c + done);
                    sum = sum.add(if count == V::LANES { E::load(at) } else { E::load_part(at, count) });
                }
                sum.div(scale).store_part(self.mean.as_mut_ptr().add(done), count);
                done += count;
            }
        }
    }
}

/// Multiplies pixels, number `first` of the first of them, by the gate `[n, c]` of their map of `positions`.
pub(super) fn gate<E: Element>(pixels: &mut [E], first: usize, positions: usize, c: usize, gate: &[f32]) {
    assert!(pixels.len().is_multiple_of(c) && (first + pixels.len() / c).div_ceil(positions) * c <= gate.len());
    // SAFETY: the instructions were detected, and the lengths were checked above.
    unsafe { dispatch_maps::<E, _>(isa::<E>(), Gate { pixels, first, positions, c, gate }) }
}

struct Gate<'a, E> {
    pixels: &'a mut [E],
    first: usize,
    positions: usize,
    c: usize,
    gate: &'a [f32],
}

impl<E: Element> Kernel for Gate<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let c = self.c;
        for (i, pixel) in self.pixels.chunks_exact_mut(c).enumerate() {
            let gate = &self.gate[(self.first + i) / self.positions * c..][..c];
            for channel in (0..c).step_by(V::LANES) {
                let count = V::LANES.min(c - channel);
                // SAFETY: `count` channels of the pixel and of its gate.
                unsafe {
                    let (at, gate) = (pixel.as_mut_ptr().add(channel), gate.as_ptr().add(channel));
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
