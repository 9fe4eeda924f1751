use std::ops::Range;

use ndarray::{Axis, IxDyn};

use super::value;
use crate::{Result, Tape, Value, Var, error::shape_error};

/// The same values under another shape.
///
/// # Errors
/// Another number of values.
pub fn reshape(tape: &mut Tape, x: &Var, shape: &[usize]) -> Result<Var> {
    let out = x
        .value()
        .clone()
        .into_shape_with_order(IxDyn(shape))
        .map_err(|_| shape_error("reshape", format!("{shape:?}"), x.shape()))?;
    let node = x.node();
    Ok(tape.push(out, &[x], move |g, grads| grads.add(node, g.to_vec())))
}

/// Axes in another order: axis `i` of the result is axis `axes[i]` of `x`.
///
/// # Errors
/// `axes` that are no permutation.
pub fn permute(tape: &mut Tape, x: &Var, axes: &[usize]) -> Result<Var> {
    let mut inverse = vec![usize::MAX; axes.len()];
    for (i, &axis) in axes.iter().enumerate() {
        if let Some(place) = inverse.get_mut(axis) {
            *place = i;
        }
    }
    if axes.len() != x.shape().len() || inverse.contains(&usize::MAX) {
        return Err(shape_error("permute", format!("a permutation of {} axes", x.shape().len()), axes));
    }
    let out = x.value().clone().permuted_axes(IxDyn(axes));
    let (node, shape) = (x.node(), out.shape().to_vec());
    Ok(tape.push(out, &[x], move |g, grads| {
        let back: Value = value("permute", &shape, g.to_vec())?.permuted_axes(IxDyn(&inverse));
        grads.add(node, back.iter().copied().collect())
    }))
}

/// Joins along the last axis.
///
/// # Errors
/// No inputs, or other axes that differ.
pub fn concat(tape: &mut Tape, inputs: &[&Var]) -> Result<Var> {
    let widths: Vec<usize> = inputs.iter().map(|v| v.shape().last().copied().unwrap_or(0)).collect();
    let Some((first, lead)) = inputs.first().and_then(|v| Some((v, v.shape().split_last()?.1))) else {
        return Err(shape_error("concat", "inputs with at least one axis", inputs.len()));
    };
    if inputs.iter().any(|v| v.shape().split_last().is_none_or(|s| s.1 != lead)) {
        let shapes: Vec<_> = inputs.iter().map(|v| v.shape()).collect();
        return Err(shape_error("concat", "equal axes but the last", shapes));
    }
    let (rows, total) = (lead.iter().product::<usize>(), widths.iter().sum::<usize>());
    let mut out = Vec::with_capacity(rows * total);
    for row in 0..rows {
        for (input, width) in inputs.iter().zip(&widths) {
            out.extend_from_slice(&input.data()[row * width..][..*width]);
        }
    }
    let mut shape = first.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = total;
    }
    let nodes: Vec<_> = inputs.iter().map(|v| v.node()).collect();
    Ok(tape.push(value("concat", &shape, out)?, inputs, move |g, grads| {
        let mut at = 0;
        for (node, width) in nodes.iter().zip(&widths) {
            if node.is_some() {
                let part = (0..rows).flat_map(|row| &g[row * total + at..][..*width]).copied().collect();
                grads.add(*node, part)?;
            }
            at += width;
        }
        Ok(())
    }))
}

/// The entries `range` of the last axis.
///
/// # Errors
/// A range beyond the axis.
pub fn slice(tape: &mut Tape, x: &Var, range: Range<usize>) -> Result<Var> {
    let last = x.shape().last().copied().unwrap_or(0);
    if range.start > range.end || range.end > last {
        return Err(shape_error("slice", format!("{range:?} of the last axis"), x.shape()));
    }
    let out = x.value().slice_axis(Axis(x.shape().len() - 1), ndarray::Slice::from(range.clone())).to_owned();
    let (node, rows) = (x.node(), x.data().len() / last.max(1));
    Ok(tape.push(out, &[x], move |g, grads| {
        let mut back = vec![0.0; rows * last];
        for (to, from) in back.chunks_exact_mut(last.max(1)).zip(g.chunks_exact(range.len().max(1))) {
            to[range.clone()].copy_from_slice(from);
        }
        grads.add(node, back)
    }))
}

/// Channels of the last axis in another order: output channel `i` is input channel `channels[i]`. Each may be taken more
/// than once.
///
/// # Errors
/// A channel beyond the axis.
pub fn select_channels(tape: &mut Tape, x: &Var, channels: &[usize]) -> Result<Var> {
    let last = x.shape().last().copied().unwrap_or(0);
    if channels.iter().any(|c| *c >= last) {
        return Err(shape_error("select_channels", format!("channels below {last}"), channels));
    }
    let mut shape = x.shape().to_vec();
    if let Some(axis) = shape.last_mut() {
        *axis = channels.len();
    }
    let rows = x.data().chunks_exact(last.max(1));
    let out = rows.flat_map(|row| channels.iter().map(|c| row[*c])).collect();
    let (node, len, channels) = (x.node(), x.data().len(), channels.to_vec());
    Ok(tape.push(value("select_channels", &shape, out)?, &[x], move |g, grads| {
        let mut back = vec![0.0; len];
        for (to, from) in back.chunks_exact_mut(last.max(1)).zip(g.chunks_exact(channels.len().max(1))) {
            for (g, c) in from.iter().zip(&channels) {
                to[*c] += g;
            }
        }
        grads.add(node, back)
    }))
}
