#![allow(unsafe_code)]
//! What of a block is a vector: global scale and offset, and the biases of its subnet.

use blemish_tensor::cuda::{Buffer, Cuda};

use super::{Mix, countable, line};
use crate::KernelError;
use crate::adam::cuda::{Moments, Steps};
use crate::cuda::rows::{Half, Halves};
use crate::cuda::{CudaResult, FLOW, THREADS, check, grid};
use crate::error::shape_error;

/// Parts that rows are summed in, at most, and rows of a part, at least.
const PARTS: usize = 64;
const ROWS: usize = 512;

/// The vectors of a block, `theta` and `offset` `[c]` and the biases of its subnet's two layers, with Adam's moments, their gradient
/// and what follows from them.
#[derive(Debug)]
pub struct Vectors {
    sizes: [usize; 3],
    /// One after the other: theta, offset, outer bias, inner bias.
    values: Buffer<f32>,
    moments: Moments,
    gradient: Buffer<f32>,
    scale: Buffer<f32>,
    log_scale: Buffer<f64>,
    offset: Buffer<f32>,
    outer: Buffer<f32>,
    inner: Buffer<f32>,
}

/// Working memory for the sums over rows of [`Vectors::sums`].
#[derive(Debug)]
pub struct Sums {
    sums: Buffer<f64>,
    add: bool,
}

impl Sums {
    /// For blocks of `channels` channels with `hidden` hidden ones.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for sizes that kernels cannot count; the device's.
    pub fn new(cuda: &Cuda, channels: usize, hidden: usize) -> CudaResult<Sums> {
        let width = hidden.saturating_add(channels.saturating_mul(3)).saturating_add(1);
        Ok(Sums { sums: cuda.scratch(countable("sums", PARTS, width)?)?, add: false })
    }

    /// Whether what comes next is added to what is there: sums over more rows than there is room for at a time. The first rows are
    /// then the most, and it is their number that [`Vectors::finish`] is told.
    pub fn adding(&mut self, add: bool) {
        self.add = add;
    }
}

/// Rows of a part and the number of parts: fixed by the rows alone.
fn parts(rows: usize) -> (usize, usize) {
    let part = rows.div_ceil(PARTS).max(ROWS);
    (part, rows.div_ceil(part))
}

impl Vectors {
    /// Vectors with moments of zero; the biases are padded with zeros to the lengths `wide`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if `theta` and `offset` differ in length, for less than 2 channels, an inner bias that is not `2 (c / 2)`
    /// long, or a `wide` below the length; the device's.
    pub fn new(
        cuda: &Cuda,
        theta: &[f32],
        offset: &[f32],
        outer_bias: &[f32],
        inner_bias: &[f32],
        wide: [usize; 2],
    ) -> CudaResult<Vectors> {
        let (c, h, a) = (theta.len(), outer_bias.len(), inner_bias.len());
        if c < 2 || offset.len() != c || h == 0 || a != c / 2 * 2 || wide[0] < h || wide[1] < a {
            let got = (c, offset.len(), h, a, wide);
            return Err(shape_error("vectors", "scale and offset of 2 channels or more, and the biases", got).into());
        }
        let values = [theta, offset, outer_bias, inner_bias].concat();
        let padded = |bias: &[f32], len: usize| -> CudaResult<Buffer<f32>> {
            let mut bias = bias.to_vec();
            bias.resize(len, 0.0);
            Ok(cuda.upload(&bias)?)
        };
        let mut vectors = Vectors {
            sizes: [c, h, a],
            moments: Moments::new(cuda, values.len())?,
            gradient: cuda.zeros(values.len())?,
            scale: cuda.scratch(c)?,
            log_scale: cuda.scratch(1)?,
            offset: cuda.upload(offset)?,
            outer: padded(outer_bias, wide[0])?,
            inner: padded(inner_bias, wide[1])?,
            values: cuda.upload(&values)?,
        };
        vectors.rescale()?;
        Ok(vectors)
    }

    /// The bias of the subnet's first layer.
    pub fn outer_bias(&self) -> &Buffer<f32> {
        &self.outer
    }

    /// The bias of the subnet's second layer.
    pub fn inner_bias(&self) -> &Buffer<f32> {
        &self.inner
    }

    /// The factor of each channel, `0.1 softplus(theta)`.
    pub fn scale(&self) -> &Buffer<f32> {
        &self.scale
    }

    pub(super) fn offset(&self) -> &Buffer<f32> {
        &self.offset
    }

    /// The sum of the scales' logarithms.
    pub fn log_scale(&self) -> &Buffer<f64> {
        &self.log_scale
    }

    /// Theta, offset, outer bias and inner bias as they are now.
    ///
    /// # Errors
    /// The device's.
    pub fn values(&self) -> CudaResult<[Vec<f32>; 4]> {
        Ok(self.split(&self.values.read()?))
    }

    /// Their gradients as [`finish`](Self::finish) found them.
    ///
    /// # Errors
    /// The device's.
    pub fn gradients(&self) -> CudaResult<[Vec<f32>; 4]> {
        Ok(self.split(&self.gradient.read()?))
    }

    /// Adam's first and second moments of each.
    ///
    /// # Errors
    /// The device's.
    pub fn moments(&self) -> CudaResult<[[Vec<f32>; 4]; 2]> {
        Ok([self.split(&self.moments.first.read()?), self.split(&self.moments.second.read()?)])
    }

    /// Puts moments in place of its own.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for other lengths; the device's.
    pub fn set_moments(&mut self, first: [&[f32]; 4], second: [&[f32]; 4]) -> CudaResult<()> {
        let [c, h, a] = self.sizes;
        for parts in [first, second] {
            for (part, len) in parts.iter().zip([c, c, h, a]) {
                check("moments", &[len], part.len())?;
            }
        }
        self.moments.first.write_at(0, &first.concat())?;
        Ok(self.moments.second.write_at(0, &second.concat())?)
    }

    fn split(&self, all: &[f32]) -> [Vec<f32>; 4] {
        let [c, h, _] = self.sizes;
        let part = |from: usize, to: usize| all.get(from..to).unwrap_or_default().to_vec();
        [part(0, c), part(c, 2 * c), part(2 * c, 2 * c + h), part(2 * c + h, all.len())]
    }

    /// Whether it is a block of these channels.
    pub(super) fn check(&self, op: &'static str, mix: &Mix) -> Result<(), KernelError> {
        let [c, ..] = self.sizes;
        if mix.channels() == c { Ok(()) } else { Err(shape_error(op, format!("{c} channels"), mix.channels())) }
    }

    /// Adds up what the gradients are made of over the rows: `ga` `[rows, 2 c2]` and `gh` `[rows, h]`, the gradients of the outputs of
    /// the subnet's two layers, `g` and `z`, the block's output and its gradient, and `slope`, the gradient of each row's log-determinant.
    /// In fixed parts, so that nothing depends on the GPU.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a buffer without room; the device's.
    #[expect(clippy::too_many_arguments, reason = "operands of one kernel")]
    pub fn sums(
        &self,
        rows: usize,
        ga: Half<'_>,
        gh: Half<'_>,
        g: [Half<'_>; 2],
        z: [Half<'_>; 2],
        slope: &Buffer<f32>,
        work: &mut Sums,
    ) -> CudaResult<()> {
        const OP: &str = "gradients of vectors";
        let [c, h, a] = self.sizes;
        let (c1, c2) = (c - c / 2, c / 2);
        ga.check(OP, rows, a)?;
        gh.check(OP, rows, h)?;
        for side in [&g, &z] {
            side[0].check(OP, rows, c1)?;
            side[1].check(OP, rows, c2)?;
        }
        line(OP, rows, slope.len())?;
        let (part, parts) = parts(rows);
        let columns = a + h + c + 1;
        self.room(work, parts)?;
        let cuda = self.values.cuda().clone();
        let launch = cuda.launch(FLOW, "flow_sums")?.half(ga).half(gh).half(g[0]).half(g[1]).half(z[0]).half(z[1]);
        let launch = launch.input(slope).output(&mut work.sums).int(rows).int(part).int(c1).int(c2).int(h);
        let launch = launch.int(usize::from(work.add));
        // SAFETY: every matrix has room for its rows at its pitch; there are columns + c sums for each part.
        unsafe { launch.run((grid(columns, 32), parts as u32), THREADS, 4096) }?;
        Ok(())
    }

    /// From the sums over `rows` rows to the gradients and, with steps, Adam's next step on the vectors.
    ///
    /// # Errors
    /// As [`sums`](Self::sums).
    pub fn finish(&mut self, rows: usize, work: &Sums, mix: &Mix, steps: Option<&Steps>) -> CudaResult<()> {
        const OP: &str = "gradients of vectors";
        let [c, h, a] = self.sizes;
        self.check(OP, mix)?;
        let (_, parts) = parts(rows);
        if parts == 0 {
            return Err(shape_error(OP, "at least one row", rows).into());
        }
        self.room(work, parts)?;
        let cuda = self.values.cuda().clone();
        let launch = cuda.launch(FLOW, "flow_vectors")?;
        let launch = match steps {
            Some(steps) => launch.input(steps.numbers()).input(steps.turn()),
            None => launch.null().null(),
        };
        let launch = launch.input(&work.sums).input(&mix.inverse).input(&self.scale).output(&mut self.values);
        let launch = launch.output(&mut self.moments.first).output(&mut self.moments.second).output(&mut self.gradient);
        let launch = launch.output(&mut self.offset).output(&mut self.outer).output(&mut self.inner);
        let launch = launch.int(parts).int(c - c / 2).int(c / 2).int(h);
        // SAFETY: one thread for each channel and each value of the biases; all vectors have their sizes, checked as they were
        // made; there are sums for each part.
        unsafe { launch.run((grid(c + h + a, THREADS as usize), 1), THREADS, 0) }?;
        if steps.is_some() { self.rescale() } else { Ok(()) }
    }

    /// New scales from theta.
    fn rescale(&mut self) -> CudaResult<()> {
        let cuda = self.values.cuda().clone();
        let launch = cuda.launch(FLOW, "flow_scale")?.input(&self.values).output(&mut self.scale);
        let launch = launch.output(&mut self.log_scale).int(self.sizes[0]);
        // SAFETY: theta is the first c of the values; one block of 256 threads, with a number of shared memory for each.
        unsafe { launch.run((1, 1), THREADS, 2048) }?;
        Ok(())
    }

    fn room(&self, work: &Sums, parts: usize) -> Result<(), KernelError> {
        let [c, h, a] = self.sizes;
        let needed = parts * (a + h + 2 * c + 1);
        if needed <= work.sums.len() {
            return Ok(());
        }
        Err(shape_error("gradients of vectors", format!("working memory of {needed} sums"), work.sums.len()))
    }
}
