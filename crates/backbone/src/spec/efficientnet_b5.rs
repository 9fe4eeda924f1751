//! EfficientNet-B5 (Tan and Le 2019): B0 with 1.6 times the channels and 2.2 times the depth.

use blemish_kernels::conv::Activation;

use super::mbconv::{self, Block, Numbering};
use super::{Gate, Graph};

/// Expansion, kernel, output channels, blocks and stride of each stage.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 24, 3, 1),
    (6, 3, 40, 5, 2),
    (6, 5, 64, 5, 2),
    (6, 3, 128, 7, 2),
    (6, 5, 176, 7, 1),
    (6, 5, 304, 9, 2),
    (6, 3, 512, 3, 1),
];

/// The network. Its gates reduce to a quarter of the channels that enter the block.
pub fn graph() -> Graph {
    let mut g = Graph::new(1e-3, &["conv_head.", "bn2.", "classifier.", "features.8."]);
    let mut x = mbconv::stem(&mut g, 48, Activation::Silu);
    for (stage, (expansion, kernel, out, depth, stride)) in STAGES.into_iter().enumerate() {
        for i in 0..depth {
            let entering = g.nodes[x].channels;
            let block = Block {
                expanded: entering * expansion,
                out,
                kernel,
                stride: if i == 0 { stride } else { 1 },
                gate: Some((entering / 4, Gate::SiluSigmoid)),
                activation: Activation::Silu,
            };
            let (timm, torchvision) = (format!("blocks.{stage}.{i}"), format!("features.{}.{i}", stage + 1));
            x = mbconv::block(&mut g, x, &timm, &torchvision, Numbering::Nested, &block);
        }
        g.tap(format!("blocks.{stage}"), x);
        if stage == 0 {
            g.exact = x;
        }
    }
    g
}
