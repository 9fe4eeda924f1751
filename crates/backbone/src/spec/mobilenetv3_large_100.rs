//! MobileNetV3-Large 1.0 (Howard et al. 2019, table 1).

use blemish_kernels::conv::Activation::{self, HardSwish, Relu};

use super::mbconv::{self, Block, Numbering};
use super::{ConvShape, Gate, Graph, Module};

/// Kernel, stride, expanded channels, output channels, channels of the gate (0 for none) and activation of a block.
type Row = (usize, usize, usize, usize, usize, Activation);

const STAGES: [&[Row]; 6] = [
    &[(3, 1, 16, 16, 0, Relu)],
    &[(3, 2, 64, 24, 0, Relu), (3, 1, 72, 24, 0, Relu)],
    &[(5, 2, 72, 40, 24, Relu), (5, 1, 120, 40, 32, Relu), (5, 1, 120, 40, 32, Relu)],
    &[
        (3, 2, 240, 80, 0, HardSwish),
        (3, 1, 200, 80, 0, HardSwish),
        (3, 1, 184, 80, 0, HardSwish),
        (3, 1, 184, 80, 0, HardSwish),
    ],
    &[(3, 1, 480, 112, 120, HardSwish), (3, 1, 672, 112, 168, HardSwish)],
    &[(5, 2, 672, 160, 168, HardSwish), (5, 1, 960, 160, 240, HardSwish), (5, 1, 960, 160, 240, HardSwish)],
];

/// The network; its last layer is the 1×1 convolution to 960 channels.
pub fn graph() -> Graph {
    let mut g = Graph::new(1e-3, &["conv_head.", "classifier."]);
    let mut x = mbconv::stem(&mut g, 16, HardSwish);
    let mut feature = 1;
    for (stage, rows) in STAGES.into_iter().enumerate() {
        for (i, &(kernel, stride, expanded, out, reduced, activation)) in rows.iter().enumerate() {
            let gate = (reduced > 0).then_some((reduced, Gate::ReluHardSigmoid));
            let block = Block { expanded, out, kernel, stride, gate, activation };
            let (timm, torchvision) = (format!("blocks.{stage}.{i}"), format!("features.{feature}"));
            x = mbconv::block(&mut g, x, &timm, &torchvision, Numbering::Nested, &block);
            feature += 1;
        }
        g.tap(format!("blocks.{stage}"), x);
        if stage == 0 {
            g.exact = x;
        }
    }
    let names = [
        Module::new("blocks.6.0.conv", format!("features.{feature}.0")),
        Module::new("blocks.6.0.bn1", format!("features.{feature}.1")),
    ];
    let shape = ConvShape { out: 960, kernel: 1, stride: 1, depthwise: false, activation: HardSwish };
    x = g.conv(x, names, shape, None);
    g.tap("blocks.6", x);
    g
}
