//! Convolutions as one matrix product over the windows, which are read where they lie.
//!
//! A window is made of pieces that lie together: the channels of one pixel. Where these are few (a network's first layer), do
//! not fill whole words of the product, or must become bytes, the map is copied once with its padding, and a piece is a whole
//! row of the window.

use half::bf16;
use rayon::prelude::*;

use super::quantise::{Levels, Quantised};
use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::gemm::{Brain, Byte, Epilogue, Isa, Panels, Product, Rows, Single, multiply};

/// Below this many channels, pieces are rows of the window.
const FEW: usize = 16;

/// Weights `[taps * in, out]`, packed, and a pixel of zeros.
#[derive(Clone, Debug)]
pub(super) struct Dense<P: Product> {
    panels: Panels<P>,
    zeros: Vec<P::Left>,
    /// The convolution, its input channels filled up to whole words.
    spec: ConvSpec,
    quantised: Option<Quantised>,
}

/// `o`, tap and channel of a weight `[out, in, kh, kw]`; `None` for channels that are filling.
fn place(spec: &ConvSpec, channels: usize, k: usize, o: usize) -> Option<usize> {
    let (cin, taps) = (spec.in_channels, spec.kernel[0] * spec.kernel[1]);
    (k % channels < cin).then(|| (o * cin + k % channels) * taps + k / channels)
}

impl<P: Product> Dense<P> {
    fn pack(isa: Isa, spec: &ConvSpec, value: impl Fn(usize) -> P::Left, quantised: Option<Quantised>) -> Dense<P> {
        let channels = spec.in_channels.next_multiple_of(P::GROUP);
        let depth = spec.kernel[0] * spec.kernel[1] * channels;
        let value = |k: usize, o: usize| place(spec, channels, k, o).map_or(P::Left::default(), &value);
        let panels = Panels::new(isa, depth, spec.out_channels, value);
        let spec = ConvSpec { in_channels: channels, ..*spec };
        Dense { panels, zeros: vec![P::Left::default(); channels], spec, quantised }
    }
}

impl Dense<Single> {
    /// Packs `weight` `[out, in, kh, kw]` of a convolution with one group.
    pub(super) fn new(isa: Isa, spec: &ConvSpec, weight: &[f32]) -> Self {
        Dense::pack(isa, spec, |at| weight[at], None)
    }
}

impl Dense<Brain> {
    /// As for single precision, rounded to bf16.
    pub(super) fn new(isa: Isa, spec: &ConvSpec, weight: &[f32]) -> Self {
        Dense::pack(isa, spec, |at| bf16::from_f32(weight[at]), None)
    }
}

impl Dense<Byte> {
    /// As for single precision, each output channel in steps of its own, for inputs of some levels.
    pub(super) fn new(isa: Isa, spec: &ConvSpec, weight: &[f32], levels: Levels) -> Self {
        let (quantised, bytes) = Quantised::new(weight, spec.out_channels, levels);
        Dense::pack(isa, spec, |at| bytes[at] as u8, Some(quantised))
    }
}

/// Copies a row of pixels, `channels` each, to pixels of at least as many.
pub(super) trait Fill: Product {
    /// Converts the row; the filling is left alone.
    fn fill(row: &[Self::Map], channels: usize, to: &mut [Self::Left], to_channels: usize, levels: Option<Levels>);
}

fn copy<T: Copy>(row: &[T], channels: usize, to: &mut [T], to_channels: usize) {
    if channels == to_channels {
        to.copy_from_slice(row);
        return;
    }
    // Colours, by far the most frequent case, without a call for each pixel.
    if (channels, to_channels) == (3, 4) {
        for (&[r, g, b], to) in row.as_chunks::<3>().0.iter().zip(to.as_chunks_mut::<4>().0) {
            [to[0], to[1], to[2]] = [r, g, b];
        }
        return;
    }
    for (from, to) in row.chunks_exact(channels).zip(to.chunks_exact_mut(to_channels)) {
        to[..channels].copy_from_slice(from);
    }
}

impl Fill for Single {
    fn fill(row: &[f32], channels: usize, to: &mut [f32], to_channels: usize, _: Option<Levels>) {
        copy(row, channels, to, to_channels);
    }
}

impl Fill for Brain {
    fn fill(row: &[bf16], channels: usize, to: &mut [bf16], to_channels: usize, _: Option<Levels>) {
        copy(row, channels, to, to_channels);
    }
}

impl Fill for Byte {
    fn fill(row: &[f32], channels: usize, to: &mut [u8], to_channels: usize, levels: Option<Levels>) {
        let Some(levels) = levels else { return };
        if channels == to_channels {
            levels.quantise(row, to);
            return;
        }
        for (from, to) in row.chunks_exact(channels).zip(to.chunks_exact_mut(to_channels)) {
            levels.quantise(from, &mut to[..channels]);
        }
    }
}

impl<P: Fill> Dense<P> {
    /// Whether the map of a convolution with `channels` is copied with its padding.
    fn copied(&self, channels: usize) -> bool {
        let few = channels < FEW && self.spec.kernel[1] > 1;
        few || channels != self.spec.in_channels || P::direct(&[]).is_none()
    }

    /// Scratch, in `f32`, for one image: its padded copy.
    pub(super) fn workspace(&self, channels: usize, size: (usize, usize)) -> usize {
        let (ph, pw) = padded(&self.spec, size);
        let bytes = ph * pw * self.spec.in_channels * size_of::<P::Left>();
        if self.copied(channels) { bytes.div_ceil(4) } else { 0 }
    }

    /// One image `[h, w, channels]` to `[oh, ow, out]`.
    pub(super) fn forward(
        &self,
        channels: usize,
        bias: &[f32],
        activation: Activation,
        image: &[P::Map],
        size: (usize, usize),
        (oh, ow): (usize, usize),
        residual: Option<&[P::Map]>,
        output: &mut [P::Map],
        workspace: &mut [f32],
        par: Par,
    ) {
        let (spec, c) = (&self.spec, self.spec.in_channels);
        let scale = self.quantised.as_ref().map(Quantised::scale);
        let epilogue = Epilogue { scale, bias: Some(bias), residual, activation };
        let [down, right] = spec.stride;
        let grid = |data, pw: usize, taps| {
            let (down, right) = (down * pw * c, right * c);
            Rows::Grid { data, across: ow, down, right, taps, next: pw * c }
        };
        let map = P::direct(image).filter(|_| !self.copied(channels));
        let rows = match map {
            Some(map) if spec.kernel == [1, 1] && spec.padding == [0; 4] => match spec.stride {
                [1, 1] => Rows::Plain { data: map, stride: c },
                _ => grid(map, size.1, 1),
            },
            Some(map) => Rows::Window { map, size: size.into(), zeros: &self.zeros, across: ow, spec },
            None => {
                let (ph, pw) = padded(spec, size);
                let scratch: &mut [P::Left] = bytemuck::cast_slice_mut(workspace);
                let copy = &mut scratch[..ph * pw * c];
                self.pad(channels, image, size, pw, copy, par);
                match (spec.kernel, spec.stride) {
                    ([1, 1], [1, 1]) => Rows::Plain { data: copy, stride: c },
                    _ => grid(copy, pw, spec.kernel[0]),
                }
            }
        };
        multiply(&self.panels, &rows, oh * ow, &epilogue, output, par);
    }

    /// Copies the image into what stands for zero.
    fn pad(
        &self,
        channels: usize,
        image: &[P::Map],
        (h, w): (usize, usize),
        pw: usize,
        copy: &mut [P::Left],
        par: Par,
    ) {
        let (c, [top, left, ..]) = (self.spec.in_channels, self.spec.padding);
        let levels = self.quantised.as_ref().map(|q| q.levels);
        let row = |(y, row): (usize, &mut [P::Left])| {
            let inside = y.checked_sub(top).filter(|&y| y < h);
            let kept = if inside.is_some() && c == channels { left * c..(left + w) * c } else { 0..0 };
            row[..kept.start].fill(P::Left::default());
            row[kept.end..].fill(P::Left::default());
            if let Some(levels) = levels {
                levels.zero(bytemuck::cast_slice_mut(&mut row[..kept.start]));
                levels.zero(bytemuck::cast_slice_mut(&mut row[kept.end..]));
            }
            if let Some(y) = inside {
                P::fill(&image[y * w * channels..][..w * channels], channels, &mut row[left * c..][..w * c], c, levels);
            }
        };
        match par {
            Par::Serial => copy.chunks_exact_mut(pw * c).enumerate().for_each(row),
            Par::Rayon => copy.par_chunks_exact_mut(pw * c).enumerate().with_min_len(16).for_each(row),
        }
    }
}

fn padded(spec: &ConvSpec, (h, w): (usize, usize)) -> (usize, usize) {
    (h + spec.padding[0] + spec.padding[2], w + spec.padding[1] + spec.padding[3])
}
