//! Networks as data: a [`Graph`] of nodes in order of execution, with the layers that can be tapped.
//!
//! Each file describes one network; [`resnet`] and [`mbconv`] hold the blocks they share. Tensors carry two names, timm's
//! and torchvision's. Padding is `kernel / 2` on all sides everywhere.

pub mod efficientnet_b5;
pub mod mbconv;
pub mod mobilenetv2_100;
pub mod mobilenetv3_large_100;
pub mod resnet;
pub mod resnet18;
pub mod resnet50;
pub mod wide_resnet50_2;

use blemish_kernels::conv::Activation;

/// Index of a node in [`Graph::nodes`]; 0 is the input.
pub type NodeId = usize;

/// The name of a module in both conventions; tensors are `<module>.weight` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// timm's name.
    pub timm: String,
    /// torchvision's name.
    pub torchvision: String,
}

impl Module {
    /// A module that both call the same.
    pub fn same(name: impl Into<String>) -> Self {
        let name = name.into();
        Module { timm: name.clone(), torchvision: name }
    }

    /// A module with a name in each.
    pub fn new(timm: impl Into<String>, torchvision: impl Into<String>) -> Self {
        Module { timm: timm.into(), torchvision: torchvision.into() }
    }
}

/// What a node computes.
#[derive(Clone, Debug)]
pub enum Op {
    /// The picture, `[n, h, w, 3]`.
    Input,
    /// A convolution without bias, its batch norm, the sum with `residual`, then the activation.
    Conv {
        /// The convolution, weights `[out, in / groups, kernel, kernel]`.
        conv: Module,
        /// Its batch norm.
        norm: Module,
        /// Side of the kernel.
        kernel: usize,
        /// Step of the kernel.
        stride: usize,
        /// Groups of channels.
        groups: usize,
        /// A node added before the activation.
        residual: Option<NodeId>,
        /// The activation.
        activation: Activation,
    },
    /// The largest of 3×3 values at stride 2, padded by 1.
    MaxPool,
    /// `x · gate(expand(act(reduce(mean of x))))`, channel by channel (Hu et al. 2018, "Squeeze-and-excitation networks").
    SqueezeExcite {
        /// The 1×1 convolution to `reduced` channels, with bias.
        reduce: Module,
        /// The 1×1 convolution back, with bias.
        expand: Module,
        /// Channels between the two.
        reduced: usize,
        /// Activation and gate.
        gate: Gate,
    },
}

/// The two functions of a squeeze-and-excite node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// SiLU and sigmoid (EfficientNet).
    SiluSigmoid,
    /// ReLU and `min(max(x + 3, 0), 6) / 6` (MobileNetV3).
    ReluHardSigmoid,
}

/// One step of a network.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The node it reads, always an earlier one.
    pub input: NodeId,
    /// Channels of its map.
    pub channels: usize,
    /// Pixels of the picture per step in its map.
    pub stride: usize,
}

/// A layer that can be asked for.
#[derive(Clone, Debug)]
pub struct Tap {
    /// timm's name.
    pub name: String,
    /// The node whose output it is.
    pub node: NodeId,
}

/// A network.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Nodes in order of execution; the first is the input.
    pub nodes: Vec<Node>,
    /// Layers from shallow to deep.
    pub taps: Vec<Tap>,
    /// Nodes up to this one are computed in `f32` whatever the precision, and no later node reads an earlier one. A picture
    /// without much contrast varies little around a large mean: on its first, largest maps, rounding would cost most. 0, the
    /// picture, for none.
    pub exact: NodeId,
    /// Epsilon of the batch norms of weight files with torchvision's names; with timm's names it is [`TIMM_EPSILON`].
    pub torchvision_epsilon: f64,
    /// Prefixes of tensors behind the last layer (classifier and final convolution), in either convention.
    pub head: &'static [&'static str],
}

/// Epsilon of batch norms under timm's names.
pub const TIMM_EPSILON: f64 = 1e-5;

/// The convolution of a node to be added to a [`Graph`].
#[derive(Clone, Copy, Debug)]
pub struct ConvShape {
    /// Output channels.
    pub out: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step of the kernel.
    pub stride: usize,
    /// One group per channel.
    pub depthwise: bool,
    /// The activation.
    pub activation: Activation,
}

impl Graph {
    /// A network of nothing but its input.
    pub fn new(torchvision_epsilon: f64, head: &'static [&'static str]) -> Self {
        let input = Node { op: Op::Input, input: 0, channels: 3, stride: 1 };
        Graph { nodes: vec![input], taps: Vec::new(), exact: 0, torchvision_epsilon, head }
    }

    /// Adds a convolution with its batch norm; returns the node.
    pub fn conv(
        &mut self,
        input: NodeId,
        [conv, norm]: [Module; 2],
        shape: ConvShape,
        residual: Option<NodeId>,
    ) -> NodeId {
        let Node { channels, stride, .. } = self.nodes[input];
        let groups = if shape.depthwise { channels } else { 1 };
        let ConvShape { kernel, stride: step, activation, .. } = shape;
        let op = Op::Conv { conv, norm, kernel, stride: step, groups, residual, activation };
        self.push(Node { op, input, channels: shape.out, stride: stride * step })
    }

    /// Adds a 3×3 max pool of stride 2; returns the node.
    pub fn max_pool(&mut self, input: NodeId) -> NodeId {
        let Node { channels, stride, .. } = self.nodes[input];
        self.push(Node { op: Op::MaxPool, input, channels, stride: stride * 2 })
    }

    /// Adds a squeeze-and-excite gate; returns the node.
    pub fn squeeze_excite(
        &mut self,
        input: NodeId,
        [reduce, expand]: [Module; 2],
        reduced: usize,
        gate: Gate,
    ) -> NodeId {
        let Node { channels, stride, .. } = self.nodes[input];
        self.push(Node { op: Op::SqueezeExcite { reduce, expand, reduced, gate }, input, channels, stride })
    }

    /// Makes `node` a layer.
    pub fn tap(&mut self, name: impl Into<String>, node: NodeId) {
        self.taps.push(Tap { name: name.into(), node });
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Every tensor of nodes `..= deepest`, in order of execution.
    pub fn tensors(&self, deepest: NodeId) -> Vec<TensorSpec> {
        let mut all = Vec::new();
        for node in self.nodes.iter().take(deepest + 1) {
            let inputs = self.nodes[node.input].channels;
            let mut add = |module: &Module, part: &'static str, shape: Vec<usize>| {
                all.push(TensorSpec {
                    timm: format!("{}.{part}", module.timm),
                    torchvision: format!("{}.{part}", module.torchvision),
                    shape,
                    variance: part == "running_var",
                });
            };
            match &node.op {
                Op::Input | Op::MaxPool => {}
                Op::Conv { conv, norm, kernel, groups, .. } => {
                    add(conv, "weight", vec![node.channels, inputs / groups, *kernel, *kernel]);
                    for part in ["weight", "bias", "running_mean", "running_var"] {
                        add(norm, part, vec![node.channels]);
                    }
                }
                Op::SqueezeExcite { reduce, expand, reduced, .. } => {
                    add(reduce, "weight", vec![*reduced, inputs, 1, 1]);
                    add(reduce, "bias", vec![*reduced]);
                    add(expand, "weight", vec![inputs, *reduced, 1, 1]);
                    add(expand, "bias", vec![inputs]);
                }
            }
        }
        all
    }
}

/// One tensor of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// timm's name.
    pub timm: String,
    /// torchvision's name.
    pub torchvision: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is the running variance of a batch norm.
    pub variance: bool,
}
