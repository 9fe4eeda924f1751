use super::reduce::{logsumexp_row, softmax_row};
use super::value;
use crate::{Result, Tape, Var, error::shape_error};

/// Mean squared difference, a scalar.
///
/// # Errors
/// Different or empty shapes.
pub fn mse_loss(tape: &mut Tape, x: &Var, y: &Var) -> Result<Var> {
    difference("mse_loss", tape, x, y, |d| d * d, |d| 2.0 * d)
}

/// Mean absolute difference, a scalar; slope 0 where the two are equal.
///
/// # Errors
/// Different or empty shapes.
pub fn l1_loss(tape: &mut Tape, x: &Var, y: &Var) -> Result<Var> {
    difference("l1_loss", tape, x, y, f32::abs, |d| if d == 0.0 { 0.0 } else { d.signum() })
}

/// Mean Huber loss with threshold 1, a scalar: `d^2 / 2` below, `|d| - 1/2` above.
///
/// # Errors
/// Different or empty shapes.
pub fn smooth_l1_loss(tape: &mut Tape, x: &Var, y: &Var) -> Result<Var> {
    let loss = |d: f32| if d.abs() < 1.0 { 0.5 * d * d } else { d.abs() - 0.5 };
    difference("smooth_l1_loss", tape, x, y, loss, |d| d.clamp(-1.0, 1.0))
}

fn difference(
    op: &'static str,
    tape: &mut Tape,
    x: &Var,
    y: &Var,
    loss: impl Fn(f32) -> f32,
    slope: impl Fn(f32) -> f32,
) -> Result<Var> {
    let n = x.data().len();
    if x.shape() != y.shape() || n == 0 {
        return Err(shape_error(op, format!("{:?}, not empty", x.shape()), y.shape()));
    }
    let differences = || x.data().iter().zip(y.data()).map(|(x, y)| x - y);
    let total: f64 = differences().map(|d| f64::from(loss(d))).sum();
    let slopes: Vec<f32> = differences().map(|d| slope(d) / n as f32).collect();
    let (x_node, y_node) = (x.node(), y.node());
    Ok(tape.push(value(op, &[], vec![(total / n as f64) as f32])?, &[x, y], move |g, grads| {
        if y_node.is_some() {
            grads.add(y_node, slopes.iter().map(|s| -g[0] * s).collect())?;
        }
        grads.add(x_node, slopes.iter().map(|s| g[0] * s).collect())
    }))
}

/// Binary cross-entropy of probabilities `x` against `target` in 0..1, a scalar mean. As PyTorch: logarithms are not below
/// -100, and the divisor of the gradient is not below 1e-12.
///
/// # Errors
/// Different or empty shapes.
pub fn bce_loss(tape: &mut Tape, x: &Var, target: &[f32]) -> Result<Var> {
    let n = x.data().len();
    if n != target.len() || n == 0 {
        return Err(shape_error("bce_loss", format!("{n} targets, at least one"), target.len()));
    }
    let pairs = x.data().iter().zip(target);
    let total: f64 =
        pairs.map(|(x, t)| f64::from(-(t * x.ln().max(-100.0) + (1.0 - t) * (1.0 - x).ln().max(-100.0)))).sum();
    let (saved, target) = (x.clone(), target.to_vec());
    Ok(tape.push(value("bce_loss", &[], vec![(total / n as f64) as f32])?, &[x], move |g, grads| {
        let slope = |(x, t): (&f32, &f32)| g[0] * (x - t) / (x * (1.0 - x)).max(1e-12) / n as f32;
        grads.add(saved.node(), saved.data().iter().zip(&target).map(slope).collect())
    }))
}

/// Softmax cross-entropy of logits `[n, classes]` against class numbers, a scalar mean.
///
/// # Errors
/// Shapes that do not fit, or a class beyond the logits.
pub fn cross_entropy(tape: &mut Tape, x: &Var, target: &[usize]) -> Result<Var> {
    let (&[n, classes], true) = (x.shape(), !target.is_empty()) else {
        return Err(shape_error("cross_entropy", "[n, classes], at least one", x.shape()));
    };
    if target.len() != n || target.iter().any(|t| *t >= classes) {
        return Err(shape_error("cross_entropy", format!("{n} classes below {classes}"), target));
    }
    let rows = || x.data().chunks_exact(classes).zip(target);
    let total: f64 = rows().map(|(row, t)| f64::from(logsumexp_row(row) - row[*t])).sum();
    let (saved, target) = (x.clone(), target.to_vec());
    Ok(tape.push(value("cross_entropy", &[], vec![(total / n as f64) as f32])?, &[x], move |g, grads| {
        let mut back = Vec::with_capacity(n * classes);
        for (row, t) in saved.data().chunks_exact(classes).zip(&target) {
            let mut p = softmax_row(row);
            p[*t] -= 1.0;
            back.extend(p.iter().map(|p| g[0] * p / n as f32));
        }
        grads.add(saved.node(), back)
    }))
}
