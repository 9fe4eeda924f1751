//! The inverted residual block of MobileNetV2, MobileNetV3 and EfficientNet (Sandler et al. 2018, "MobileNetV2").
//!
//! A 1×1 expansion (left out where nothing is expanded), a depthwise convolution, an optional squeeze-and-excite gate,
//! and a linear 1×1 projection; the input is added where its shape allows.

use blemish_kernels::conv::Activation;

use super::{ConvShape, Gate, Graph, Module, NodeId};

/// One block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Channels of the depthwise convolution.
    pub expanded: usize,
    /// Channels of the output.
    pub out: usize,
    /// Side of the depthwise kernel.
    pub kernel: usize,
    /// Step of the depthwise kernel.
    pub stride: usize,
    /// Channels between the two layers of the gate, and its functions.
    pub gate: Option<(usize, Gate)>,
    /// Activation of expansion and depthwise convolution.
    pub activation: Activation,
}

/// How torchvision numbers the modules inside a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// MobileNetV2: `conv.0.0`, `conv.0.1`, …, and the projection flat as `conv.2`, `conv.3`.
    Flat,
    /// MobileNetV3 and EfficientNet: `block.0.0`, `block.0.1`, …, the projection alike.
    Nested,
}

/// The stem: a 3×3 convolution of stride 2.
pub fn stem(g: &mut Graph, out: usize, activation: Activation) -> NodeId {
    let names = [Module::new("conv_stem", "features.0.0"), Module::new("bn1", "features.0.1")];
    g.conv(0, names, ConvShape { out, kernel: 3, stride: 2, depthwise: false, activation }, None)
}

/// Adds a block called `timm` (as `blocks.1.0`) and `torchvision` (as `features.2`); returns its last node.
pub fn block(g: &mut Graph, x: NodeId, timm: &str, torchvision: &str, numbering: Numbering, block: &Block) -> NodeId {
    let Block { expanded, out, kernel, stride, gate, activation } = *block;
    let expands = expanded != g.nodes[x].channels;
    let mut position = 0;
    let mut names = |conv: &str, norm: &str, last: bool| {
        let p = position;
        position += 1;
        let [a, b] = match numbering {
            Numbering::Flat if last => [format!("conv.{p}"), format!("conv.{}", p + 1)],
            Numbering::Flat => [format!("conv.{p}.0"), format!("conv.{p}.1")],
            Numbering::Nested => [format!("block.{p}.0"), format!("block.{p}.1")],
        };
        [(conv, a), (norm, b)].map(|(t, v)| Module::new(format!("{timm}.{t}"), format!("{torchvision}.{v}")))
    };
    let pointwise = |out, activation| ConvShape { out, kernel: 1, stride: 1, depthwise: false, activation };
    let mut y = x;
    if expands {
        y = g.conv(y, names("conv_pw", "bn1", false), pointwise(expanded, activation), None);
    }
    let depthwise = ConvShape { out: expanded, kernel, stride, depthwise: true, activation };
    y = g.conv(y, names("conv_dw", if expands { "bn2" } else { "bn1" }, false), depthwise, None);
    if let Some((reduced, gate)) = gate {
        let [fc1, fc2] = names("se", "se", false).map(|m| m.torchvision);
        let cut = |name: &str| name.rsplit_once('.').map_or(name.to_owned(), |(front, _)| front.to_owned());
        let modules = [
            Module::new(format!("{timm}.se.conv_reduce"), format!("{}.fc1", cut(&fc1))),
            Module::new(format!("{timm}.se.conv_expand"), format!("{}.fc2", cut(&fc2))),
        ];
        y = g.squeeze_excite(y, modules, reduced, gate);
    }
    let residual = (stride == 1 && g.nodes[x].channels == out).then_some(x);
    let (conv, norm) = if expands { ("conv_pwl", "bn3") } else { ("conv_pw", "bn2") };
    g.conv(y, names(conv, norm, true), pointwise(out, Activation::None), residual)
}
