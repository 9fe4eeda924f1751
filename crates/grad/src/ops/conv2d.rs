use blemish_kernels::Par;
use blemish_kernels::product::{Mat, Sum, matmul};
use rayon::prelude::*;

use super::linear::column_sums;
use super::patches::{Windows, outputs_first, taps_first};
use super::{image_dim, value};
use crate::products::{Products, Same};
use crate::{Result, Tape, Var, error::shape_error};

/// Settings of a convolution, the same for both axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Step of the window.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: usize,
    /// Distance of the taps.
    pub dilation: usize,
    /// Independent groups of channels.
    pub groups: usize,
}

impl Default for Conv {
    /// One step, no padding, no dilation, one group.
    fn default() -> Self {
        Conv { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

impl Conv {
    /// "Same" padding for an odd kernel and stride 1.
    pub fn same(kernel: usize) -> Self {
        Conv { padding: kernel / 2, ..Conv::default() }
    }
}

/// Window rows of one matrix product; bounds the memory and shares the work.
const ROWS: usize = 256;

/// Cross-correlation: `[n, h, w, in]`, weight `[out, in / groups, kh, kw]`, bias `[out]` to `[n, h', w', out]`.
///
/// # Errors
/// Shapes that do not fit, a kernel larger than the padded image, or a stride, dilation or group count of zero.
pub fn conv2d(tape: &mut Tape, x: &Var, weight: &Var, bias: Option<&Var>, conv: Conv) -> Result<Var> {
    const OP: &str = "conv2d";
    let [n, h, w, channels] = image_dim(OP, x)?;
    let &[outputs, inputs, kh, kw] = weight.shape() else {
        return Err(shape_error(OP, "[out, in / groups, kh, kw]", weight.shape()));
    };
    let groups = conv.groups;
    let windows = Windows::new((h, w), channels, (kh, kw), (conv.stride, conv.padding, conv.dilation));
    let fits = groups > 0 && outputs.is_multiple_of(groups) && Some(channels) == inputs.checked_mul(groups);
    let (true, Some(windows), true) = (fits, windows, bias.is_none_or(|b| b.shape() == [outputs])) else {
        let got = (x.shape(), weight.shape(), bias.map(Var::shape), conv);
        return Err(shape_error(OP, "[n, h, w, in], [out, in / groups, kh, kw], [out], a window that fits", got));
    };
    let job = Job { windows, n, groups, inputs, per_group: outputs / groups, products: tape.products().clone() };
    let mut out = vec![0.0; n * windows.out.0 * windows.out.1 * outputs];
    job.forward(x.data(), weight.data(), bias.map(Var::data), &mut out)?;
    let out = value(OP, &[n, windows.out.0, windows.out.1, outputs], out)?;

    let saved = (x.clone(), weight.clone());
    let bias_node = bias.and_then(Var::node);
    let all: Vec<&Var> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    Ok(tape.push(out, &all, move |g, grads| {
        let (x, weight) = saved;
        if x.needs_grad() {
            grads.add(x.node(), job.input_gradient(g, weight.data())?)?;
        }
        if weight.needs_grad() {
            grads.add(weight.node(), job.weight_gradient(g, x.data())?)?;
        }
        if bias_node.is_some() {
            grads.add(bias_node, column_sums(g, outputs))?;
        }
        Ok(())
    }))
}

/// A convolution's sizes, and where it runs; `conv_transpose2d` runs the same three products with the roles exchanged.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) windows: Windows,
    pub(super) n: usize,
    pub(super) groups: usize,
    /// Input channels of a group.
    pub(super) inputs: usize,
    /// Output channels of a group.
    pub(super) per_group: usize,
    pub(super) products: Products,
}

impl Job {
    fn outputs(&self) -> usize {
        self.groups * self.per_group
    }

    fn taps(&self) -> usize {
        self.windows.kernel.0 * self.windows.kernel.1
    }

    /// Output rows handled at a time.
    fn lines(&self) -> usize {
        (ROWS / self.windows.out.1.max(1)).clamp(1, self.windows.out.0.max(1))
    }

    fn image(&self) -> usize {
        self.windows.size.0 * self.windows.size.1 * self.windows.channels
    }

    /// Whether a window is a single pixel, so that the window matrix is the image itself.
    fn plain(&self) -> bool {
        let w = &self.windows;
        self.taps() == 1 && w.stride == 1 && w.padding == 0 && self.groups == 1
    }

    /// The form that a GPU takes, if it is of that form.
    fn same(&self) -> Option<Same> {
        let w = &self.windows;
        let (k, square) = (w.kernel.0, w.kernel.0 == w.kernel.1 && !w.kernel.0.is_multiple_of(2));
        let plain = (w.stride, w.dilation, w.padding) == (1, 1, k / 2) && self.groups == 1;
        let size = [self.n, w.size.0, w.size.1];
        (square && plain).then_some(Same { size, inputs: self.inputs, outputs: self.per_group, kernel: k })
    }

    pub(super) fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, out: &mut [f32]) -> Result<()> {
        let there = self.same().and_then(|at| self.products.conv(at, x, weight, bias));
        if let Some(there) = there.filter(|there| there.len() == out.len()) {
            out.copy_from_slice(&there);
            return Ok(());
        }
        let (outputs, width) = (self.outputs(), self.windows.out.1);
        let weights: Vec<Vec<f32>> = (0..self.groups)
            .map(|g| taps_first(weight, g * self.per_group..(g + 1) * self.per_group, self.inputs, self.taps()))
            .collect();
        let depth = self.windows.row(self.inputs);
        if self.plain() {
            let rows = self.n * self.windows.out.0 * width;
            start(out, bias, outputs);
            let (a, b) = (Mat::new(x, rows, depth)?, Mat::new(&weights[0], depth, outputs)?);
            return Ok(matmul(a, b, out, Sum::Add, Par::Rayon)?);
        }
        let band = self.lines() * width * outputs;
        let bands = self.windows.out.0.div_ceil(self.lines());
        let image_out = self.windows.out.0 * width * outputs;
        out.par_chunks_mut(image_out.max(1)).enumerate().try_for_each(|(image, out)| {
            let x = &x[image * self.image()..][..self.image()];
            out.par_chunks_mut(band.max(1)).enumerate().try_for_each(|(b, out)| {
                debug_assert!(b < bands);
                start(out, bias, outputs);
                let rows = out.len() / outputs;
                let mut window = vec![0.0; rows * depth];
                let mut product = vec![0.0; rows * self.per_group];
                for (g, weight) in weights.iter().enumerate() {
                    self.gather(x, b, g, &mut window);
                    let (a, w) = (Mat::new(&window, rows, depth)?, Mat::new(weight, depth, self.per_group)?);
                    if self.groups == 1 {
                        return Ok(matmul(a, w, out, Sum::Add, Par::Serial)?);
                    }
                    matmul(a, w, &mut product, Sum::Overwrite, Par::Serial)?;
                    for (to, from) in out.chunks_exact_mut(outputs).zip(product.chunks_exact(self.per_group)) {
                        to[g * self.per_group..][..self.per_group].iter_mut().zip(from).for_each(|(t, f)| *t += f);
                    }
                }
                Ok(())
            })
        })
    }

    fn gather(&self, image: &[f32], band: usize, group: usize, window: &mut [f32]) {
        let line = self.windows.out.1 * self.windows.row(self.inputs);
        for (i, rows) in window.chunks_exact_mut(line.max(1)).enumerate() {
            let channels = group * self.inputs..(group + 1) * self.inputs;
            self.windows.gather(image, band * self.lines() + i, channels, rows);
        }
    }

    /// The gradient of the input from that of the output `g`.
    pub(super) fn input_gradient(&self, g: &[f32], weight: &[f32]) -> Result<Vec<f32>> {
        if let Some(dx) = self.same().and_then(|at| self.products.conv_input(at, g, weight)) {
            return Ok(dx);
        }
        let (outputs, width) = (self.outputs(), self.windows.out.1);
        let weights: Vec<Vec<f32>> = (0..self.groups)
            .map(|group| {
                taps_first(weight, group * self.per_group..(group + 1) * self.per_group, self.inputs, self.taps())
            })
            .collect();
        let depth = self.windows.row(self.inputs);
        let mut dx = vec![0.0; self.n * self.image()];
        if self.plain() {
            let rows = self.n * self.windows.out.0 * width;
            let (a, b) = (Mat::new(g, rows, outputs)?, Mat::new(&weights[0], depth, outputs)?);
            matmul(a, b.t(), &mut dx, Sum::Overwrite, Par::Rayon)?;
            return Ok(dx);
        }
        let image_out = self.windows.out.0 * width * outputs;
        dx.par_chunks_mut(self.image().max(1)).enumerate().try_for_each(|(image, dx)| {
            let g = &g[image * image_out..][..image_out];
            let mut window = vec![0.0; self.lines() * width * depth];
            for (b, g) in g.chunks((self.lines() * width * outputs).max(1)).enumerate() {
                let rows = g.len() / outputs;
                for (group, weight) in weights.iter().enumerate() {
                    let own = Mat::strided(&g[group * self.per_group..], rows, self.per_group, outputs)?;
                    let window = &mut window[..rows * depth];
                    matmul(own, Mat::new(weight, depth, self.per_group)?.t(), window, Sum::Overwrite, Par::Serial)?;
                    for (i, rows) in window.chunks_exact(width * depth).enumerate() {
                        let channels = group * self.inputs..(group + 1) * self.inputs;
                        self.windows.scatter(rows, b * self.lines() + i, channels, dx);
                    }
                }
            }
            Ok::<(), crate::GradError>(())
        })?;
        Ok(dx)
    }

    /// The gradient of the weight from that of the output `g` and the input `x`.
    pub(super) fn weight_gradient(&self, g: &[f32], x: &[f32]) -> Result<Vec<f32>> {
        if let Some(dw) = self.same().and_then(|at| self.products.conv_weight(at, g, x)) {
            return Ok(dw);
        }
        let (outputs, width) = (self.outputs(), self.windows.out.1);
        let depth = self.windows.row(self.inputs);
        let mut dw = vec![0.0; outputs * self.inputs * self.taps()];
        if self.plain() {
            let rows = self.n * self.windows.out.0 * width;
            matmul(Mat::new(g, rows, outputs)?.t(), Mat::new(x, rows, depth)?, &mut dw, Sum::Overwrite, Par::Rayon)?;
            return Ok(dw);
        }
        let image_out = self.windows.out.0 * width * outputs;
        // One partial sum for each of a fixed number of shares of the batch, added in order.
        let share = self.n.div_ceil(8).max(1);
        let parts: Vec<Vec<f32>> = (0..self.n)
            .step_by(share)
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|first| {
                let mut sum = vec![0.0; self.groups * depth * self.per_group];
                let mut window = vec![0.0; self.lines() * width * depth];
                for image in first..(first + share).min(self.n) {
                    let x = &x[image * self.image()..][..self.image()];
                    let g = &g[image * image_out..][..image_out];
                    for (b, g) in g.chunks((self.lines() * width * outputs).max(1)).enumerate() {
                        let rows = g.len() / outputs;
                        for (group, sum) in sum.chunks_exact_mut(depth * self.per_group).enumerate() {
                            let window = &mut window[..rows * depth];
                            self.gather(x, b, group, window);
                            let own = Mat::strided(&g[group * self.per_group..], rows, self.per_group, outputs)?;
                            matmul(Mat::new(window, rows, depth)?.t(), own, sum, Sum::Add, Par::Serial)?;
                        }
                    }
                }
                Ok(sum)
            })
            .collect::<Result<_>>()?;
        let mut parts = parts.into_iter();
        let mut total = parts.next().unwrap_or_default();
        for part in parts {
            total.iter_mut().zip(&part).for_each(|(t, p)| *t += p);
        }
        for (group, matrix) in total.chunks_exact(depth * self.per_group).enumerate() {
            let range = group * self.per_group..(group + 1) * self.per_group;
            outputs_first(matrix, range, self.inputs, self.taps(), &mut dw);
        }
        Ok(dw)
    }
}

/// Fills rows of `outputs` values with the bias, or zeros.
fn start(out: &mut [f32], bias: Option<&[f32]>, outputs: usize) {
    match bias {
        Some(bias) => out.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(bias)),
        None => out.fill(0.0),
    }
}
