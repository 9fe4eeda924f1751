//! The pointwise parts of a block as fused operations.

use blemish_grad::{Tape, Value, Var};
use ndarray::{ArrayD, IxDyn};

use crate::{FlowError, Result};

/// The subnet's output is scaled down by this before it is used, so that a fresh block is near the identity.
pub(crate) const DAMPING: f32 = 0.1;

fn value(shape: &[usize], values: Vec<f32>) -> Result<Value> {
    let got = format!("{} values", values.len());
    ArrayD::from_shape_vec(IxDyn(shape), values).map(ndarray::ArrayBase::into_shared).map_err(|_| FlowError::Shape {
        what: "coupling",
        wanted: format!("{shape:?}"),
        got,
    })
}

/// `s = clamp * tanh(0.1 * a)` for the first half of the channels of `a` `[.., 2 c2]`; gives `[.., c2]`.
pub(crate) fn log_scale(tape: &mut Tape, a: &Var, clamp: f32) -> Result<Var> {
    let width = a.shape().last().copied().unwrap_or(0);
    let c2 = width / 2;
    let mut shape = a.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = c2;
    }
    let rows = a.data().chunks_exact(width.max(1));
    let s: Vec<f32> = rows.flat_map(|row| row[..c2].iter().map(|a| clamp * (DAMPING * a).tanh())).collect();
    let s = value(&shape, s)?;
    let (node, saved, len) = (a.node(), s.clone(), a.data().len());
    Ok(tape.push(s, &[a], move |g, grads| {
        let s = saved.as_slice().unwrap_or(&[]);
        let mut back = vec![0.0; len];
        for ((to, g), s) in back.chunks_exact_mut(width).zip(g.chunks_exact(c2)).zip(s.chunks_exact(c2)) {
            for i in 0..c2 {
                let t = s[i] / clamp;
                to[i] = g[i] * clamp * (1.0 - t * t) * DAMPING;
            }
        }
        grads.add(node, back)
    }))
}

/// `[x1; x2 * e^s + 0.1 * t]`, with `t` the second half of the channels of `a`.
pub(crate) fn couple(tape: &mut Tape, x: &Var, s: &Var, a: &Var) -> Result<Var> {
    let c = x.shape().last().copied().unwrap_or(0);
    let c2 = s.shape().last().copied().unwrap_or(0);
    let c1 = c - c2;
    let mut out = x.data().to_vec();
    let rows = out.chunks_exact_mut(c.max(1)).zip(s.data().chunks_exact(c2.max(1)));
    for ((row, s), a) in rows.zip(a.data().chunks_exact((2 * c2).max(1))) {
        for i in 0..c2 {
            row[c1 + i] = row[c1 + i] * s[i].exp() + DAMPING * a[c2 + i];
        }
    }
    let (saved_x, saved_s, a_node) = (x.clone(), s.clone(), a.node());
    Ok(tape.push(value(x.shape(), out)?, &[x, s, a], move |g, grads| {
        let (x, s) = (saved_x.data(), saved_s.data());
        let mut dx = g.to_vec();
        let (mut ds, mut da) = (vec![0.0; s.len()], vec![0.0; 2 * s.len()]);
        for (r, row) in dx.chunks_exact_mut(c).enumerate() {
            for i in 0..c2 {
                let g = row[c1 + i];
                let scale = s[r * c2 + i].exp();
                ds[r * c2 + i] = g * x[r * c + c1 + i] * scale;
                da[r * 2 * c2 + c2 + i] = DAMPING * g;
                row[c1 + i] = g * scale;
            }
        }
        grads.add(saved_x.node(), dx)?;
        grads.add(saved_s.node(), ds)?;
        grads.add(a_node, da)
    }))
}

/// `x * scale + offset` with one number a channel, then output channel `i` from channel `order[i]`.
pub(crate) fn scale_permute(tape: &mut Tape, x: &Var, scale: &Var, offset: &Var, order: &[usize]) -> Result<Var> {
    let c = order.len();
    let (g, o) = (scale.data(), offset.data());
    let rows = x.data().chunks_exact(c.max(1));
    let out = rows.flat_map(|row| order.iter().map(|&i| row[i] * g[i] + o[i])).collect();
    let (x, scale, offset_node, order) = (x.clone(), scale.clone(), offset.node(), order.to_vec());
    let out = value(x.shape(), out)?;
    let inputs = (x.clone(), scale.clone(), offset.clone());
    Ok(tape.push(out, &[&inputs.0, &inputs.1, &inputs.2], move |g, grads| {
        let mut dx = vec![0.0; g.len()];
        let (mut ds, mut d_offset) = (vec![0.0; c], vec![0.0; c]);
        for ((g, x), dx) in g.chunks_exact(c).zip(x.data().chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
            for (g, &i) in g.iter().zip(&order) {
                dx[i] = g * scale.data()[i];
                ds[i] += g * x[i];
                d_offset[i] += g;
            }
        }
        grads.add(x.node(), dx)?;
        grads.add(scale.node(), ds)?;
        grads.add(offset_node, d_offset)
    }))
}
