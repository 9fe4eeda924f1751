//! Convolutions and gates with the batch norm folded in.

use blemish_kernels::conv::{Conv2d, ConvSpec};
use blemish_kernels::pool::PoolSpec;
use blemish_tensor::Tensor;

use crate::spec::{Gate, Graph, Op, TIMM_EPSILON};
use crate::{BackboneError, Result};

/// What one node does, ready to run.
pub(super) enum Step {
    Input,
    Conv { conv: Box<Conv2d>, residual: Option<usize> },
    MaxPool(PoolSpec),
    SqueezeExcite(SqueezeExcite),
}

/// The two dense layers of a gate. `[reduced, channels]` and its transpose, so that both loops run along rows.
pub(super) struct SqueezeExcite {
    pub(super) channels: usize,
    pub(super) reduced: usize,
    pub(super) gate: Gate,
    /// `[reduced, channels]`.
    pub(super) reduce: Vec<f32>,
    pub(super) reduce_bias: Vec<f32>,
    /// `[reduced, channels]`: transposed from the file.
    pub(super) expand: Vec<f32>,
    pub(super) expand_bias: Vec<f32>,
}

const MAX_POOL: PoolSpec = PoolSpec { kernel: [3, 3], stride: [2, 2], padding: [1, 1, 1, 1] };

/// One step for each node. `weights` are those of the graph's nodes, in order.
pub(super) fn steps(net: &'static str, graph: &Graph, weights: &[(String, Tensor)]) -> Result<Vec<Step>> {
    let mut tensors = weights.iter();
    let mut next = || -> Result<(&str, &[f32])> {
        let (name, tensor) = tensors.next().ok_or_else(|| bad(net, "there are too few of them".to_owned()))?;
        Ok((name, tensor.as_slice::<f32>()?))
    };
    let mut steps = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let inputs = graph.nodes[node.input].channels;
        steps.push(match &node.op {
            Op::Input => Step::Input,
            Op::MaxPool => Step::MaxPool(MAX_POOL),
            Op::Conv { kernel, stride, groups, residual, activation, .. } => {
                let (name, weight) = next()?;
                let norm = [next()?.1, next()?.1, next()?.1, next()?.1];
                let (weight, bias) =
                    fold(weight, norm).ok_or_else(|| bad(net, format!("{name} overflows with its batch norm")))?;
                let spec = ConvSpec {
                    in_channels: inputs,
                    out_channels: node.channels,
                    kernel: [*kernel; 2],
                    stride: [*stride; 2],
                    padding: [kernel / 2; 4],
                    groups: *groups,
                };
                let conv = Box::new(Conv2d::new(spec, &weight, &bias, *activation)?);
                Step::Conv { conv, residual: *residual }
            }
            Op::SqueezeExcite { reduced, gate, .. } => {
                let (reduce, reduce_bias) = (next()?.1.to_vec(), next()?.1.to_vec());
                let (wide, expand_bias) = (next()?.1, next()?.1.to_vec());
                let expand = (0..*reduced).flat_map(|r| wide.iter().skip(r).step_by(*reduced)).copied().collect();
                let (channels, reduced, gate) = (inputs, *reduced, *gate);
                Step::SqueezeExcite(SqueezeExcite { channels, reduced, gate, reduce, reduce_bias, expand, expand_bias })
            }
        });
    }
    Ok(steps)
}

/// `conv` then `norm = [scale, shift, mean, variance]` as one convolution with bias; `None` where that is not finite.
fn fold(weight: &[f32], norm: [&[f32]; 4]) -> Option<(Vec<f32>, Vec<f32>)> {
    let [scale, shift, mean, variance] = norm;
    let each = weight.len() / scale.len().max(1);
    let mut folded = Vec::with_capacity(weight.len());
    let mut bias = Vec::with_capacity(scale.len());
    for (channel, row) in weight.chunks_exact(each.max(1)).enumerate() {
        let factor = f64::from(scale[channel]) / (f64::from(variance[channel]) + TIMM_EPSILON).sqrt();
        bias.push((f64::from(shift[channel]) - f64::from(mean[channel]) * factor) as f32);
        folded.extend(row.iter().map(|&w| (f64::from(w) * factor) as f32));
    }
    folded.iter().chain(&bias).all(|x| x.is_finite()).then_some((folded, bias))
}

fn bad(net: &'static str, problem: String) -> BackboneError {
    BackboneError::Weights { net, problems: vec![problem] }
}
