//! Products of a weight matrix with panels of 64 samples, for training linear layers.
//!
//! A panel is `[rows, 64]`: one row for each channel, one column for each sample, and `[panels, rows, 64]` in memory. A weight
//! `[outputs, inputs]` is then read where it lies, whether it is applied, transposed or differentiated; nothing as large as a
//! weight is ever packed or copied. [`update`] goes one step further: the gradient of a weight never reaches the memory, each
//! tile of it moves its weights by a step of Adam while it is in registers.
//!
//! For one weight and 64 samples: 128 operations a product; 4 bytes read by [`forward`] and [`backward`], 24 moved by
//! [`update`].
//!
//! ```
//! use blemish_kernels::{Par, product::panel::{PANEL, Weight, forward}};
//! let weight = Weight::new(&[1.0, 2.0], 1, 2)?;
//! let mut x = vec![0.0; 2 * PANEL];
//! (x[5], x[PANEL + 5]) = (10.0, 100.0);
//! let mut out = vec![0.0; PANEL];
//! forward(weight, Some(&[0.5]), false, &x, 2, &mut out, 1, Par::Serial)?;
//! assert_eq!((out[4], out[5]), (0.5, 210.5));
//! # Ok::<(), blemish_kernels::KernelError>(())
//! ```

use rayon::prelude::*;

use super::cpu_out::Out;
use super::cpu_panel::{self, Product, Sink, Tiles};
use super::cpu_target::Target;
use crate::adam::AdamStep;
use crate::gemm::Isa;
use crate::{Par, Result, error::shape_error};

/// Samples of a panel.
pub const PANEL: usize = 64;

/// A weight matrix `[outputs, inputs]`, row by row as PyTorch stores it.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    pub(super) data: &'a [f32],
    pub(super) outputs: usize,
    pub(super) inputs: usize,
}

impl<'a> Weight<'a> {
    /// # Errors
    /// [`KernelError::Shape`](crate::KernelError::Shape) if the length is not `outputs * inputs`.
    pub fn new(data: &'a [f32], outputs: usize, inputs: usize) -> Result<Weight<'a>> {
        if outputs.checked_mul(inputs) != Some(data.len()) || data.is_empty() {
            return Err(shape_error("panel", format!("a weight of [{outputs}, {inputs}], not empty"), data.len()));
        }
        Ok(Weight { data, outputs, inputs })
    }

    /// Its rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Its columns.
    pub fn inputs(&self) -> usize {
        self.inputs
    }
}

/// Panels in `[panels, rows, 64]`, if that is at least `used` rows.
pub(super) fn panels(op: &'static str, len: usize, rows: usize, used: usize) -> Result<usize> {
    let each = rows.saturating_mul(PANEL);
    if used > rows || each == 0 || !len.is_multiple_of(each) {
        return Err(shape_error(op, format!("[panels, {rows}, {PANEL}] with {used} rows or more"), len));
    }
    Ok(len / each)
}

/// Rows of the result that one task computes; depends on the sizes and the instructions alone. The bits do not depend on it.
pub(super) fn band(isa: Isa, rows: usize, depth: usize, panels: usize) -> usize {
    if isa.panel() < PANEL {
        // A task copies what its rows share, and there should be some tasks.
        let rows = rows.max(1);
        let tasks = rows.div_ceil(NARROW).next_multiple_of(4);
        return rows.div_ceil(tasks).next_multiple_of(6);
    }
    let work = (depth * panels * PANEL).max(1);
    ((1usize << 20) / work).clamp(1, rows.max(1)).next_multiple_of(12)
}

/// Most rows of a task where a tile is narrower than a panel.
const NARROW: usize = 48;

pub(super) fn run(par: Par, tasks: usize, task: impl Fn(usize) + Send + Sync) {
    match par {
        Par::Rayon if tasks > 1 => (0..tasks).into_par_iter().for_each(task),
        _ => (0..tasks).for_each(task),
    }
}

/// `out = weight * x + bias`, negative values set to zero with `relu`. Of each panel of `x` (`x_rows` rows) the first `inputs`
/// rows are read, of `out` (`out_rows` rows) the first `outputs` are written.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the sizes do not fit.
pub fn forward(
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    relu: bool,
    x: &[f32],
    x_rows: usize,
    out: &mut [f32],
    out_rows: usize,
    par: Par,
) -> Result<()> {
    const OP: &str = "panel forward";
    let count = panels(OP, x.len(), x_rows, weight.inputs)?;
    let bias_len = bias.map_or(weight.outputs, <[f32]>::len);
    if panels(OP, out.len(), out_rows, weight.outputs)? != count || bias_len != weight.outputs {
        return Err(shape_error(OP, format!("{count} panels, a bias of {}", weight.outputs), (out.len(), bias_len)));
    }
    let job = Product {
        isa: Isa::best(),
        a: weight.data,
        strides: (weight.inputs, 1),
        depth: weight.inputs,
        x,
        x_rows,
        to: Target { out: Out::new(out), rows: out_rows, panels: count, bias, relu, add: false },
    };
    let band = band(job.isa, weight.outputs, weight.inputs, count);
    run(par, weight.outputs.div_ceil(band), |t| job.rows(t * band, ((t + 1) * band).min(weight.outputs)));
    Ok(())
}

/// `out = weight[:, ..columns]^T * g`, or added to what is there with `add`. Of each panel of `g` (`g_rows` rows) the first
/// `outputs` rows are read, of `out` (`out_rows` rows) the first `columns` are written.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the sizes do not fit.
pub fn backward(
    weight: Weight<'_>,
    columns: usize,
    g: &[f32],
    g_rows: usize,
    out: &mut [f32],
    out_rows: usize,
    add: bool,
    par: Par,
) -> Result<()> {
    const OP: &str = "panel backward";
    let count = panels(OP, g.len(), g_rows, weight.outputs)?;
    if panels(OP, out.len(), out_rows, columns)? != count || columns > weight.inputs {
        return Err(shape_error(
            OP,
            format!("{count} panels, at most {} columns", weight.inputs),
            (out.len(), columns),
        ));
    }
    let job = Product {
        isa: Isa::best(),
        a: weight.data,
        strides: (1, weight.inputs),
        depth: weight.outputs,
        x: g,
        x_rows: g_rows,
        to: Target { out: Out::new(out), rows: out_rows, panels: count, bias: None, relu: false, add },
    };
    let band = band(job.isa, columns, weight.outputs, count);
    run(par, columns.div_ceil(band), |t| job.rows(t * band, ((t + 1) * band).min(columns)));
    Ok(())
}

/// The first `used` rows of panels `[panels, rows, 64]` the other way round: `[ceil(width / 64), samples, 64]`, where a sample's
/// row `r` lies in column `at + r`. `width` is the number of columns in all; those of the last block that are beyond it stay as
/// they are.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the sizes do not fit.
pub fn transpose(x: &[f32], rows: usize, used: usize, at: usize, width: usize, out: &mut [f32]) -> Result<()> {
    const OP: &str = "panel transpose";
    let count = panels(OP, x.len(), rows, used)?;
    let samples = count * PANEL;
    let fits = at.checked_add(used).is_some_and(|end| end <= width);
    if !fits || Some(out.len()) != width.div_ceil(PANEL).checked_mul(samples * PANEL) {
        return Err(shape_error(OP, format!("columns {at}.. of {width}, {samples} samples"), (used, out.len())));
    }
    cpu_panel::transpose(Isa::best(), x, rows, used, at, out);
    Ok(())
}

/// The moments of a weight, of its shape.
pub struct Moments<'a> {
    /// First moments.
    pub first: &'a mut [f32],
    /// Second moments.
    pub second: &'a mut [f32],
}

impl<'a> Moments<'a> {
    /// Steps of `weight`, and its length.
    pub(super) fn sink(self, op: &'static str, weight: &'a mut [f32], step: &AdamStep) -> Result<(Sink<'a>, usize)> {
        let Moments { first, second } = self;
        let len = weight.len();
        if first.len() != len || second.len() != len {
            return Err(shape_error(op, format!("{len} moments"), (first.len(), second.len())));
        }
        let (weight, first, second) = (Out::new(weight), Out::new(first), Out::new(second));
        Ok((Sink::Adam { weight, first, second, step: *step }, len))
    }
}

/// Moves `weight` `[outputs, inputs]` by a step of Adam along the gradient `g * x^T`, with `g` `[panels, g_rows, 64]` and `x`
/// transposed by [`transpose`] to `width = inputs`.
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
    x: &[f32],
    par: Par,
) -> Result<()> {
    let (sink, len) = moments.sink("panel update", weight, step)?;
    tiles("panel update", sink, len, dim, g, g_rows, x, par)
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
    x: &[f32],
    par: Par,
) -> Result<()> {
    let len = gradient.len();
    let sink = Sink::Write { gradient: Out::new(gradient) };
    tiles("panel gradient", sink, len, dim, g, g_rows, x, par)
}

fn tiles(
    op: &'static str,
    sink: Sink<'_>,
    len: usize,
    (outputs, inputs): (usize, usize),
    g: &[f32],
    g_rows: usize,
    x: &[f32],
    par: Par,
) -> Result<()> {
    let count = panels(op, g.len(), g_rows, outputs)?;
    let blocks = inputs.div_ceil(PANEL);
    let x_len = blocks.checked_mul(count * PANEL * PANEL);
    if outputs.checked_mul(inputs) != Some(len) || len == 0 || Some(x.len()) != x_len {
        return Err(shape_error(op, format!("[{outputs}, {inputs}], {count} panels"), (len, x.len())));
    }
    let job = Tiles { isa: Isa::best(), sink, inputs, g, g_rows, x, panels: count };
    let band = band(job.isa, outputs, inputs, count);
    run(par, outputs.div_ceil(band), |t| job.rows(t * band, ((t + 1) * band).min(outputs)));
    Ok(())
}

#[cfg(test)]
#[path = "panel_tests.rs"]
mod tests;
