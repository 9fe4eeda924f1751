//! Convolutions as one matrix product over the windows, which are read where they lie.
//!
//! A window is made of pieces that lie together: the channels of one pixel. Where these are few (a network's first layer) the
//! map is copied once with its padding, and a piece is a whole row of the window.

use rayon::prelude::*;

use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::gemm::{Epilogue, Isa, Packed, Rows, multiply};

/// Below this many channels, pieces are rows of the window.
const FEW: usize = 16;

/// Weights `[taps * in, out]`, packed, and a pixel of zeros.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    packed: Packed,
    zeros: Vec<f32>,
}

impl Dense {
    /// Packs `weight` `[out, in, kh, kw]` of a convolution with one group.
    pub(super) fn new(isa: Isa, spec: &ConvSpec, weight: &[f32]) -> Dense {
        let (cin, taps) = (spec.in_channels, spec.kernel[0] * spec.kernel[1]);
        let value = |k: usize, o: usize| weight[(o * cin + k % cin) * taps + k / cin];
        Dense { packed: Packed::with_isa(isa, taps * cin, spec.out_channels, value), zeros: vec![0.0; cin] }
    }

    /// Scratch, in `f32`, for one image: its padded copy.
    pub(super) fn workspace(&self, spec: &ConvSpec, size: (usize, usize)) -> usize {
        if copied(spec) { padded(spec, size).0 * padded(spec, size).1 * spec.in_channels } else { 0 }
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
        let c = spec.in_channels;
        let rows = if spec.kernel == [1, 1] && spec.padding == [0; 4] {
            let [down, right] = spec.stride;
            match spec.stride {
                [1, 1] => Rows::Plain { data: image, stride: c },
                _ => {
                    Rows::Grid { data: image, across: ow, down: down * size.1 * c, right: right * c, taps: 1, next: 0 }
                }
            }
        } else if copied(spec) {
            let (ph, pw) = padded(spec, size);
            let copy = &mut workspace[..ph * pw * c];
            pad(spec, image, size, pw, copy, par);
            let (down, right) = (spec.stride[0] * pw * c, spec.stride[1] * c);
            Rows::Grid { data: copy, across: ow, down, right, taps: spec.kernel[0], next: pw * c }
        } else {
            Rows::Window { map: image, size: size.into(), zeros: &self.zeros, across: ow, spec }
        };
        multiply(&self.packed, &rows, oh * ow, &epilogue, output, par);
    }
}

/// Whether the map is copied with its padding.
fn copied(spec: &ConvSpec) -> bool {
    spec.in_channels < FEW && spec.kernel[1] > 1
}

fn padded(spec: &ConvSpec, (h, w): (usize, usize)) -> (usize, usize) {
    (h + spec.padding[0] + spec.padding[2], w + spec.padding[1] + spec.padding[3])
}

/// Copies the image into zeros.
fn pad(spec: &ConvSpec, image: &[f32], (h, w): (usize, usize), pw: usize, copy: &mut [f32], par: Par) {
    let (c, [top, left, ..]) = (spec.in_channels, spec.padding);
    let row = |(y, row): (usize, &mut [f32])| match y.checked_sub(top).filter(|&y| y < h) {
        Some(y) => {
            row[..left * c].fill(0.0);
            row[left * c..][..w * c].copy_from_slice(&image[y * w * c..][..w * c]);
            row[(left + w) * c..].fill(0.0);
        }
        None => row.fill(0.0),
    };
    match par {
        Par::Serial => copy.chunks_exact_mut(pw * c).enumerate().for_each(row),
        Par::Rayon => copy.par_chunks_exact_mut(pw * c).enumerate().with_min_len(32).for_each(row),
    }
}
