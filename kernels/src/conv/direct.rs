//! The plain convolution: any spec, no packing beyond a transpose of the weights.

use rayon::prelude::*;

use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::gemm::Element;

/// Weights as `[groups, kernel height, kernel width, in / groups, out / groups]`.
#[derive(Debug, Clone)]
pub(super) struct DirectWeights(Vec<f32>);

impl DirectWeights {
    pub(super) fn new(spec: &ConvSpec, weight: &[f32]) -> Self {
        let (cin, taps) = (spec.group_inputs(), spec.kernel[0] * spec.kernel[1]);
        let cout = spec.out_channels / spec.groups;
        let mut packed = vec![0.0; weight.len()];
        for (out, filter) in weight.chunks_exact(cin * taps).enumerate() {
            let (group, o) = (out / cout, out % cout);
            for (c, plane) in filter.chunks_exact(taps).enumerate() {
                for (tap, &value) in plane.iter().enumerate() {
                    packed[((group * taps + tap) * cin + c) * cout + o] = value;
                }
            }
        }
        Self(packed)
    }
}

/// One image `[h, w, in]` to `[oh, ow, out]`.
pub(super) fn image<E: Element>(
    spec: &ConvSpec,
    weights: &DirectWeights,
    bias: &[f32],
    activation: Activation,
    image: &[E],
    (h, w): (usize, usize),
    ow: usize,
    residual: Option<&[E]>,
    output: &mut [E],
    par: Par,
) {
    let line = ow * spec.out_channels;
    let each = |(oy, output): (usize, &mut [E])| {
        let residual = residual.map(|r| &r[oy * line..][..line]);
        row(spec, weights, bias, activation, image, h, w, oy, residual, output);
    };
    match par {
        Par::Serial => output.chunks_exact_mut(line).enumerate().for_each(each),
        Par::Rayon => output.par_chunks_exact_mut(line).enumerate().for_each(each),
    }
}

/// One output row `[ow, out]` of one image `[h, w, in]`, before activation starting from bias (and residual).
fn row<E: Element>(
    spec: &ConvSpec,
    weights: &DirectWeights,
    bias: &[f32],
    activation: Activation,
    image: &[E],
    h: usize,
    w: usize,
    oy: usize,
    residual: Option<&[E]>,
    output: &mut [E],
) {
    let (cin, cout) = (spec.group_inputs(), spec.out_channels / spec.groups);
    let [kh, kw] = spec.kernel;
    let mut sums = vec![0.0f32; spec.out_channels];
    for (ox, stored) in output.chunks_exact_mut(spec.out_channels).enumerate() {
        let out = &mut sums[..];
        out.copy_from_slice(bias);
        for (group, out) in out.chunks_exact_mut(cout).enumerate() {
            for ky in 0..kh {
                let y = (oy * spec.stride[0] + ky).wrapping_sub(spec.padding[0]);
                for kx in 0..kw {
                    let x = (ox * spec.stride[1] + kx).wrapping_sub(spec.padding[1]);
                    if y >= h || x >= w {
                        continue;
                    }
                    let at = (y * w + x) * spec.in_channels + group * cin;
                    let tap = ((group * kh + ky) * kw + kx) * cin * cout;
                    let rows = weights.0[tap..tap + cin * cout].chunks_exact(cout);
                    for (&value, row) in image[at..at + cin].iter().zip(rows) {
                        for (sum, &weight) in out.iter_mut().zip(row) {
                            *sum += value.widen() * weight;
                        }
                    }
                }
            }
        }
        if let Some(residual) = residual {
            let row = &residual[ox * spec.out_channels..(ox + 1) * spec.out_channels];
            out.iter_mut().zip(row).for_each(|(x, &r)| *x += r.widen());
        }
        stored.iter_mut().zip(out).for_each(|(to, x)| *to = E::narrow(activation.of(*x)));
    }
}

impl Activation {
    /// The activation of one value.
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::None => x,
            Self::Relu => x.max(0.0),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::HardSwish => x * ((x + 3.0).clamp(0.0, 6.0) / 6.0),
            Self::Silu => x / (1.0 + (-x).exp()),
        }
    }
}
