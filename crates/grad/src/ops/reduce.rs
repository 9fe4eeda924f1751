use super::value;
use crate::{Result, Tape, Var, error::shape_error};

/// The sum of all values, a scalar of shape `[]`; added up in f64.
///
/// # Errors
/// None in practice.
pub fn sum(tape: &mut Tape, x: &Var) -> Result<Var> {
    weighted(tape, x, 1.0)
}

/// The mean of all values, a scalar of shape `[]`; added up in f64.
///
/// # Errors
/// An empty input.
pub fn mean(tape: &mut Tape, x: &Var) -> Result<Var> {
    if x.data().is_empty() {
        return Err(shape_error("mean", "at least one value", x.shape()));
    }
    weighted(tape, x, 1.0 / x.data().len() as f64)
}

fn weighted(tape: &mut Tape, x: &Var, factor: f64) -> Result<Var> {
    let total = x.data().iter().map(|v| f64::from(*v)).sum::<f64>() * factor;
    let (node, len) = (x.node(), x.data().len());
    let out = value("sum", &[], vec![total as f32])?;
    Ok(tape.push(out, &[x], move |g, grads| grads.add(node, vec![g[0] * factor as f32; len])))
}

/// Sums everything but the first axis: `[n, ..]` to `[n]`.
///
/// # Errors
/// An input without axes.
pub fn sum_rows(tape: &mut Tape, x: &Var) -> Result<Var> {
    let Some(&n) = x.shape().first() else { return Err(shape_error("sum_rows", "at least one axis", x.shape())) };
    let width = x.data().len() / n.max(1);
    let total = |row: &[f32]| row.iter().map(|v| f64::from(*v)).sum::<f64>() as f32;
    let out = value("sum_rows", &[n], x.data().chunks(width.max(1)).take(n).map(total).collect())?;
    let node = x.node();
    Ok(tape.push(out, &[x], move |g, grads| {
        grads.add(node, g.iter().flat_map(|g| std::iter::repeat_n(*g, width)).collect())
    }))
}

/// Softmax over the last axis.
///
/// # Errors
/// An empty last axis.
pub fn softmax(tape: &mut Tape, x: &Var) -> Result<Var> {
    let last = last_axis("softmax", x)?;
    let out: Vec<f32> = x.data().chunks_exact(last).flat_map(softmax_row).collect();
    let out = value("softmax", x.shape(), out)?;
    let (node, y) = (x.node(), out.clone());
    Ok(tape.push(out, &[x], move |g, grads| {
        let y = y.as_slice().unwrap_or(&[]);
        let rows = g.chunks_exact(last).zip(y.chunks_exact(last));
        let back = rows.flat_map(|(g, y)| {
            let dot: f32 = g.iter().zip(y).map(|(g, y)| g * y).sum();
            g.iter().zip(y).map(move |(g, y)| y * (g - dot))
        });
        grads.add(node, back.collect())
    }))
}

/// `ln(sum(e^x))` over the last axis, which disappears.
///
/// # Errors
/// An empty last axis.
pub fn logsumexp(tape: &mut Tape, x: &Var) -> Result<Var> {
    let last = last_axis("logsumexp", x)?;
    let shape = &x.shape()[..x.shape().len() - 1];
    let out = value("logsumexp", shape, x.data().chunks_exact(last).map(logsumexp_row).collect())?;
    let saved = x.clone();
    Ok(tape.push(out, &[x], move |g, grads| {
        let rows = saved.data().chunks_exact(last).zip(g);
        let back = rows.flat_map(|(x, g)| softmax_row(x).into_iter().map(move |p| p * g)).collect();
        grads.add(saved.node(), back)
    }))
}

fn last_axis(op: &'static str, x: &Var) -> Result<usize> {
    x.shape().last().copied().filter(|n| *n > 0).ok_or_else(|| shape_error(op, "a last axis with values", x.shape()))
}

/// Stable softmax of one row.
pub(super) fn softmax_row(row: &[f32]) -> Vec<f32> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f32> = row.iter().map(|v| (v - max).exp()).collect();
    let sum: f32 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

/// Stable logarithm of the sum of exponentials of one row.
pub(super) fn logsumexp_row(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max + row.iter().map(|v| (v - max).exp()).sum::<f32>().ln()
}
