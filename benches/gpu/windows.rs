//! What training convolutional flows takes besides convolutions: FastFlow's layers on ResNet-18 and Wide ResNet-50-2, 32 pictures.

use blemish_kernels::conv::cuda::Layer;
use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::element::wide;
use blemish_kernels::cuda::norm::{Norm, Pictures};
use blemish_kernels::cuda::rows::{Half, HalfMut};
use blemish_tensor::cuda::{Buffer, Cuda};

use crate::measure::{Bench, Work};

const MANY: usize = 1000;

pub(crate) fn all(bench: &mut Bench, tiny: bool) -> CudaResult<()> {
    // Pictures, side of the map, channels in and out, side of the kernel.
    let real: &[[usize; 5]] = &[
        [32, 64, 32, 64, 3],
        [32, 64, 32, 32, 1],
        [32, 16, 128, 256, 3],
        [32, 64, 128, 256, 3],
        [32, 16, 512, 1024, 3],
    ];
    for &shape in if tiny { &[[2, 3, 4, 6, 3]] } else { real } {
        gradient(bench, shape)?;
    }
    let real: &[[usize; 3]] = &[[32, 64, 64], [32, 64, 256], [1, 64, 64]];
    for &shape in if tiny { &[[2, 3, 6]] } else { real } {
        norm(bench, shape)?;
    }
    Ok(())
}

fn values(cuda: &Cuda, len: usize) -> CudaResult<Buffer<f32>> {
    let values: Vec<f32> = (0..len).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
    Ok(cuda.upload(&values)?)
}

fn gradient(bench: &mut Bench, [n, side, c, o, kernel]: [usize; 5]) -> CudaResult<()> {
    let (rows, cuda) = (n * side * side, bench.cuda.clone());
    let layer = Layer::new(&cuda, c, o, kernel)?;
    let bytes = 4 * (rows * (wide::<f32>(c) + wide::<f32>(o)) + layer.numbers());
    let shape = [("n", n), ("side", side), ("c", c), ("o", o), ("kernel", kernel)];
    if bench.wants("window_gradient", bytes) {
        let (x, g) = (values(&cuda, rows * wide::<f32>(c))?, values(&cuda, rows * wide::<f32>(o))?);
        let mut work = cuda.scratch(layer.workspace([n, side, side]))?;
        let mut out = cuda.scratch(layer.numbers())?;
        let flops = 2.0 * rows as f64 * layer.numbers() as f64;
        bench.run("window_gradient", &shape, Work::new(flops, bytes), &[], MANY, || {
            layer.gradient([n, side, side], &x, &g, &mut work, &mut out, false)
        })?;
    }
    let bytes = 8 * layer.numbers();
    if bench.wants("window_turn", bytes) {
        let (weight, mut out) = (values(&cuda, layer.numbers())?, cuda.scratch(layer.numbers())?);
        bench.run("window_turn", &shape[2..], Work::memory(bytes), &[], MANY, || layer.turn(&weight, &mut out))?;
    }
    Ok(())
}

fn norm(bench: &mut Bench, [n, side, c]: [usize; 3]) -> CudaResult<()> {
    let (pixels, cuda) = (side * side, bench.cuda.clone());
    let (all, [c1, c2]) = (n * pixels * c, [c - c / 2, c / 2]);
    if !["norm_maps", "norm_gradient"].iter().any(|op| bench.wants(op, 4 * all)) {
        return Ok(());
    }
    let (maps, weight, bias) = (values(&cuda, all)?, values(&cuda, pixels * c)?, values(&cuda, pixels * c)?);
    let (mut x1, mut x2) = (cuda.scratch(n * pixels * c1)?, cuda.scratch(n * pixels * c2)?);
    let mut own = Norm::new(&cuda, n, pixels, c)?;
    let pictures = Pictures { maps: &maps, pixels, channels: c, count: n, chosen: None };
    let shape = [("n", n), ("side", side), ("c", c)];
    // Read three times, written once.
    bench.run("norm_maps", &shape, Work::memory(16 * all + 8 * pixels * c), &[], MANY, || {
        let x = [HalfMut { buffer: &mut x1, pitch: c1 }, HalfMut { buffer: &mut x2, pitch: c2 }];
        own.apply(pictures, &weight, &bias, x)
    })?;
    let (mut gw, mut gb) = (cuda.scratch(pixels * c)?, cuda.scratch(pixels * c)?);
    bench.run("norm_gradient", &shape, Work::memory(8 * all + 8 * pixels * c), &[], MANY, || {
        let g = [Half { buffer: &x1, pitch: c1 }, Half { buffer: &x2, pitch: c2 }];
        own.gradient(pictures, g, &mut gw, &mut gb, false)
    })
}
