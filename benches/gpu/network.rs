//! The layers of networks at 224 x 224, as the ResNets and MobileNets have them.

use blemish_kernels::conv::{Activation, ConvSpec, cuda::Conv};
use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::element::{Element, wide};
use blemish_kernels::pool::{PoolSpec, cuda as pool};

use crate::measure::{Bench, Work};

const MANY: usize = 1000;

pub(crate) fn all(bench: &mut Bench, tiny: bool) -> CudaResult<()> {
    precision::<f32>(bench, tiny, false)?;
    if bench.cuda.info().capability >= (8, 0) {
        precision::<u16>(bench, tiny, true)?;
    }
    Ok(())
}

/// Pictures, side of the map, channels in and out, side of the kernel, stride.
type Shape = [usize; 6];

fn precision<T: Element>(bench: &mut Bench, tiny: bool, half: bool) -> CudaResult<()> {
    let dense: &[Shape] = &[
        [32, 224, 3, 64, 7, 2],
        [32, 56, 64, 64, 3, 1],
        [32, 28, 256, 256, 3, 1],
        [32, 14, 512, 512, 3, 1],
        [32, 14, 1024, 512, 1, 1],
        [32, 14, 512, 1024, 1, 1],
        [1, 14, 512, 512, 3, 1],
    ];
    let depthwise: &[Shape] = &[[32, 56, 144, 144, 3, 1], [32, 28, 240, 240, 5, 2]];
    for &shape in if tiny { &[[1, 6, 8, 16, 3, 1]] } else { dense } {
        convolution::<T>(bench, half, shape, false)?;
    }
    for &shape in if tiny { &[[1, 6, 8, 8, 3, 1]] } else { depthwise } {
        convolution::<T>(bench, half, shape, true)?;
    }
    max_pool::<T>(bench, half, if tiny { [1, 6, 8] } else { [32, 112, 64] })
}

fn convolution<T: Element>(bench: &mut Bench, half: bool, shape: Shape, depthwise: bool) -> CudaResult<()> {
    let [n, side, c, o, kernel, stride] = shape;
    let op = match (depthwise, half) {
        (false, false) => "conv_f32",
        (false, true) => "conv_f16",
        (true, false) => "depthwise_f32",
        (true, true) => "depthwise_f16",
    };
    let spec = ConvSpec {
        in_channels: c,
        out_channels: o,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [kernel / 2; 4],
        groups: if depthwise { c } else { 1 },
    };
    let (oh, ow) = spec.output_size(side, side)?;
    let (input, output) = (n * side * side * wide::<T>(c), n * oh * ow * wide::<T>(o));
    let bytes = size_of::<T>() * (input + output + spec.weight_len());
    if !bench.wants(op, bytes) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let weight: Vec<f32> = (0..spec.weight_len()).map(|i| (i % 61) as f32 / 61.0 - 0.5).collect();
    let conv = Conv::<T>::new(&cuda, spec, &weight, &vec![0.1; o], Activation::Relu)?;
    let (map, mut out) = (cuda.upload(&values::<T>(input))?, cuda.scratch(output)?);
    let flops = 2.0 * (n * oh * ow) as f64 * spec.macs_per_position() as f64;
    let work = if half && !depthwise { Work::tensor(flops, bytes) } else { Work::new(flops, bytes) };
    let shape = [("n", n), ("side", side), ("c", c), ("o", o), ("kernel", kernel), ("stride", stride)];
    bench.run(op, &shape, work, &[], MANY, || conv.forward(&map, [n, side, side], None, &mut out))
}

fn max_pool<T: Element>(bench: &mut Bench, half: bool, [n, side, c]: [usize; 3]) -> CudaResult<()> {
    let op = if half { "max_pool_f16" } else { "max_pool_f32" };
    let spec = PoolSpec { kernel: [3; 2], stride: [2; 2], padding: [1; 4] };
    let (oh, ow) = spec.output_size(side, side)?;
    let (input, output) = (n * side * side * c, n * oh * ow * c);
    let bytes = size_of::<T>() * (input + output);
    if !bench.wants(op, bytes) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let (map, mut out) = (cuda.upload(&values::<T>(input))?, cuda.scratch(output)?);
    let shape = [("n", n), ("side", side), ("c", c)];
    let call = || pool::max_pool(&cuda, &map, [n, side, side, c], &spec, &mut out);
    bench.run(op, &shape, Work::new(9.0 * output as f64, bytes), &[], MANY, call)
}

/// Numbers from -0.5 to 0.5: multiplying zeros would draw less power than a network does.
fn values<T: Element>(len: usize) -> Vec<T> {
    (0..len).map(|i| T::from_f32((i % 97) as f32 / 97.0 - 0.5)).collect()
}
