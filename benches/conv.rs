//! How close are convolutions to the arithmetic peak? The layers are those of the networks the detectors use.

use std::time::Duration;

use blemish_benches::{cases, uniform, work};
use blemish_kernels::Par;
use blemish_kernels::conv::{Activation, Conv2d, ConvSpec};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Name, input channels, output channels, kernel, stride, groups, side of the map.
type Case = (&'static str, usize, usize, usize, usize, usize, usize);

const SMALL: [Case; 4] = [
    ("3x3_64_64", 64, 64, 3, 1, 1, 56),
    ("1x1_256_64", 256, 64, 1, 1, 1, 56),
    ("depthwise_3x3_96", 96, 96, 3, 1, 96, 56),
    ("stem_7x7_3_64", 3, 64, 7, 2, 1, 224),
];
const MORE: [Case; 5] = [
    ("3x3_128_128", 128, 128, 3, 1, 1, 32),
    ("3x3_s2_128_256", 128, 256, 3, 2, 1, 32),
    ("3x3_512_512", 512, 512, 3, 1, 1, 16),
    ("1x1_1024_512", 1024, 512, 1, 1, 1, 16),
    ("depthwise_5x5_240", 240, 240, 5, 1, 240, 32),
];

fn conv(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (name, inputs, outputs, kernel, stride, groups, side) in cases(&SMALL, &MORE) {
        let spec = spec(inputs, outputs, kernel, stride, groups);
        let weight = uniform(1, spec.weight_len());
        let bias = uniform(2, outputs);
        let layer = Conv2d::new(spec, &weight, &bias, Activation::Relu).expect("a legal layer");
        let (h, w) = layer.output_size(side, side).expect("a legal size");
        let input = uniform(3, side * side * inputs);
        let mut output = vec![0.0; h * w * outputs];
        let mut scratch = vec![0.0; layer.workspace(1, side, side)];
        let bytes = 4 * (input.len() + output.len() + weight.len());
        group.throughput(work(2 * h * w * spec.macs_per_position(), bytes));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                layer.forward(&input, 1, side, side, None, &mut output, &mut scratch, Par::Rayon).expect("fits");
            });
        });
        if name == SMALL[0].0 {
            group.bench_function(BenchmarkId::new(name, "plain_loops"), |b| {
                b.iter(|| plain(&input, side, &weight, &bias, inputs, outputs, &mut output));
            });
        }
    }
    group.finish();
}

fn spec(inputs: usize, outputs: usize, kernel: usize, stride: usize, groups: usize) -> ConvSpec {
    let pad = kernel / 2;
    ConvSpec {
        in_channels: inputs,
        out_channels: outputs,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [pad; 4],
        groups,
    }
}

/// The baseline: a 3x3 convolution as one writes it down, on one thread.
fn plain(input: &[f32], side: usize, weight: &[f32], bias: &[f32], inputs: usize, outputs: usize, output: &mut [f32]) {
    for y in 0..side {
        for x in 0..side {
            for o in 0..outputs {
                let mut sum = bias[o];
                for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                    let (iy, ix) = ((y + ky).wrapping_sub(1), (x + kx).wrapping_sub(1));
                    if iy < side && ix < side {
                        let pixel = &input[(iy * side + ix) * inputs..][..inputs];
                        for (i, value) in pixel.iter().enumerate() {
                            sum += value * weight[((o * inputs + i) * 3 + ky) * 3 + kx];
                        }
                    }
                }
                output[(y * side + x) * outputs + o] = sum.max(0.0);
            }
        }
    }
}

criterion_group!(benches, conv);
criterion_main!(benches);
