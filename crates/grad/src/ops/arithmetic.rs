use super::value;
use crate::{Result, Tape, Var, error::shape_error};

/// `a + b`; `b` may have fewer leading axes and is then repeated over them (a bias of the last axes).
///
/// # Errors
/// Shapes that do not fit.
pub fn add(tape: &mut Tape, a: &Var, b: &Var) -> Result<Var> {
    let out = zip("add", a, b, |x, y| x + y)?;
    let (a_node, b_node, len) = (a.node(), b.node(), b.data().len());
    Ok(tape.push(out, &[a, b], move |g, grads| {
        if b_node.is_some() {
            grads.add(b_node, folded(g.iter().copied(), len))?;
        }
        grads.add(a_node, g.to_vec())
    }))
}

/// `a - b`, as [`add`].
///
/// # Errors
/// Shapes that do not fit.
pub fn sub(tape: &mut Tape, a: &Var, b: &Var) -> Result<Var> {
    let out = zip("sub", a, b, |x, y| x - y)?;
    let (a_node, b_node, len) = (a.node(), b.node(), b.data().len());
    Ok(tape.push(out, &[a, b], move |g, grads| {
        if b_node.is_some() {
            grads.add(b_node, folded(g.iter().map(|g| -g), len))?;
        }
        grads.add(a_node, g.to_vec())
    }))
}

/// `a * b` value by value, `b` repeated as in [`add`].
///
/// # Errors
/// Shapes that do not fit.
pub fn mul(tape: &mut Tape, a: &Var, b: &Var) -> Result<Var> {
    let out = zip("mul", a, b, |x, y| x * y)?;
    let saved = (a.clone(), b.clone());
    Ok(tape.push(out, &[a, b], move |g, grads| {
        let (a, b) = saved;
        if b.needs_grad() {
            let products = g.iter().zip(a.data()).map(|(g, a)| g * a);
            grads.add(b.node(), folded(products, b.data().len()))?;
        }
        if a.needs_grad() {
            grads.add(a.node(), g.iter().zip(b.data().iter().cycle()).map(|(g, b)| g * b).collect())?;
        }
        Ok(())
    }))
}

/// `factor * a`.
///
/// # Errors
/// None in practice; the shape is that of `a`.
pub fn scale(tape: &mut Tape, a: &Var, factor: f32) -> Result<Var> {
    affine(tape, a, factor, 0.0)
}

/// `factor * a + offset`.
///
/// # Errors
/// None in practice; the shape is that of `a`.
pub fn affine(tape: &mut Tape, a: &Var, factor: f32, offset: f32) -> Result<Var> {
    let out = value("affine", a.shape(), a.data().iter().map(|v| factor * v + offset).collect())?;
    let node = a.node();
    Ok(tape.push(out, &[a], move |g, grads| grads.add(node, g.iter().map(|g| factor * g).collect())))
}

fn zip(op: &'static str, a: &Var, b: &Var, f: impl Fn(f32, f32) -> f32) -> Result<crate::Value> {
    if !a.shape().ends_with(b.shape()) || b.data().is_empty() {
        return Err(shape_error(op, format!("the last axes of {:?}", a.shape()), b.shape()));
    }
    value(op, a.shape(), a.data().iter().zip(b.data().iter().cycle()).map(|(x, y)| f(*x, *y)).collect())
}

/// Sums values that were repeated with period `len`.
fn folded(values: impl Iterator<Item = f32>, len: usize) -> Vec<f32> {
    let mut sum = vec![0.0; len];
    for (i, v) in values.enumerate() {
        sum[i % len] += v;
    }
    sum
}
