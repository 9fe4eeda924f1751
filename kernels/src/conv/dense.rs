//! Convolutions as one matrix product over pieces of the input: no copy of the windows is made.
//!
//! A piece is the channels of one pixel. Where these are few (a network's first layer) the image is copied once with its
//! padding, and a piece is a whole row of the window, which lies together there.

use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::gemm::{Epilogue, Isa, Packed, Rows, multiply};

/// Below this many channels, rows of the window are gathered instead of pixels.
const FEW: usize = 16;

/// Weights `[taps * in, out]`, packed.
#[derive(Clone, Debug)]
pub(super) struct Dense(Packed);

impl Dense {
    /// Packs `weight` `[out, in, kh, kw]` of a convolution with one group.
    pub(super) fn new(isa: Isa, spec: &ConvSpec, weight: &[f32]) -> Dense {
        let (cin, taps) = (spec.in_channels, spec.kernel[0] * spec.kernel[1]);
        Dense(Packed::with_isa(isa, taps * cin, spec.out_channels, |k, o| weight[(o * cin + k % cin) * taps + k / cin]))
    }

    /// Scratch, in `f32`, for one image: the table of pieces, and the padded image.
    pub(super) fn workspace(&self, spec: &ConvSpec, size: (usize, usize), (oh, ow): (usize, usize)) -> usize {
        if plain(spec) {
            return 0;
        }
        let padded = padded(spec, size);
        oh * ow * pieces(spec) + if by_rows(spec) { padded.0 * padded.1 * spec.in_channels } else { 0 }
    }

    /// One image `[h, w, in]` to `[oh, ow, out]`.
    pub(super) fn forward(
        &self,
        spec: &ConvSpec,
        bias: &[f32],
        activation: Activation,
        image: &[f32],
        size: (usize, usize),
        (oh, ow): (usize, usize),
        residual: Option<&[f32]>,
        output: &mut [f32],
        workspace: &mut [f32],
        par: Par,
    ) {
        let epilogue = Epilogue { bias: Some(bias), residual, activation };
        if plain(spec) {
            let rows = Rows::Plain { data: image, stride: spec.in_channels };
            return multiply(&self.0, &rows, oh * ow, &epilogue, output, par);
        }
        let taps = pieces(spec);
        let (table, rest) = workspace.split_at_mut(oh * ow * taps);
        let table: &mut [u32] = bytemuck::cast_slice_mut(table);
        let data = if by_rows(spec) {
            let padded = padded(spec, size);
            let copy = &mut rest[..padded.0 * padded.1 * spec.in_channels];
            pad(spec, image, size, padded, copy);
            fill_rows(spec, padded.1, ow, table);
            copy
        } else {
            fill(spec, size, ow, table);
            image
        };
        multiply(&self.0, &Rows::Pieces { data, table, taps }, oh * ow, &epilogue, output, par);
    }
}

/// Whether every window is one pixel and every pixel has one.
fn plain(spec: &ConvSpec) -> bool {
    spec.kernel == [1, 1] && spec.stride == [1, 1] && spec.padding == [0; 4]
}

fn by_rows(spec: &ConvSpec) -> bool {
    spec.in_channels < FEW && spec.kernel[1] > 1
}

/// Pieces of a window.
fn pieces(spec: &ConvSpec) -> usize {
    if by_rows(spec) { spec.kernel[0] } else { spec.kernel[0] * spec.kernel[1] }
}

fn padded(spec: &ConvSpec, (h, w): (usize, usize)) -> (usize, usize) {
    (h + spec.padding[0] + spec.padding[2], w + spec.padding[1] + spec.padding[3])
}

/// Copies the image into zeros.
fn pad(spec: &ConvSpec, image: &[f32], (h, w): (usize, usize), (_, pw): (usize, usize), copy: &mut [f32]) {
    let (c, [top, left, ..]) = (spec.in_channels, spec.padding);
    copy.fill(0.0);
    for (y, row) in image.chunks_exact(w * c).enumerate().take(h) {
        copy[((y + top) * pw + left) * c..][..w * c].copy_from_slice(row);
    }
}

/// Where the rows of each window begin in the padded image of width `pw`.
fn fill_rows(spec: &ConvSpec, pw: usize, ow: usize, table: &mut [u32]) {
    for (position, rows) in table.chunks_exact_mut(spec.kernel[0]).enumerate() {
        let (oy, ox) = (position / ow, position % ow);
        for (ky, row) in rows.iter_mut().enumerate() {
            *row = (((oy * spec.stride[0] + ky) * pw + ox * spec.stride[1]) * spec.in_channels) as u32;
        }
    }
}

/// Where the piece of each output position and tap begins.
fn fill(spec: &ConvSpec, (h, w): (usize, usize), ow: usize, table: &mut [u32]) {
    let [kh, kw] = spec.kernel;
    for (position, pieces) in table.chunks_exact_mut(kh * kw).enumerate() {
        let (oy, ox) = (position / ow, position % ow);
        for (t, piece) in pieces.iter_mut().enumerate() {
            let y = (oy * spec.stride[0] + t / kw).wrapping_sub(spec.padding[0]);
            let x = (ox * spec.stride[1] + t % kw).wrapping_sub(spec.padding[1]);
            *piece = if y < h && x < w { ((y * w + x) * spec.in_channels) as u32 } else { u32::MAX };
        }
    }
}
