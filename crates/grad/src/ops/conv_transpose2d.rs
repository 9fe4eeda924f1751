use super::conv2d::Job;
use super::linear::column_sums;
use super::patches::Windows;
use super::{image_dim, value};
use crate::{Result, Tape, Var, error::shape_error};

/// Settings of a transposed convolution, the same for both axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTranspose {
    /// Step of the window over the output.
    pub stride: usize,
    /// Rows and columns cut from each side of the output.
    pub padding: usize,
    /// Rows and columns added at the bottom and right.
    pub output_padding: usize,
    /// Independent groups of channels.
    pub groups: usize,
}

impl Default for ConvTranspose {
    fn default() -> Self {
        ConvTranspose { stride: 1, padding: 0, output_padding: 0, groups: 1 }
    }
}

/// The adjoint of [`conv2d`](super::conv2d): `[n, h, w, in]`, weight `[in, out / groups, kh, kw]`, bias `[out]` to
/// `[n, (h - 1) * stride - 2 * padding + kh + output_padding, .., out]`.
///
/// # Errors
/// Shapes that do not fit, an empty output, or an output padding that is not smaller than the stride.
pub fn conv_transpose2d(
    tape: &mut Tape,
    x: &Var,
    weight: &Var,
    bias: Option<&Var>,
    conv: ConvTranspose,
) -> Result<Var> {
    const OP: &str = "conv_transpose2d";
    let [n, h, w, channels] = image_dim(OP, x)?;
    let &[inputs, per_group, kh, kw] = weight.shape() else {
        return Err(shape_error(OP, "[in, out / groups, kh, kw]", weight.shape()));
    };
    let ConvTranspose { stride, padding, output_padding, groups } = conv;
    let size = |n: usize, k: usize| {
        ((n.checked_sub(1)?.checked_mul(stride)?).checked_add(k + output_padding)?).checked_sub(2 * padding)
    };
    let outputs = per_group * groups;
    let sizes = size(h, kh).zip(size(w, kw)).filter(|s| s.0 > 0 && s.1 > 0);
    // The convolution whose adjoint this is: from our output to our input.
    let windows =
        sizes.and_then(|s| Windows::new(s, outputs, (kh, kw), (stride, padding, 1))).filter(|v| v.out == (h, w));
    let fits = groups > 0
        && inputs == channels
        && inputs.is_multiple_of(groups)
        && (output_padding == 0 || output_padding < stride)
        && bias.is_none_or(|b| b.shape() == [outputs]);
    let (true, Some(windows)) = (fits, windows) else {
        let got = (x.shape(), weight.shape(), bias.map(Var::shape), conv);
        return Err(shape_error(OP, "[n, h, w, in], [in, out / groups, kh, kw], [out]", got));
    };
    let products = tape.products().clone();
    let job = Job { windows, n, groups, inputs: per_group, per_group: inputs / groups, products };
    let mut out = job.input_gradient(x.data(), weight.data())?;
    if let Some(bias) = bias {
        out.chunks_exact_mut(outputs).for_each(|row| row.iter_mut().zip(bias.data()).for_each(|(o, b)| *o += b));
    }
    let out = value(OP, &[n, windows.size.0, windows.size.1, outputs], out)?;

    let saved = (x.clone(), weight.clone());
    let bias_node = bias.and_then(Var::node);
    let all: Vec<&Var> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    Ok(tape.push(out, &all, move |g, grads| {
        let (x, weight) = saved;
        if x.needs_grad() {
            let mut dx = vec![0.0; n * h * w * channels];
            job.forward(g, weight.data(), None, &mut dx)?;
            grads.add(x.node(), dx)?;
        }
        if weight.needs_grad() {
            grads.add(weight.node(), job.weight_gradient(x.data(), g)?)?;
        }
        if bias_node.is_some() {
            grads.add(bias_node, column_sums(g, outputs))?;
        }
        Ok(())
    }))
}
