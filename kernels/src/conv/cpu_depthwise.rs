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

    /// One output row: `B` neighbouring columns at a time where their windows lie inside the map, the others one by one.
    /// Windows of `K` columns in steps of `S`, together `W` wide; `B` of 0 stands for any. The last block is moved back to
    /// where it fits: a column computed twice is the same twice.
    #[inline(always)]
    unsafe fn row<V: Vector, const K: usize, const S: usize, const B: usize, const W: usize>(&mut self) {
        let (c, stride, left) = (self.spec.out_channels, self.spec.stride[1], self.spec.padding[1]);
        // Columns whose whole window lies inside the row, and channels in whole vectors.
        let first = left.div_ceil(stride).min(self.ow);
        let last = (self.w + left).checked_sub(self.spec.kernel[1]).map_or(0, |r| r / stride + 1).clamp(first, self.ow);
        let (last, whole) = if B > 0 && last - first >= B { (last, c / V::LANES * V::LANES) } else { (first, 0) };
        // SAFETY: channels below `c`, and columns below `ow`; the windows of blocks are inside.
        unsafe {
            let mut ox = first;
            while ox < last {
                let at = ox.min(last - B);
                for channel in (0..whole).step_by(V::LANES) {
                    self.block::<V, K, S, B, W>(channel, at);
                }
                ox = at + B;
            }
            for ox in 0..self.ow {
                let done = if ox >= first && ox < last { whole } else { 0 };
                for channel in (done..c).step_by(V::LANES) {
                    self.single::<V>(channel, V::LANES.min(c - channel), ox);
                }
            }
        }
    }

    /// `B` neighbouring columns whose windows lie inside the row.
    #[inline(always)]
    unsafe fn block<V: Vector, const K: usize, const S: usize, const B: usize, const W: usize>(
        &mut self,
        channel: usize,
        ox: usize,
    ) {
        let c = self.spec.out_channels;
        let x0 = ox * S - self.spec.padding[1];
        let (top, (first, last)) = (self.oy * self.spec.stride[0], self.rows());
        // SAFETY: rows are inside the image, columns inside the row, and a whole vector of channels is there.
        unsafe {
            let bias = V::load(self.bias.as_ptr().add(channel));
            let mut sum = [bias; B];
            for ky in first..last {
                let y = top + ky - self.spec.padding[0];
                let row = self.image.as_ptr().add((y * self.w + x0) * c + channel);
                let weight = self.weight.as_ptr().add(ky * K * c + channel);
                let values: [V; W] = std::array::from_fn(|x| E::load(row.add(x * c)));
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
