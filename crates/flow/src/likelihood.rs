use blemish_grad::ops::{self, Unary};
use blemish_grad::{Tape, Var};

use crate::Result;

/// Half the logarithm of two pi, as CFlow-AD's code rounds it.
pub(crate) const HALF_LOG_TWO_PI: f32 = 0.918_938_5;

/// The log-likelihood of each row of `z` `[rows, c]` under a standard normal, plus its log-determinant `[rows]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn log_likelihood(tape: &mut Tape, z: &Var, log_det: &Var) -> Result<Var> {
    let c = z.shape().last().copied().unwrap_or(0) as f32;
    let squares = ops::unary(tape, z, Unary::Square)?;
    let squares = ops::sum_rows(tape, &squares)?;
    let density = ops::affine(tape, &squares, -0.5, -c * HALF_LOG_TWO_PI)?;
    Ok(ops::add(tape, &density, log_det)?)
}

/// CFlow-AD's loss: the mean of `-ln(sigmoid(log_likelihood / c))` (its code; equation 7 without the sigmoid).
///
/// # Errors
/// Shapes that do not fit.
pub fn log_likelihood_loss(tape: &mut Tape, z: &Var, log_det: &Var) -> Result<Var> {
    let c = z.shape().last().copied().unwrap_or(1) as f32;
    let likelihood = log_likelihood(tape, z, log_det)?;
    let scaled = ops::scale(tape, &likelihood, 1.0 / c)?;
    let log = ops::unary(tape, &scaled, Unary::LogSigmoid)?;
    let mean = ops::mean(tape, &log)?;
    Ok(ops::scale(tape, &mean, -1.0)?)
}
