use rayon::prelude::*;

use super::direct::{self, DirectWeights};
use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::error::{Result, shape_error};

/// A convolution with frozen weights, bias and activation, on maps `[n, h, w, c]`.
#[derive(Debug, Clone)]
pub struct Conv2d {
    spec: ConvSpec,
    bias: Vec<f32>,
    activation: Activation,
    direct: DirectWeights,
}

impl Conv2d {
    /// Packs `weight`, `[out, in / groups, kernel height, kernel width]`, and `bias`, `[out]`.
    ///
    /// # Errors
    /// Where the spec contradicts itself or a length does not fit it.
    pub fn new(spec: ConvSpec, weight: &[f32], bias: &[f32], activation: Activation) -> Result<Self> {
        spec.validate()?;
        if weight.len() != spec.weight_len() {
            return Err(shape_error("conv", format!("{} weights", spec.weight_len()), weight.len()));
        }
        if bias.len() != spec.out_channels {
            return Err(shape_error("conv", format!("{} biases", spec.out_channels), bias.len()));
        }
        Ok(Self { spec, bias: bias.to_vec(), activation, direct: DirectWeights::new(&spec, weight) })
    }

    /// The shape it was built with.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Height and width of the output for maps of `h` by `w`.
    ///
    /// # Errors
    /// Where the padded map is smaller than the kernel.
    pub fn output_size(&self, h: usize, w: usize) -> Result<(usize, usize)> {
        self.spec.output_size(h, w)
    }

    /// Length of the scratch, in `f32`, that [`forward`](Self::forward) needs for `n` maps of `h` by `w`.
    pub fn workspace(&self, n: usize, h: usize, w: usize) -> usize {
        let _ = (n, h, w);
        0
    }

    /// `output[n, oh, ow, out] = activation(conv(input[n, h, w, in]) + bias + residual[n, oh, ow, out])`.
    ///
    /// # Errors
    /// Where a length does not fit.
    pub fn forward(
        &self,
        input: &[f32],
        n: usize,
        h: usize,
        w: usize,
        residual: Option<&[f32]>,
        output: &mut [f32],
        workspace: &mut [f32],
        par: Par,
    ) -> Result<()> {
        let (oh, ow) = self.output_size(h, w)?;
        let image = h * w * self.spec.in_channels;
        let row = ow * self.spec.out_channels;
        if Some(input.len()) != n.checked_mul(image) {
            return Err(shape_error("conv", format!("input of {n} x {image}"), input.len()));
        }
        for (what, len) in [("output", Some(output.len())), ("residual", residual.map(<[f32]>::len))] {
            if len.is_some_and(|len| Some(len) != n.checked_mul(oh * row)) {
                return Err(shape_error("conv", format!("{what} of {n} x {oh} x {row}"), len));
            }
        }
        if workspace.len() < self.workspace(n, h, w) {
            return Err(shape_error("conv", format!("workspace of {}", self.workspace(n, h, w)), workspace.len()));
        }
        let each = |(index, output): (usize, &mut [f32])| {
            let (i, oy) = (index / oh, index % oh);
            let residual = residual.map(|r| &r[index * row..(index + 1) * row]);
            let image = &input[i * image..(i + 1) * image];
            direct::row(&self.spec, &self.direct, &self.bias, self.activation, image, h, w, oy, residual, output);
        };
        match par {
            Par::Serial => output.chunks_exact_mut(row).enumerate().for_each(each),
            Par::Rayon => output.par_chunks_exact_mut(row).enumerate().for_each(each),
        }
        Ok(())
    }
}
