//! Blocks of the ResNet family (He et al. 2016, "Deep residual learning"; Zagoruyko and Komodakis 2016, "Wide residual
//! networks"). The stride of a bottleneck lies on its 3×3 convolution.

use blemish_kernels::conv::Activation;

use super::{ConvShape, Graph, Module, NodeId, TIMM_EPSILON};

/// The block that a ResNet repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 and 1×1 to four times the channels; the inner two are `width` times as wide as in ResNet-50.
    Bottleneck {
        /// The widening factor.
        width: usize,
    },
}

/// A ResNet with `depths` blocks in its four stages.
pub fn graph(block: Block, depths: [usize; 4]) -> Graph {
    let mut g = Graph::new(TIMM_EPSILON, &["fc."]);
    let stem = g.conv(0, names("", "1"), shape(64, 7, 2, Activation::Relu), None);
    g.tap("act1", stem);
    let mut x = g.max_pool(stem);
    for (stage, depth) in depths.into_iter().enumerate() {
        for i in 0..depth {
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            x = add_block(&mut g, x, &format!("layer{}.{i}.", stage + 1), block, 64 << stage, stride);
        }
        g.tap(format!("layer{}", stage + 1), x);
    }
    g
}

fn add_block(g: &mut Graph, x: NodeId, at: &str, block: Block, planes: usize, stride: usize) -> NodeId {
    let out = if block == Block::Basic { planes } else { planes * 4 };
    let shortcut = if stride != 1 || g.nodes[x].channels != out {
        let modules = ["downsample.0", "downsample.1"].map(|m| Module::same(format!("{at}{m}")));
        g.conv(x, modules, shape(out, 1, stride, Activation::None), None)
    } else {
        x
    };
    let relu = |out, kernel, stride| shape(out, kernel, stride, Activation::Relu);
    match block {
        Block::Basic => {
            let a = g.conv(x, names(at, "1"), relu(planes, 3, stride), None);
            g.conv(a, names(at, "2"), relu(out, 3, 1), Some(shortcut))
        }
        Block::Bottleneck { width } => {
            let a = g.conv(x, names(at, "1"), relu(planes * width, 1, 1), None);
            let b = g.conv(a, names(at, "2"), relu(planes * width, 3, stride), None);
            g.conv(b, names(at, "3"), relu(out, 1, 1), Some(shortcut))
        }
    }
}

fn names(at: &str, number: &str) -> [Module; 2] {
    ["conv", "bn"].map(|kind| Module::same(format!("{at}{kind}{number}")))
}

fn shape(out: usize, kernel: usize, stride: usize, activation: Activation) -> ConvShape {
    ConvShape { out, kernel, stride, depthwise: false, activation }
}
