//! Convolutions and gates with the batch norm folded in.

use blemish_kernels::conv::{Activation, Conv2d, ConvSpec, Levels};
use blemish_kernels::gemm::Isa;
use blemish_kernels::pool::PoolSpec;
use blemish_tensor::Tensor;

use crate::spec::{Gate, Graph, Node, Op, TIMM_EPSILON};
use crate::{BackboneError, Result};

/// What one node does, ready to run: with convolutions `C` and gates `G` of some device.
pub(super) enum Step<C = Conv2d, G = SqueezeExcite> {
    Input,
    Conv { conv: Box<C>, residual: Option<usize> },
    MaxPool(PoolSpec),
    SqueezeExcite(G),
}

/// Makes what a device computes from folded weights.
pub(super) trait Maker {
    type Conv;
    type Gate;
    /// `input` is the node whose map the convolution reads.
    fn conv(
        &self,
        input: usize,
        spec: ConvSpec,
        weight: &[f32],
        bias: &[f32],
        activation: Activation,
    ) -> Result<Self::Conv>;
    fn gate(&self, weights: GateWeights<'_>) -> Result<Self::Gate>;
}

/// The two dense layers of a gate as the file has them: `[reduced, channels]` and `[channels, reduced]`, with their biases.
pub(super) struct GateWeights<'a> {
    pub(super) channels: usize,
    pub(super) reduced: usize,
    pub(super) gate: Gate,
    pub(super) reduce: [&'a [f32]; 2],
    pub(super) expand: [&'a [f32]; 2],
}

/// Makes the steps of the CPU.
pub(super) struct Cpu<'a> {
    pub(super) net: &'static str,
    pub(super) kind: Kind<'a>,
}

impl Maker for Cpu<'_> {
    type Conv = Conv2d;
    type Gate = SqueezeExcite;

    fn conv(
        &self,
        input: usize,
        spec: ConvSpec,
        weight: &[f32],
        bias: &[f32],
        activation: Activation,
    ) -> Result<Conv2d> {
        let single = || Conv2d::new(spec, weight, bias, activation);
        Ok(match self.kind {
            Kind::F32 => single()?,
            Kind::Bf16 { exact } if input < exact => single()?,
            Kind::Bf16 { .. } => match Conv2d::bf16(spec, weight, bias, activation)? {
                Some(conv) => conv,
                None => return Err(bad(self.net, "this processor has no products in bf16".to_owned())),
            },
            Kind::Int8 { ranges, exact } => match ranges.get(input) {
                Some(&range) if spec.groups == 1 && (exact == 0 || input > exact) => {
                    Conv2d::int8(spec, weight, bias, activation, Levels::new(range)?, Isa::int8())?
                }
                _ => single()?,
            },
        })
    }

    fn gate(&self, weights: GateWeights<'_>) -> Result<SqueezeExcite> {
        let GateWeights { channels, reduced, gate, reduce, expand } = weights;
        let dense = |in_channels, out_channels, [weight, bias]: [&[f32]; 2], activation| {
            let (kernel, stride, padding) = ([1, 1], [1, 1], [0; 4]);
            let spec = ConvSpec { in_channels, out_channels, kernel, stride, padding, groups: 1 };
            Conv2d::new(spec, weight, bias, activation)
        };
        let activation = match gate {
            Gate::SiluSigmoid => Activation::Silu,
            Gate::ReluHardSigmoid => Activation::Relu,
        };
        let reduce = dense(channels, reduced, reduce, activation)?;
        Ok(SqueezeExcite {
            channels,
            reduced,
            gate,
            reduce,
            expand: dense(reduced, channels, expand, Activation::None)?,
        })
    }
}

/// The two dense layers of a gate, as convolutions of a map of one pixel.
pub(super) struct SqueezeExcite {
    pub(super) channels: usize,
    pub(super) reduced: usize,
    pub(super) gate: Gate,
    pub(super) reduce: Conv2d,
    pub(super) expand: Conv2d,
}

pub(super) const MAX_POOL: PoolSpec = PoolSpec { kernel: [3, 3], stride: [2, 2], padding: [1, 1, 1, 1] };

/// What the dense convolutions compute in.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    F32,
    /// Where the processor has the instructions, behind the nodes that are exact.
    Bf16 {
        exact: usize,
    },
    /// With the range of each node's input. What reads the last exact node is exact itself: its input has as little contrast.
    Int8 {
        ranges: &'a [[f32; 2]],
        exact: usize,
    },
}

/// One step for each node. `weights` are those of the graph's nodes, in order.
pub(super) fn steps<M: Maker>(
    net: &'static str,
    graph: &Graph,
    weights: &[(String, Tensor)],
    maker: &M,
) -> Result<Vec<Step<M::Conv, M::Gate>>> {
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
            Op::Conv { residual, activation, .. } => {
                let (name, weight) = next()?;
                let norm = [next()?.1, next()?.1, next()?.1, next()?.1];
                let (weight, bias) =
                    fold(weight, norm).ok_or_else(|| bad(net, format!("{name} overflows with its batch norm")))?;
                let spec =
                    conv_spec(graph, node).ok_or_else(|| bad(net, format!("{name} belongs to no convolution")))?;
                let conv = Box::new(maker.conv(node.input, spec, &weight, &bias, *activation)?);
                Step::Conv { conv, residual: *residual }
            }
            Op::SqueezeExcite { reduced, gate, .. } => {
                let (reduce, expand) = ([next()?.1, next()?.1], [next()?.1, next()?.1]);
                let (channels, reduced, gate) = (inputs, *reduced, *gate);
                Step::SqueezeExcite(maker.gate(GateWeights { channels, reduced, gate, reduce, expand })?)
            }
        });
    }
    Ok(steps)
}

/// The shape of a node that is a convolution.
pub(super) fn conv_spec(graph: &Graph, node: &Node) -> Option<ConvSpec> {
    let Op::Conv { kernel, stride, groups, .. } = &node.op else { return None };
    Some(ConvSpec {
        in_channels: graph.nodes[node.input].channels,
        out_channels: node.channels,
        kernel: [*kernel; 2],
        stride: [*stride; 2],
        padding: [kernel / 2; 4],
        groups: *groups,
    })
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
