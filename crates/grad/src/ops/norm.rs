use super::linear::column_sums;
use super::value;
use crate::{Result, Tape, Var, error::shape_error};

/// Running mean and variance of a batch norm, `[c]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchStatistics {
    /// Running mean.
    pub mean: Vec<f32>,
    /// Running variance (unbiased).
    pub var: Vec<f32>,
    /// Share of the new batch at each update.
    pub momentum: f32,
    /// Added to the variance.
    pub eps: f32,
}

impl BatchStatistics {
    /// Mean 0, variance 1, momentum 0.1, eps 1e-5.
    pub fn new(channels: usize) -> Self {
        BatchStatistics { mean: vec![0.0; channels], var: vec![1.0; channels], momentum: 0.1, eps: 1e-5 }
    }
}

/// Batch normalisation over all axes but the last (Ioffe and Szegedy, ICML 2015): with the batch's own statistics, which
/// update the running ones, if `train`; with the running ones otherwise.
///
/// # Errors
/// Shapes that do not fit, or a single value a channel in training.
pub fn batch_norm(
    tape: &mut Tape,
    x: &Var,
    weight: &Var,
    bias: &Var,
    statistics: &mut BatchStatistics,
    train: bool,
) -> Result<Var> {
    const OP: &str = "batch_norm";
    let c = x.shape().last().copied().unwrap_or(0);
    let fits = weight.shape() == [c] && bias.shape() == [c] && statistics.mean.len() == c && statistics.var.len() == c;
    if c == 0 || !fits {
        return Err(shape_error(OP, "[.., c], [c], [c], [c]", (x.shape(), weight.shape(), bias.shape())));
    }
    let rows = x.data().len() / c;
    if train && rows < 2 {
        return Err(shape_error(OP, "more than one value a channel in training", x.shape()));
    }
    let (mean, var) = if train {
        let (mean, var) = moments(x.data(), c);
        let keep = 1.0 - f64::from(statistics.momentum);
        let unbiased = rows as f64 / (rows as f64 - 1.0);
        for i in 0..c {
            let new = f64::from(statistics.momentum);
            statistics.mean[i] = (keep * f64::from(statistics.mean[i]) + new * mean[i]) as f32;
            statistics.var[i] = (keep * f64::from(statistics.var[i]) + new * var[i] * unbiased) as f32;
        }
        (mean, var)
    } else {
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect();
        (wide(&statistics.mean), wide(&statistics.var))
    };
    let eps = f64::from(statistics.eps);
    let inverse: Vec<f32> = var.iter().map(|v| (1.0 / (v + eps).sqrt()) as f32).collect();
    let mean: Vec<f32> = mean.iter().map(|m| *m as f32).collect();
    let mut normal = x.data().to_vec();
    for row in normal.chunks_exact_mut(c) {
        for i in 0..c {
            row[i] = (row[i] - mean[i]) * inverse[i];
        }
    }
    let rescaled = normal.chunks_exact(c).flat_map(|row| row.iter().zip(weight.data()).zip(bias.data()));
    let out = value(OP, x.shape(), rescaled.map(|((n, w), b)| n * w + b).collect())?;
    let (x_node, bias_node, saved) = (x.node(), bias.node(), weight.clone());
    Ok(tape.push(out, &[x, weight, bias], move |g, grads| {
        let products: Vec<f32> = g.iter().zip(&normal).map(|(g, n)| g * n).collect();
        let (dw, db) = (column_sums(&products, c), column_sums(g, c));
        if x_node.is_some() {
            let mut dx = g.to_vec();
            for (row, normal) in dx.chunks_exact_mut(c).zip(normal.chunks_exact(c)) {
                for i in 0..c {
                    let centred = if train { row[i] - (db[i] + normal[i] * dw[i]) / rows as f32 } else { row[i] };
                    row[i] = centred * inverse[i] * saved.data()[i];
                }
            }
            grads.add(x_node, dx)?;
        }
        grads.add(saved.node(), dw)?;
        grads.add(bias_node, db)
    }))
}

/// Means and biased variances of the columns, two passes in f64.
fn moments(x: &[f32], c: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = (x.len() / c) as f64;
    let (mut mean, mut var) = (vec![0.0; c], vec![0.0; c]);
    for row in x.chunks_exact(c) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v));
    }
    mean.iter_mut().for_each(|m| *m /= rows);
    for row in x.chunks_exact(c) {
        var.iter_mut().zip(row).zip(&mean).for_each(|((s, v), m)| *s += (f64::from(*v) - m).powi(2));
    }
    var.iter_mut().for_each(|s| *s /= rows);
    (mean, var)
}

/// Layer normalisation (Ba et al., 2016) of each sample over all axes but the first; weight and bias have the shape of a
/// sample.
///
/// # Errors
/// Shapes that do not fit.
pub fn layer_norm(tape: &mut Tape, x: &Var, weight: &Var, bias: &Var, eps: f32) -> Result<Var> {
    const OP: &str = "layer_norm";
    let sample = x.shape().get(1..).unwrap_or(&[]);
    let d: usize = sample.iter().product();
    if sample.is_empty() || d == 0 || weight.shape() != sample || bias.shape() != sample {
        return Err(shape_error(OP, "[n, ..], [..], [..]", (x.shape(), weight.shape(), bias.shape())));
    }
    let mut inverse = Vec::with_capacity(x.shape()[0]);
    let mut normal = x.data().to_vec();
    for row in normal.chunks_exact_mut(d) {
        let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / d as f64;
        let var = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / d as f64;
        let scale = 1.0 / (var + f64::from(eps)).sqrt();
        row.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * scale) as f32);
        inverse.push(scale as f32);
    }
    let rescaled = normal.chunks_exact(d).flat_map(|row| row.iter().zip(weight.data()).zip(bias.data()));
    let out = value(OP, x.shape(), rescaled.map(|((n, w), b)| n * w + b).collect())?;
    let (x_node, bias_node, saved) = (x.node(), bias.node(), weight.clone());
    Ok(tape.push(out, &[x, weight, bias], move |g, grads| {
        let products: Vec<f32> = g.iter().zip(&normal).map(|(g, n)| g * n).collect();
        grads.add(saved.node(), column_sums(&products, d))?;
        grads.add(bias_node, column_sums(g, d))?;
        if x_node.is_some() {
            let mut dx = g.to_vec();
            for ((row, normal), inverse) in dx.chunks_exact_mut(d).zip(normal.chunks_exact(d)).zip(&inverse) {
                row.iter_mut().zip(saved.data()).for_each(|(g, w)| *g *= w);
                let mean = row.iter().map(|g| f64::from(*g)).sum::<f64>() / d as f64;
                let dot = row.iter().zip(normal).map(|(g, n)| f64::from(g * n)).sum::<f64>() / d as f64;
                let (mean, dot) = (mean as f32, dot as f32);
                row.iter_mut().zip(normal).for_each(|(g, n)| *g = (*g - mean - n * dot) * inverse);
            }
            grads.add(x_node, dx)?;
        }
        Ok(())
    }))
}
