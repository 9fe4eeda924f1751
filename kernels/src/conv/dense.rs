//! Convolutions as one matrix product over pieces of the input: no copy of the windows is made.

use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::gemm::{Epilogue, Isa, Packed, Rows, multiply};

/// Weights `[taps * in, out]`, packed.
#[derive(Clone, Debug)]
pub(super) struct Dense(Packed);

impl Dense {
    /// Packs `weight` `[out, in, kh, kw]` of a convolution with one group.
    pub(super) fn new(isa: Isa, spec: &ConvSpec, weight: &[f32]) -> Dense {
        let (cin, taps) = (spec.in_channels, spec.kernel[0] * spec.kernel[1]);
        Dense(Packed::with_isa(isa, taps * cin, spec.out_channels, |k, o| weight[(o * cin + k % cin) * taps + k / cin]))
    }

    /// Scratch, in `f32`, for one image: the table of pieces.
    pub(super) fn workspace(&self, spec: &ConvSpec, (oh, ow): (usize, usize)) -> usize {
        if plain(spec) { 0 } else { oh * ow * spec.kernel[0] * spec.kernel[1] }
    }

    /// One image `[h, w, in]` to `[oh, ow, out]`.
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
        workspace: &mut [f32],
        par: Par,
    ) {
        let epilogue = Epilogue { bias: Some(bias), residual, activation };
        if plain(spec) {
            let rows = Rows::Plain { data: image, stride: spec.in_channels };
            return multiply(&self.0, &rows, oh * ow, &epilogue, output, par);
        }
        let taps = spec.kernel[0] * spec.kernel[1];
        let table: &mut [u32] = bytemuck::cast_slice_mut(&mut workspace[..oh * ow * taps]);
        fill(spec, (h, w), ow, table);
        multiply(&self.0, &Rows::Pieces { data: image, table, taps }, oh * ow, &epilogue, output, par);
    }
}

/// Whether every window is one pixel and every pixel has one.
fn plain(spec: &ConvSpec) -> bool {
    spec.kernel == [1, 1] && spec.stride == [1, 1] && spec.padding == [0; 4]
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
