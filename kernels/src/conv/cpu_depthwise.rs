//! Depthwise convolution: every channel by itself, vectors along the channels.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::gemm::{Element, Isa, Vector, activate, dispatch_maps};

/// Weights `[kh, kw, channels]`.
#[derive(Clone, Debug)]
pub(super) struct Depthwise {
    isa: Isa,
    weight: Vec<f32>,
}

impl Depthwise {
    /// Reorders `weight` `[channels, 1, kh, kw]`.
    pub(super) fn new(isa: Isa, spec: &ConvSpec, weight: &[f32]) -> Depthwise {
        let (c, taps) = (spec.out_channels, spec.kernel[0] * spec.kernel[1]);
        Depthwise { isa, weight: (0..taps * c).map(|i| weight[i % c * taps + i / c]).collect() }
    }

    /// One image `[h, w, c]` to `[oh, ow, c]`.
    pub(super) fn forward<E: Element>(
        &self,
        spec: &ConvSpec,
        bias: &[f32],
        activation: Activation,
        image: &[E],
        (h, w): (usize, usize),
        (oh, ow): (usize, usize),
        residual: Option<&[E]>,
        output: &mut [E],
        par: Par,
    ) {
        let c = spec.out_channels;
        assert!(image.len() == h * w * c && output.len() == oh * ow * c && bias.len() == c);
        assert!(residual.is_none_or(|r| r.len() == output.len()));
        let row = |(oy, output): (usize, &mut [E])| {
            let residual = residual.map(|r| &r[oy * ow * c..][..ow * c]);
            let job = Job { spec, weight: &self.weight, bias, activation, image, h, w, oy, ow, residual, output };
            // SAFETY: the instructions are available, and the lengths were checked above.
            unsafe { dispatch_maps::<E, _>(self.isa, job) };
        };
        match par {
            Par::Serial => output.chunks_exact_mut(ow * c).enumerate().for_each(row),
            Par::Rayon => output.par_chunks_exact_mut(ow * c).enumerate().for_each(row),
        }
    }
}

struct Job<'a, E> {
    spec: &'a ConvSpec,
    weight: &'a [f32],
    bias: &'a [f32],
    activation: Activation,
    image: &'a [E],
    h: usize,
    w: usize,
    oy: usize,
    ow: usize,
    residual: Option<&'a [E]>,
    output: &'a mut [E],
}

impl<E: Element> crate::gemm::Kernel for Job<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector>(mut self) {
        // SAFETY: the width, stride and numbers of inputs given as constants are those of the spec.
        unsafe {
            // A constant condition: only one of the two is compiled.
            if const { V::LANES == 16 } {
                match (self.spec.kernel[1], self.spec.stride[1]) {
                    (3, 1) => self.row::<V, 3, 1, 8, 10>(),
                    (3, 2) => self.row::<V, 3, 2, 8, 17>(),
                    (5, 1) => self.row::<V, 5, 1, 8, 12>(),
                    (5, 2) => self.row::<V, 5, 2, 8, 19>(),
                    _ => self.row::<V, 0, 0, 0, 0>(),
                }
            } else {
                match (self.spec.kernel[1], self.spec.stride[1]) {
                    (3, 1) => self.row::<V, 3, 1, 4, 6>(),
                    (3, 2) => self.row::<V, 3, 2, 4, 9>(),
                    (5, 1) => self.row::<V, 5, 1, 4, 8>(),
                    (5, 2) => self.row::<V, 5, 2, 4, 11>(),
                    _ => self.row::<V, 0, 0, 0, 0>(),
                }
            }
        }
    }
}

impl<E: Element> Job<'_, E> {
    /// Rows of the kernel that lie inside the image: the first and one past the last.
    #[inline(always)]
    fn rows(&self) -> (usize, usize) {
        let (start, top) = (self.oy * self.spec.stride[0], self.spec.padding[0]);
        let first = top.saturating_sub(start);
        (first, (self.h + top).saturating_sub(start).clamp(first, self.spec.kernel[0].max(first)))
    }

    /// One output row: `B` neighbouring columns at a time, windows of `K` columns in steps of `S`, together `W` wide; `B` of 0
    /// stands for any. The last block of columns and the last vector of channels are moved back to where they fit: what is
    /// computed twice is the same twice. Rows and channels too few for that are done one by one.
    #[inline(always)]
    unsafe fn row<V: Vector, const K: usize, const S: usize, const B: usize, const W: usize>(&mut self) {
        let (c, left) = (self.spec.out_channels, self.spec.padding[1]);
        // SAFETY: channels below `c`, and columns below `ow`; blocks at an edge check each column they read.
        unsafe {
            if B == 0 || self.ow < B || c < V::LANES {
                for ox in 0..self.ow {
                    for channel in (0..c).step_by(V::LANES) {
                        self.single::<V>(channel, V::LANES.min(c - channel), ox);
                    }
                }
                return;
            }
            for ox in (0..self.ow).step_by(B) {
                let ox = ox.min(self.ow - B);
                let inside = ox * S >= left && ox * S + W <= self.w + left;
                for channel in (0..c).step_by(V::LANES) {
                    let channel = channel.min(c - V::LANES);
                    if inside {
                        self.block::<V, K, S, B, W, false>(channel, ox);
                    } else {
                        self.block::<V, K, S, B, W, true>(channel, ox);
                    }
                }
            }
        }
    }

    /// `B` neighbouring columns, whose windows lie inside the row but at an `EDGE`, where what lies outside counts as zeros.
    #[inline(always)]
    unsafe fn block<V: Vector, const K: usize, const S: usize, const B: usize, const W: usize, const EDGE: bool>(
        &mut self,
        channel: usize,
        ox: usize,
    ) {
        let c = self.spec.out_channels;
        // Columns of the map among the `W` of the block; the first may lie before the row.
        let (start, left) = (ox * S, self.spec.padding[1]);
        let (from, to) = (left.saturating_sub(start), (self.w + left).saturating_sub(start));
        let (top, (first, last)) = (self.oy * self.spec.stride[0], self.rows());
        // SAFETY: rows are inside the image, columns read inside the row, and a whole vector of channels is there.
        unsafe {
            let bias = V::load(self.bias.as_ptr().add(channel));
            let mut sum = [bias; B];
            for ky in first..last {
                let y = top + ky - self.spec.padding[0];
                let row = self.image.as_ptr().add(y * self.w * c + channel);
                let weight = self.weight.as_ptr().add(ky * K * c + channel);
                let values: [V; W] = std::array::from_fn(|x| {
                    if EDGE && (x < from || x >= to) { V::splat(0.0) } else { E::load(row.add((start + x - left) * c)) }
                });
                for kx in 0..K {
                    let weight = V::load(weight.add(kx * c));
                    for i in 0..B {
                        sum[i] = values[i * S + kx].mul_add(weight, sum[i]);
                    }
                }
            }
            let to = self.output.as_mut_ptr().add(ox * c + channel);
            if let Some(residual) = self.residual {
                let from = residual.as_ptr().add(ox * c + channel);
                for i in 0..B {
                    sum[i] = sum[i].add(E::load(from.add(i * c)));
                }
            }
            match self.activation {
                Activation::None => {}
                Activation::Relu => activate_all(&mut sum, Activation::Relu),
                Activation::Relu6 => activate_all(&mut sum, Activation::Relu6),
                Activation::HardSwish => activate_all(&mut sum, Activation::HardSwish),
                Activation::Silu => {
                    // Too long to be unrolled: through memory.
                    let mut lines = [MaybeUninit::<f32>::uninit(); 8 * 16];
                    let line = lines.as_mut_ptr().cast::<f32>();
                    for i in 0..B {
                        sum[i].store(line.add(i * V::LANES));
                    }
                    for i in 0..B {
                        let value = activate(V::load(line.add(i * V::LANES)), Activation::Silu);
                        E::store(value, to.add(i * c));
                    }
                    return;
                }
            }
            for i in 0..B {
                E::store(sum[i], to.add(i * c));
            }
        }
    }

    #[inline(always)]
    unsafe fn single<V: Vector>(&mut self, channel: usize, count: usize, ox: usize) {
        let (c, kw) = (self.spec.out_channels, self.spec.kernel[1]);
        let whole = count == V::LANES;
        // SAFETY: as for `block`, with `count` channels and the columns checked one by one.
        unsafe {
            let read = |p: *const f32| if whole { V::load(p) } else { V::load_part(p, count) };
            let mut sum = read(self.bias.as_ptr().add(channel));
            let (top, (first, last)) = (self.oy * self.spec.stride[0], self.rows());
            for ky in first..last {
                let y = top + ky - self.spec.padding[0];
                for kx in 0..kw {
                    let Some(x) = (ox * self.spec.stride[1] + kx).checked_sub(self.spec.padding[1]) else { continue };
                    if x < self.w {
                        let from = self.image.as_ptr().add((y * self.w + x) * c + channel);
                        let value: V = if whole { E::load(from) } else { E::load_part(from, count) };
                        sum = value.mul_add(read(self.weight.as_ptr().add((ky * kw + kx) * c + channel)), sum);
                    }
                }
            }
            self.finish(sum, channel, count, ox);
        }
    }

    #[inline(always)]
    unsafe fn finish<V: Vector>(&mut self, sum: V, channel: usize, count: usize, ox: usize) {
        let at = ox * self.spec.out_channels + channel;
        // SAFETY: `count` channels from `at` are inside the row.
        unsafe {
            let mut v = sum;
            if let Some(residual) = self.residual {
                v = v.add(E::load_part(residual.as_ptr().add(at), count));
            }
            let v = activate(v, self.activation);
            let to = self.output.as_mut_ptr().add(at);
            if count == V::LANES { E::store(v, to) } else { E::store_part(v, to, count) }
        }
    }
}

#[inline(always)]
unsafe fn activate_all<V: Vector, const B: usize>(values: &mut [V; B], activation: Activation) {
    for value in values {
        // SAFETY: the caller runs where the instructions are there.
        *value = unsafe { activate(*value, activation) };
    }
}
