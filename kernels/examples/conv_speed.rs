//! Time and rate of the convolutions of typical networks at 256 x 256.
//!
//! `cargo run --release -p blemish-kernels --example conv_speed [-- NAME ...]`
//!
//! For each layer whose name contains one of NAME: the fastest milliseconds per map, and GFLOP/s of the plain
//! convolution (Winograd may so exceed the processor's peak), for batches of 1 and 8 on one thread and two.

use std::time::Instant;

use blemish_kernels::Par;
use blemish_kernels::conv::{Activation, Conv2d, ConvSpec};

/// Name, input and output channels, kernel, stride, groups, side of the input, residual, activation.
type Layer = (&'static str, usize, usize, usize, usize, usize, usize, bool, Activation);

const LAYERS: [Layer; 33] = [
    ("resnet stem 7x7/2 3>64", 3, 64, 7, 2, 1, 256, false, Activation::Relu),
    ("resnet18 layer1 3x3 64", 64, 64, 3, 1, 1, 64, true, Activation::Relu),
    ("resnet18 layer2 3x3/2 64>128", 64, 128, 3, 2, 1, 64, false, Activation::Relu),
    ("resnet18 layer2 1x1/2 64>128", 64, 128, 1, 2, 1, 64, false, Activation::None),
    ("resnet18 layer2 3x3 128", 128, 128, 3, 1, 1, 32, true, Activation::Relu),
    ("resnet18 layer3 3x3/2 128>256", 128, 256, 3, 2, 1, 32, false, Activation::Relu),
    ("resnet18 layer3 3x3 256", 256, 256, 3, 1, 1, 16, true, Activation::Relu),
    ("wrn50 layer1 1x1 64>128", 64, 128, 1, 1, 1, 64, false, Activation::Relu),
    ("wrn50 layer1 3x3 128", 128, 128, 3, 1, 1, 64, false, Activation::Relu),
    ("wrn50 layer1 1x1 128>256", 128, 256, 1, 1, 1, 64, true, Activation::Relu),
    ("wrn50 layer1 1x1 256>128", 256, 128, 1, 1, 1, 64, false, Activation::Relu),
    ("wrn50 layer2 3x3/2 256", 256, 256, 3, 2, 1, 64, false, Activation::Relu),
    ("wrn50 layer2 1x1/2 256>512", 256, 512, 1, 2, 1, 64, false, Activation::None),
    ("wrn50 layer2 3x3 256", 256, 256, 3, 1, 1, 32, false, Activation::Relu),
    ("wrn50 layer2 1x1 256>512", 256, 512, 1, 1, 1, 32, true, Activation::Relu),
    ("wrn50 layer2 1x1 512>256", 512, 256, 1, 1, 1, 32, false, Activation::Relu),
    ("wrn50 layer3 3x3/2 512", 512, 512, 3, 2, 1, 32, false, Activation::Relu),
    ("wrn50 layer3 3x3 512", 512, 512, 3, 1, 1, 16, false, Activation::Relu),
    ("wrn50 layer3 1x1 512>1024", 512, 1024, 1, 1, 1, 16, true, Activation::Relu),
    ("wrn50 layer3 1x1 1024>512", 1024, 512, 1, 1, 1, 16, false, Activation::Relu),
    ("mobilenetv2 stem 3x3/2 3>32", 3, 32, 3, 2, 1, 256, false, Activation::Relu6),
    ("mobilenetv2 depthwise 3x3 32", 32, 32, 3, 1, 32, 128, false, Activation::Relu6),
    ("mobilenetv2 1x1 32>16", 32, 16, 1, 1, 1, 128, false, Activation::None),
    ("mobilenetv2 1x1 16>96", 16, 96, 1, 1, 1, 128, false, Activation::Relu6),
    ("mobilenetv2 depthwise 3x3/2 96", 96, 96, 3, 2, 96, 128, false, Activation::Relu6),
    ("mobilenetv2 1x1 96>24", 96, 24, 1, 1, 1, 64, false, Activation::None),
    ("mobilenetv2 1x1 24>144", 24, 144, 1, 1, 1, 64, false, Activation::Relu6),
    ("mobilenetv2 depthwise 3x3 144", 144, 144, 3, 1, 144, 64, false, Activation::Relu6),
    ("mobilenetv2 1x1 144>24", 144, 24, 1, 1, 1, 64, true, Activation::None),
    ("mobilenetv2 1x1 64>384", 64, 384, 1, 1, 1, 16, false, Activation::Relu6),
    ("efficientnet 1x1 24>144 silu", 24, 144, 1, 1, 1, 128, false, Activation::Silu),
    ("efficientnet depthwise 5x5 240 silu", 240, 240, 5, 1, 240, 32, false, Activation::Silu),
    ("efficientnet depthwise 3x3 144 silu", 144, 144, 3, 1, 144, 64, false, Activation::Silu),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    println!("{:<38}{:>30}{:>30}", "ms per map (GFLOP/s)", "batch 1: 1 / 2 threads", "batch 8: 1 / 2 threads");
    for (name, cin, cout, k, stride, groups, side, with_residual, activation) in LAYERS {
        if !only.is_empty() && !only.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let spec = ConvSpec {
            in_channels: cin,
            out_channels: cout,
            kernel: [k; 2],
            stride: [stride; 2],
            padding: [k / 2; 4],
            groups,
        };
        let conv = Conv2d::new(spec, &noise(spec.weight_len(), 1), &noise(cout, 2), activation)?;
        let (h, w) = conv.output_size(side, side)?;
        let flops = 2.0 * (h * w * spec.macs_per_position()) as f64;
        let mut line = format!("{name:<38}");
        for batch in [1, 8] {
            let input = noise(batch * side * side * cin, 3);
            let residual = with_residual.then(|| noise(batch * h * w * cout, 4));
            let mut output = vec![0.0; batch * h * w * cout];
            for threads in [1, 2] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
                let best = pool.install(|| -> blemish_kernels::Result<f64> {
                    let mut scratch = vec![0.0; conv.workspace(batch, side, side)];
                    let (mut best, start) = (f64::INFINITY, Instant::now());
                    while start.elapsed().as_secs_f64() < 0.15 {
                        let begin = Instant::now();
                        let residual = residual.as_deref();
                        conv.forward(&input, batch, side, side, residual, &mut output, &mut scratch, Par::Rayon)?;
                        best = best.min(begin.elapsed().as_secs_f64());
                    }
                    Ok(best / batch as f64)
                })?;
                line += &format!("{:>8.3} ({:>4.0})", best * 1e3, flops / best * 1e-9);
            }
        }
        println!("{line}");
    }
    Ok(())
}

fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
