//! Depthwise convolution: every channel by itself, vectors along the channels.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::gemm::{Isa, Vector, activate, dispatch};

/// Output columns that share each weight.
const COLUMNS: usize = 4;

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
    pub(super) fn forward(
        &self,
        spec: &ConvSpec,
        bias: &[f32],
        activation: Activation,
        image: &[f32],
        (h, w): (usize, usize),
        (oh, ow): (usize, usize),
        residual: Option<&[f32]>,
        output: &mut [f32],
        par: Par,
    ) {
        let c = spec.out_channels;
        assert!(image.len() == h * w * c && output.len() == oh * ow * c && bias.len() == c);
        assert!(residual.is_none_or(|r| r.len() == output.len()));
        let row = |(oy, output): (usize, &mut [f32])| {
            let residual = residual.map(|r| &r[oy * ow * c..][..ow * c]);
            let job = Job { spec, weight: &self.weight, bias, activation, image, h, w, oy, ow, residual, output };
            // SAFETY: the instructions are available, and the lengths were checked above.
            unsafe { dispatch(self.isa, job) };
        };
        match par {
            Par::Serial => output.chunks_exact_mut(ow * c).enumerate().for_each(row),
            Par::Rayon => output.par_chunks_exact_mut(ow * c).enumerate().for_each(row),
        }
    }
}

struct Job<'a> {
    spec: &'a ConvSpec,
    weight: &'a [f32],
    bias: &'a [f32],
    activation: Activation,
    image: &'a [f32],
    h: usize,
    w: usize,
    oy: usize,
    ow: usize,
    residual: Option<&'a [f32]>,
    output: &'a mut [f32],
}

impl crate::gemm::Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(mut self) {
        let c = self.spec.out_channels;
        let (stride, left) = (self.spec.stride[1], self.spec.padding[1]);
        // Columns whose whole window lies inside the row.
        let first = left.div_ceil(stride).min(self.ow);
        let last = (self.w + left).checked_sub(self.spec.kernel[1]).map_or(0, |r| r / stride + 1).clamp(first, self.ow);
        let mut channel = 0;
        while channel < c {
            let count = V::LANES.min(c - channel);
            // SAFETY: `count` channels from `channel`, and columns below `ow`.
            unsafe {
                let mut ox = 0;
                while ox < self.ow {
                    if count == V::LANES && ox >= first && ox + COLUMNS <= last {
                        self.block::<V>(channel, ox);
                        ox += COLUMNS;
                    } else {
                        self.single::<V>(channel, count, ox);
                        ox += 1;
                    }
                }
            }
            channel += count;
        }
    }
}

impl Job<'_> {
    /// Rows of the kernel that lie inside the image, with the image row of each.
    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (start, top, h) = (self.oy * self.spec.stride[0], self.spec.padding[0], self.h);
        (0..self.spec.kernel[0]).filter_map(move |ky| Some((ky, (start + ky).checked_sub(top).filter(|y| *y < h)?)))
    }

    /// Four neighbouring columns whose windows lie inside the row.
    #[inline(always)]
    unsafe fn block<V: Vector>(&mut self, channel: usize, ox: usize) {
        let (c, kw, stride) = (self.spec.out_channels, self.spec.kernel[1], self.spec.stride[1]);
        let x0 = ox * stride - self.spec.padding[1];
        // SAFETY: rows are inside the image, columns inside the row, and a whole vector of channels is there.
        unsafe {
            let mut sum = [V::load(self.bias.as_ptr().add(channel)); COLUMNS];
            for (ky, y) in self.rows() {
                let row = self.image.as_ptr().add((y * self.w + x0) * c + channel);
                let weight = self.weight.as_ptr().add(ky * kw * c + channel);
                for kx in 0..kw {
                    let k = V::load(weight.add(kx * c));
                    for (i, sum) in sum.iter_mut().enumerate() {
                        *sum = V::load(row.add((i * stride + kx) * c)).mul_add(k, *sum);
                    }
                }
            }
            for (i, sum) in sum.iter().enumerate() {
                self.finish(*sum, channel, V::LANES, ox + i);
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
            for (ky, y) in self.rows() {
                for kx in 0..kw {
                    let Some(x) = (ox * self.spec.stride[1] + kx).checked_sub(self.spec.padding[1]) else { continue };
                    if x < self.w {
                        let value = read(self.image.as_ptr().add((y * self.w + x) * c + channel));
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
                v = v.add(V::load_part(residual.as_ptr().add(at), count));
            }
            let v = activate(v, self.activation);
            let to = self.output.as_mut_ptr().add(at);
            if count == V::LANES { v.store(to) } else { v.store_part(to, count) }
        }
    }
}
