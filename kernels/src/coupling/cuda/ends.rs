#![allow(unsafe_code)]
//! The ends of a training step.

use blemish_tensor::cuda::Buffer;

use super::{countable, line};
use crate::adam::cuda::Steps;
use crate::cuda::rows::{Half, HalfMut, Halves};
use crate::cuda::{CudaResult, FLOW, THREADS, check, grid};
use crate::error::shape_error;

/// What the end of a flow is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// CFlow-AD: a row's value is the log-likelihood under a standard normal over the number of channels, its loss
    /// `-ln(sigmoid(value))`.
    Likelihood,
    /// FastFlow: a row's value is the mean of its squares, its loss half their sum minus its log-determinant.
    Energy,
}

/// What [`output`] writes besides the values while a flow is trained.
#[derive(Debug)]
pub struct Training<'a> {
    /// The loss of each row.
    pub loss: &'a mut Buffer<f64>,
    /// The gradient of `z`.
    pub g: [HalfMut<'a>; 2],
    /// The gradient of each row's log-determinant.
    pub slope: &'a mut Buffer<f32>,
    /// How much a unit of the sum of the losses counts: for CFlow-AD one over rows and channels, for FastFlow over the images.
    pub share: f32,
}

/// Values `[rows]` of latents `z` with their log-determinants and, while training, losses and gradients.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) for a buffer without room; the device's.
pub fn output(
    loss: Loss,
    rows: usize,
    [c1, c2]: [usize; 2],
    z: [Half<'_>; 2],
    log_det: &Buffer<f32>,
    value: &mut Buffer<f32>,
    training: Option<Training<'_>>,
) -> CudaResult<()> {
    const OP: &str = "end of a flow";
    z[0].check(OP, rows, c1)?;
    z[1].check(OP, rows, c2)?;
    line(OP, rows, log_det.len())?;
    line(OP, rows, value.len())?;
    countable(OP, rows, c1 + c2)?;
    let cuda = value.cuda().clone();
    let launch = cuda.launch(FLOW, "flow_output")?.half(z[0]).half(z[1]).input(log_det).output(value);
    let (launch, share) = match training {
        None => (launch.null().null().int(0).null().int(0).null(), 0.0),
        Some(Training { loss, g: [g1, g2], slope, share }) => {
            g1.check(OP, rows, c1)?;
            g2.check(OP, rows, c2)?;
            line(OP, rows, loss.len())?;
            line(OP, rows, slope.len())?;
            (launch.output(loss).half_mut(g1).half_mut(g2).output(slope), share)
        }
    };
    let launch = launch.int(rows).int(c1).int(c2).int(usize::from(loss == Loss::Energy)).float(share);
    // SAFETY: every matrix has room for its rows at its pitch, every line for the rows; a warp for four rows.
    unsafe { launch.run((grid(rows, 32), 1), THREADS, 0) }?;
    Ok(())
}

/// Ends a step: the sum of the rows' losses over `count` is kept as that of the step, and the next one's turn begins.
///
/// # Errors
/// As [`output`].
pub fn next(steps: &mut Steps, loss: &Buffer<f64>, rows: usize, count: usize) -> CudaResult<()> {
    const OP: &str = "end of a step";
    line(OP, rows, loss.len())?;
    if rows == 0 || count == 0 || rows > i32::MAX as usize {
        return Err(shape_error(OP, "at least one row", (rows, count)).into());
    }
    let cuda = loss.cuda().clone();
    let capacity = steps.capacity();
    let (turn, losses) = steps.ending();
    let launch = cuda.launch(FLOW, "flow_next")?.input(loss).output(turn).output(losses);
    let launch = launch.int(rows).int(count).int(capacity);
    // SAFETY: `rows` losses; the turn stays below the capacity, which the losses of steps have; one block of 256 threads, with a
    // number of shared memory for each.
    unsafe { launch.run((1, 1), THREADS, 2048) }?;
    Ok(())
}

/// The `n` samples of the next step: of `fibres`, rows of `features` `[m, c]`, those from `each` times the step on; their channels go
/// to `x`, and `codes` `[positions, k]` of the position `fibre % positions` to `condition` `[n, k]`. What is not there becomes NaN.
///
/// # Errors
/// As [`output`].
#[expect(clippy::too_many_arguments, reason = "operands of one kernel")]
pub fn gather(
    steps: &Steps,
    each: usize,
    n: usize,
    fibres: &Buffer<u32>,
    features: &Buffer<f32>,
    codes: &Buffer<f32>,
    [c1, c2, k]: [usize; 3],
    x: [HalfMut<'_>; 2],
    condition: HalfMut<'_>,
) -> CudaResult<()> {
    const OP: &str = "samples of a step";
    let (m, positions) = (features.len() / (c1 + c2).max(1), codes.len() / k.max(1));
    x[0].check(OP, n, c1)?;
    x[1].check(OP, n, c2)?;
    condition.check(OP, n, k)?;
    check(OP, &[m, c1 + c2], features.len())?;
    check(OP, &[positions, k], codes.len())?;
    let values = countable(OP, n, c1 + c2 + k)?;
    if positions == 0 || fibres.len() > i32::MAX as usize {
        return Err(
            shape_error(OP, "codes of at least one position, below 2^31 fibres", (positions, fibres.len())).into()
        );
    }
    let cuda = features.cuda().clone();
    let [x1, x2] = x;
    let launch = cuda.launch(FLOW, "flow_gather")?.input(steps.turn()).input(fibres).input(features).input(codes);
    let launch = launch.half_mut(x1).half_mut(x2).half_mut(condition).int(fibres.len()).int(m).int(each).int(n);
    let launch = launch.int(positions).int(c1).int(c2).int(k);
    // SAFETY: one thread for each number written; fibres beyond their list or the features are not read.
    unsafe { launch.run((grid(values, THREADS as usize), 1), THREADS, 0) }?;
    Ok(())
}
