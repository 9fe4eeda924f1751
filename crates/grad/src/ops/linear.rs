use blemish_kernels::Par;
use blemish_kernels::product::{Mat, Sum, matmul};

use super::value;
use crate::products::Rows;
use crate::{Result, Tape, Var, error::shape_error};

/// `x * weight^T + bias`: `[rows, in]`, `[out, in]`, `[out]` to `[rows, out]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn linear(tape: &mut Tape, x: &Var, weight: &Var, bias: Option<&Var>) -> Result<Var> {
    let (&[rows, inputs], &[outputs, columns]) = (x.shape(), weight.shape()) else {
        return Err(shape_error("linear", "[rows, in] and [out, in]", (x.shape(), weight.shape())));
    };
    if inputs != columns || bias.is_some_and(|b| b.shape() != [outputs]) {
        let got = (x.shape(), weight.shape(), bias.map(Var::shape));
        return Err(shape_error("linear", "[rows, in], [out, in], [out]", got));
    }
    let (at, products) = (Rows { rows, inputs, outputs }, tape.products().clone());
    let out = match products.linear(at, x.data(), weight.data(), bias.map(Var::data)) {
        Some(out) => out,
        None => {
            let mut out = match bias {
                Some(bias) => bias.data().repeat(rows),
                None => vec![0.0; rows * outputs],
            };
            let (a, w) = (Mat::new(x.data(), rows, inputs)?, Mat::new(weight.data(), outputs, inputs)?);
            matmul(a, w.t(), &mut out, Sum::Add, Par::Rayon)?;
            out
        }
    };
    let out = value("linear", &[rows, outputs], out)?;

    let saved = (x.clone(), weight.clone());
    let bias_node = bias.and_then(Var::node);
    let inputs_of: Vec<&Var> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    Ok(tape.push(out, &inputs_of, move |g, grads| {
        let (x, weight) = saved;
        let gradient = Mat::new(g, rows, outputs)?;
        if x.needs_grad() {
            let dx = match products.linear_input(at, g, weight.data()) {
                Some(dx) => dx,
                None => {
                    let mut dx = vec![0.0; rows * inputs];
                    matmul(gradient, Mat::new(weight.data(), outputs, inputs)?, &mut dx, Sum::Overwrite, Par::Rayon)?;
                    dx
                }
            };
            grads.add(x.node(), dx)?;
        }
        if weight.needs_grad() {
            let dw = match products.linear_weight(at, g, x.data(), weight.data()) {
                Some(dw) => dw,
                None => {
                    let mut dw = vec![0.0; outputs * inputs];
                    matmul(gradient.t(), Mat::new(x.data(), rows, inputs)?, &mut dw, Sum::Overwrite, Par::Rayon)?;
                    dw
                }
            };
            grads.add(weight.node(), dw)?;
        }
        if bias_node.is_some() {
            grads.add(bias_node, column_sums(g, outputs))?;
        }
        Ok(())
    }))
}

/// Sums over the rows of `[rows, columns]`.
pub(super) fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    // Partial sums of 64 rows keep the rounding error of long columns small.
    let mut total = vec![0.0f32; columns];
    for block in values.chunks(64 * columns.max(1)) {
        let mut part = vec![0.0f32; columns];
        for row in block.chunks_exact(columns) {
            part.iter_mut().zip(row).for_each(|(p, v)| *p += v);
        }
        total.iter_mut().zip(&part).for_each(|(t, p)| *t += p);
    }
    total
}
