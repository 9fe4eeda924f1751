//! The products of [`panel`](super::panel) in bf16 with sums in `f32`: twice the speed where the processor multiplies pairs of
//! bf16 ([`Isa::bf16`]).
//!
//! Weights stay in `f32` and are rounded while they are read: a product of a block of weights with 64 samples takes far longer
//! than the rounding, and no second copy has to be kept up to date. Activations are rounded by the caller, once for each way
//! they are used: [`channels`] for [`forward`] and [`backward`], [`transpose`] for the inputs of a layer in [`update`], whose
//! output gradients are read in `f32` and rounded too. Rounding is to nearest even; two rounded numbers of neighbouring
//! channels, or samples, are a 32-bit word, the first in its low half.
//!
//! Each output is one chain of sums in the order of the depth, so its bits depend neither on the number of threads nor on the
//! samples beside it. Without the instructions the results are the same, to the last digits, but slow.
//!
//! ```
//! use blemish_kernels::{Par, product::{pairs::{channels, forward}, panel::{PANEL, Weight}}};
//! let weight = Weight::new(&[1.0, 2.0], 1, 2)?;
//! let mut x = vec![0.0; 2 * PANEL];
//! (x[5], x[PANEL + 5]) = (10.0, 100.0);
//! let (mut words, mut out) = (vec![0; PANEL], vec![0.0; PANEL]);
//! channels(&x, 2, 2, &mut words, Par::Serial)?;
//! forward(weight, Some(&[0.5]), false, &words, &mut out, 1, Par::Serial)?;
//! assert_eq!((out[4], out[5]), (0.5, 210.5));
//! # Ok::<(), blemish_kernels::KernelError>(())
//! ```

use rayon::prelude::*;

use super::cpu_out::Out;
use super::cpu_pairs::{self, Product, Tiles};
use super::cpu_panel::Sink;
use super::cpu_target::Target;
use super::panel::{Moments, PANEL, Weight, band, panels, run};
use crate::adam::AdamStep;
use crate::gemm::Isa;
use crate::{Par, Result, error::shape_error};

/// Words of a panel that a task rounds.
const ROUNDED: usize = 128;

/// The instructions for these products.
fn isa() -> Isa {
    Isa::bf16().unwrap_or(Isa::Portable)
}

/// The first `used` rows of panels `[panels, rows, 64]` as pairs of channels: `[panels, ceil(used / 2), 64]` words, where a
/// missing channel is zero.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the sizes do not fit.
pub fn channels(x: &[f32], rows: usize, used: usize, out: &mut [u32], par: Par) -> Result<()> {
    const OP: &str = "pairs of channels";
    let count = panels(OP, x.len(), rows, used)?;
    if out.len() != count * used.div_ceil(2) * PANEL || used == 0 {
        return Err(shape_error(OP, format!("{count} panels of {used} channels, at least one"), out.len()));
    }
    let (isa, words) = (isa(), used.div_ceil(2));
    let part = |x: &[f32], first: usize, out: &mut [u32]| {
        let last = used.min(2 * (first + out.len() / PANEL));
        cpu_pairs::channels(isa, &x[2 * first * PANEL..last * PANEL], out);
    };
    for (x, out) in x.chunks_exact(rows * PANEL).zip(out.chunks_exact_mut(words * PANEL)) {
        if par == Par::Rayon && words > ROUNDED {
            let parts = out.par_chunks_mut(ROUNDED * PANEL).enumerate();
            parts.for_each(|(i, out)| part(x, i * ROUNDED, out));
        } else {
            part(x, 0, out);
        }
    }
    Ok(())
}

/// The first `used` rows of panels `[panels, rows, 64]` the other way round, as pairs of samples: `[ceil(width / 64),
/// samples / 2, 64]` words, where row `r` lies in column `at + r`. `width` is the number of columns in all; those of the last
/// block that are beyond it stay as they are.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the sizes do not fit.
pub fn transpose(x: &[f32], rows: usize, used: usize, at: usize, width: usize, out: &mut [u32]) -> Result<()> {
    const OP: &str = "pairs of samples";
    let count = panels(OP, x.len(), rows, used)?;
    let fits = at.checked_add(used).is_some_and(|end| end <= width);
    if !fits || Some(out.len()) != width.div_ceil(PANEL).checked_mul(count * PANEL / 2 * PANEL) {
        let samples = count * PANEL;
        return Err(shape_error(OP, format!("columns {at}.. of {width}, {samples} samples"), (used, out.len())));
    }
    cpu_pairs::transpose(isa(), x, rows, used, at, out);
    Ok(())
}

/// As [`panel::forward`](super::panel::forward), of `x` by [`channels`]: all its rows are read.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the sizes do not fit.
pub fn forward(
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    relu: bool,
    x: &[u32],
    out: &mut [f32],
    out_rows: usize,
    par: Par,
) -> Result<()> {
    forward_with(isa(), weight, bias, relu, x, out, out_rows, par)
}

fn forward_with(
    isa: Isa,
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    relu: bool,
    x: &[u32],
    out: &mut [f32],
    out_rows: usize,
    par: Par,
) -> Result<()> {
    const OP: &str = "pairs forward";
    let words = weight.inputs.div_ceil(2);
    let count = panels(OP, x.len(), words, words)?;
    let bias_len = bias.map_or(weight.outputs, <[f32]>::len);
    if panels(OP, out.len(), out_rows, weight.outputs)? != count || bias_len != weight.outputs {
        return Err(shape_error(OP, format!("{count} panels, a bias of {}", weight.outputs), (out.len(), bias_len)));
    }
    let Weight { data, inputs, outputs } = weight;
    let to = Target { out: Out::new(out), rows: out_rows, panels: count, bias, relu, add: false };
    let job = Product { isa, weight: data, inputs, turned: false, words, x, to };
    let band = band(isa, outputs, inputs / 2, count).min(FORWARD);
    run(par, outputs.div_ceil(band), |t| job.rows(t * band, ((t + 1) * band).min(outputs)));
    Ok(())
}

/// Most rows of a block of weights that is rounded at once: it stays in the second cache beside the samples.
const FORWARD: usize = 24;
/// As [`FORWARD`], for columns: three cache lines of each row.
const BACKWARD: usize = 48;

/// As [`panel::backward`](super::panel::backward), of `g` by [`channels`]: all its rows are read.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the sizes do not fit.
pub fn backward(
    weight: Weight<'_>,
    columns: usize,
    g: &[u32],
    out: &mut [f32],
    out_rows: usize,
    add: bool,
    par: Par,
) -> Result<()> {
    backward_with(isa(), weight, columns, g, out, out_rows, add, par)
}

fn backward_with(
    isa: Isa,
    weight: Weight<'_>,
    columns: usize,
    g: &[u32],
    out: &mut [f32],
    out_rows: usize,
    add: bool,
    par: Par,
) -> Result<()> {
    const OP: &str = "pairs backward";
    let words = weight.outputs.div_ceil(2);
    let count = panels(OP, g.len(), words, words)?;
    if panels(OP, out.len(), out_rows, columns)? != count || columns > weight.inputs {
        let wanted = format!("{count} panels, at most {} columns", weight.inputs);
        return Err(shape_error(OP, wanted, (out.len(), columns)));
    }
    let Weight { data, inputs, .. } = weight;
    let to = Target { out: Out::new(out), rows: out_rows, panels: count, bias: None, relu: false, add };
    let job = Product { isa, weight: data, inputs, turned: true, words, x: g, to };
    let band = (columns / 8).next_multiple_of(12).clamp(12, BACKWARD);
    run(par, columns.div_ceil(band), |t| job.rows(t * band, ((t + 1) * band).min(columns)));
    Ok(())
}

/// As [`panel::update`](super::panel::update), along the gradient `g * x^T` with `x` by [`transpose`].
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the sizes do not fit.
pub fn update(
    weight: &mut [f32],
    dim: (usize, usize),
    moments: Moments<'_>,
    step: &AdamStep,
    g: &[f32],
    g_rows: usize,
    x: &[u32],
    par: Par,
) -> Result<()> {
    let (sink, len) = moments.sink("pairs update", weight, step)?;
    tiles(isa(), "pairs update", sink, len, dim, g, g_rows, x, par)
}

/// As [`update`], but `gradient` receives the gradient.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the sizes do not fit.
pub fn gradient(
    gradient: &mut [f32],
    dim: (usize, usize),
    g: &[f32],
    g_rows: usize,
    x: &[u32],
    par: Par,
) -> Result<()> {
    let len = gradient.len();
    let sink = Sink::Write { gradient: Out::new(gradient) };
    tiles(isa(), "pairs gradient", sink, len, dim, g, g_rows, x, par)
}

fn tiles(
    isa: Isa,
    op: &'static str,
    sink: Sink<'_>,
    len: usize,
    (outputs, inputs): (usize, usize),
    g: &[f32],
    g_rows: usize,
    x: &[u32],
    par: Par,
) -> Result<()> {
    let count = panels(op, g.len(), g_rows, outputs)?;
    let x_len = inputs.div_ceil(PANEL).checked_mul(count * PANEL / 2 * PANEL);
    if outputs.checked_mul(inputs) != Some(len) || len == 0 || Some(x.len()) != x_len {
        return Err(shape_error(op, format!("[{outputs}, {inputs}], {count} panels"), (len, x.len())));
    }
    let job = Tiles { isa, sink, inputs, g, g_rows, x, panels: count };
    let band = band(isa, outputs, inputs / 2, count);
    run(par, outputs.div_ceil(band), |t| job.rows(t * band, ((t + 1) * band).min(outputs)));
    Ok(())
}

#[cfg(test)]
#[path = "pairs_tests.rs"]
mod tests;
