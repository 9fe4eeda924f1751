#![allow(unsafe_code)]
//! Blocks of flows on a GPU, in rows: samples, or the pixels of images. They agree with the CPU within rounding.
//!
//! | item | what it is |
//! |---|---|
//! | [`forward`], [`backward`] | coupling, global affine and permutation of a block, and their gradients |
//! | [`Vectors`] | a block's parameters that are vectors: their gradients and Adam's step |
//! | [`gather`], [`output`], [`next`] | the ends of a training step: samples in, likelihood and loss out |
//!
//! Of `c` channels the first `c - c / 2` and the others lie in two matrices, each with a pitch ([`Half`](crate::cuda::rows::Half)).

mod ends;
mod vectors;

pub use ends::{Loss, Training, gather, next, output};
pub use vectors::{Sums, Vectors};

use blemish_tensor::cuda::{Buffer, Cuda};

use crate::KernelError;
use crate::cuda::rows::{Half, HalfMut, Halves};
use crate::cuda::{COUPLING, CudaResult, THREADS, grid};
use crate::error::shape_error;

/// Bytes of shared memory that every block of threads has.
const SHARED: usize = 48 << 10;

/// How a block permutes its channels: channel `i` of the result is channel `order[i]`.
#[derive(Debug)]
pub struct Mix {
    order: Buffer<u32>,
    inverse: Buffer<u32>,
}

impl Mix {
    /// # Errors
    /// [`KernelError::Parameter`] if `order` is no permutation of 2 channels or more; the device's.
    pub fn new(cuda: &Cuda, order: &[u32]) -> CudaResult<Mix> {
        let mut inverse = vec![u32::MAX; order.len()];
        for (to, from) in (0u32..).zip(order) {
            match inverse.get_mut(*from as usize) {
                Some(place) if *place == u32::MAX => *place = to,
                _ => {
                    let what = format!("channel {from} of {} is there twice, or not at all", order.len());
                    return Err(KernelError::Parameter { op: "mix", what }.into());
                }
            }
        }
        if order.len() < 2 || order.len() > i32::MAX as usize {
            return Err(shape_error("mix", "2 channels or more", order.len()).into());
        }
        Ok(Mix { order: cuda.upload(order)?, inverse: cuda.upload(&inverse)? })
    }

    /// How many channels.
    pub fn channels(&self) -> usize {
        self.order.len()
    }

    /// Channels of the two halves.
    fn halves(&self) -> [usize; 2] {
        let c = self.channels();
        [c - c / 2, c / 2]
    }
}

/// `log_det` of rows.
fn line(op: &'static str, rows: usize, len: usize) -> Result<(), KernelError> {
    if rows <= len { Ok(()) } else { Err(shape_error(op, format!("{rows} rows"), len)) }
}

/// Numbers of `[rows, width]`, if kernels can count them.
fn countable(op: &'static str, rows: usize, width: usize) -> Result<usize, KernelError> {
    let product = rows.checked_mul(width).filter(|n| *n <= i32::MAX as usize);
    product.ok_or_else(|| shape_error(op, "below 2^31 numbers", (rows, width)))
}

/// A block behind its subnet: with `a` `[rows, 2 c2]`, the subnet's output, `s = clamp tanh(0.1 a1)` into `s` `[rows, c2]`,
/// `y = [x1; x2 e^s + 0.1 a2]`, and `z = mix(y scale + offset)`. `log_det` `[rows]` becomes the row's sum of `s` and of the logarithms
/// of the scales or, with `add`, grows by it.
///
/// # Errors
/// [`KernelError::Shape`] for a buffer without room; the device's.
#[expect(clippy::too_many_arguments, reason = "operands of one kernel")]
pub fn forward(
    clamp: f32,
    rows: usize,
    a: Half<'_>,
    x: [Half<'_>; 2],
    vectors: &Vectors,
    mix: &Mix,
    z: [HalfMut<'_>; 2],
    s: &mut Buffer<f32>,
    log_det: &mut Buffer<f32>,
    add: bool,
) -> CudaResult<()> {
    const OP: &str = "coupling";
    let [c1, c2] = mix.halves();
    a.check(OP, rows, 2 * c2)?;
    x[0].check(OP, rows, c1)?;
    x[1].check(OP, rows, c2)?;
    z[0].check(OP, rows, c1)?;
    z[1].check(OP, rows, c2)?;
    Half { buffer: s, pitch: c2 }.check(OP, rows, c2)?;
    line(OP, rows, log_det.len())?;
    vectors.check(OP, mix)?;
    countable(OP, rows, c1 + c2)?;
    let warps = (SHARED / (4 * c2)).min(8);
    if warps == 0 {
        return Err(shape_error(OP, format!("at most {} channels", SHARED / 2), c1 + c2).into());
    }
    let cuda = s.cuda().clone();
    let [x1, x2] = x;
    let [z1, z2] = z;
    let launch = cuda.launch(COUPLING, "coupling_forward")?.half(a).half(x1).half(x2).input(&mix.order);
    let launch = launch.input(vectors.scale()).input(vectors.offset()).input(vectors.log_scale());
    let launch = launch.half_mut(z1).half_mut(z2).output(s).output(log_det);
    let launch = launch.int(rows).int(c1).int(c2).float(clamp).int(usize::from(add));
    // SAFETY: every matrix has room for its rows at its pitch; a warp for each row, with c2 numbers of shared memory; `order` is
    // a permutation of the c channels that `scale` and `offset` have.
    unsafe { launch.run((grid(rows, warps), 1), 32 * warps as u32, (4 * warps * c2) as u32) }?;
    Ok(())
}

/// Back through [`forward`]: from the gradient `g` of `z` and `slope`, that of each row's `log_det`, to `ga`, that of `a`, and `gx`,
/// those of `x` but for what comes through the subnet.
///
/// # Errors
/// As [`forward`].
#[expect(clippy::too_many_arguments, reason = "operands of one kernel")]
pub fn backward(
    clamp: f32,
    rows: usize,
    g: [Half<'_>; 2],
    vectors: &Vectors,
    mix: &Mix,
    x2: Half<'_>,
    s: &Buffer<f32>,
    slope: &Buffer<f32>,
    gx: [HalfMut<'_>; 2],
    ga: HalfMut<'_>,
) -> CudaResult<()> {
    const OP: &str = "gradient of a coupling";
    let [c1, c2] = mix.halves();
    g[0].check(OP, rows, c1)?;
    g[1].check(OP, rows, c2)?;
    x2.check(OP, rows, c2)?;
    Half { buffer: s, pitch: c2 }.check(OP, rows, c2)?;
    gx[0].check(OP, rows, c1)?;
    gx[1].check(OP, rows, c2)?;
    ga.check(OP, rows, 2 * c2)?;
    line(OP, rows, slope.len())?;
    vectors.check(OP, mix)?;
    let values = countable(OP, rows, c1 + c2)?;
    let cuda = s.cuda().clone();
    let [g1, g2] = g;
    let [gx1, gx2] = gx;
    let launch = cuda.launch(COUPLING, "coupling_backward")?.half(g1).half(g2).input(&mix.inverse);
    let launch = launch.input(vectors.scale()).half(x2).input(s).input(slope).half_mut(gx1).half_mut(gx2).half_mut(ga);
    let launch = launch.int(rows).int(c1).int(c2).float(clamp);
    // SAFETY: every matrix has room for its rows at its pitch; one thread for each of the rows c numbers; `inverse` is a
    // permutation of the c channels.
    unsafe { launch.run((grid(values, THREADS as usize), 1), THREADS, 0) }?;
    Ok(())
}
