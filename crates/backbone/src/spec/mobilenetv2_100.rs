//! MobileNetV2 1.0 (Sandler et al. 2018, table 2).

use blemish_kernels::conv::Activation;

use super::mbconv::{self, Block, Numbering};
use super::{Graph, TIMM_EPSILON};

/// Expansion, output channels, blocks and stride of each stage.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// The network.
pub fn graph() -> Graph {
    let mut g = Graph::new(TIMM_EPSILON, &["conv_head.", "bn2.", "classifier.", "features.18."]);
    let mut x = mbconv::stem(&mut g, 32, Activation::Relu6);
    let mut feature = 1;
    for (stage, (expansion, out, depth, stride)) in STAGES.into_iter().enumerate() {
        for i in 0..depth {
            let block = Block {
                expanded: g.nodes[x].channels * expansion,
                out,
                kernel: 3,
                stride: if i == 0 { stride } else { 1 },
                gate: None,
                activation: Activation::Relu6,
            };
            let (timm, torchvision) = (format!("blocks.{stage}.{i}"), format!("features.{feature}"));
            x = mbconv::block(&mut g, x, &timm, &torchvision, Numbering::Flat, &block);
            feature += 1;
        }
        g.tap(format!("blocks.{stage}"), x);
        if stage == 0 {
            g.exact = x;
        }
    }
    g
}
