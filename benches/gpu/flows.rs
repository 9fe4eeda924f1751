//! What a training step of a flow has besides its products: samples of CFlow-AD (256 of a layer of ResNet-18 and of Wide ResNet-50-2), and
//! the pixels of FastFlow (32 maps of ResNet-18's first layer).

use blemish_kernels::adam::AdamStep;
use blemish_kernels::adam::cuda::{Moments, Steps, adam};
use blemish_kernels::coupling::cuda::{Loss, Mix, Sums, Training, Vectors, backward, forward, output};
use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::rows::{Half, HalfMut};
use blemish_tensor::cuda::{Buffer, Cuda};

use crate::measure::{Bench, Work};

const MANY: usize = 1000;

pub(crate) fn all(bench: &mut Bench, tiny: bool) -> CudaResult<()> {
    let real: &[[usize; 3]] = &[[256, 256, 512], [256, 1024, 1280], [32 * 64 * 64, 64, 32]];
    for &shape in if tiny { &[[9, 6, 5]] } else { real } {
        block(bench, shape)?;
    }
    step(bench, if tiny { 100 } else { 1 << 25 })
}

fn values(cuda: &Cuda, len: usize) -> CudaResult<Buffer<f32>> {
    let values: Vec<f32> = (0..len).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
    Ok(cuda.upload(&values)?)
}

fn block(bench: &mut Bench, [rows, c, hidden]: [usize; 3]) -> CudaResult<()> {
    let bytes = 4 * rows * (7 * c + hidden);
    if !["flow_coupling_forward", "flow_coupling_backward", "flow_output", "flow_vectors"]
        .iter()
        .any(|op| bench.wants(op, bytes))
    {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let (c1, c2) = (c - c / 2, c / 2);
    let order: Vec<u32> = (0..c).map(|i| ((i * 7 + 3) % c) as u32).collect();
    let order = if (0..c).all(|i| order.contains(&(i as u32))) { order } else { (0..c as u32).rev().collect() };
    let mix = Mix::new(&cuda, &order)?;
    let (theta, zeros) = (vec![10.0; c], vec![0.0; c.max(hidden)]);
    let mut vectors = Vectors::new(&cuda, &theta, &zeros[..c], &zeros[..hidden], &zeros[..2 * c2], [hidden, 2 * c2])?;
    let (x1, x2, a, gh) = (
        values(&cuda, rows * c1)?,
        values(&cuda, rows * c2)?,
        values(&cuda, rows * 2 * c2)?,
        values(&cuda, rows * hidden)?,
    );
    let room = |width: usize| cuda.scratch::<f32>(rows * width);
    let (mut z1, mut z2, mut s, mut det) = (room(c1)?, room(c2)?, room(c2)?, room(1)?);
    let (mut g1, mut g2, mut value, mut slope) = (room(c1)?, room(c2)?, room(1)?, room(1)?);
    let (mut gx1, mut gx2, mut ga) = (room(c1)?, room(c2)?, room(2 * c2)?);
    let mut loss = cuda.scratch::<f64>(rows)?;
    let mut work = Sums::new(&cuda, c, hidden)?;
    let shape = [("rows", rows), ("c", c), ("hidden", hidden)];
    let half = |buffer, pitch| Half { buffer, pitch };
    let traffic = |numbers: usize| Work::memory(4 * rows * numbers);
    bench.run("flow_coupling_forward", &shape, traffic(2 * c + 3 * c2), &[], MANY, || {
        let z = [HalfMut { buffer: &mut z1, pitch: c1 }, HalfMut { buffer: &mut z2, pitch: c2 }];
        let x = [half(&x1, c1), half(&x2, c2)];
        forward(1.9, rows, half(&a, 2 * c2), x, &vectors, &mix, z, &mut s, &mut det, false)
    })?;
    let z = [half(&z1, c1), half(&z2, c2)];
    bench.run("flow_output", &shape, traffic(2 * c), &[], MANY, || {
        let g = [HalfMut { buffer: &mut g1, pitch: c1 }, HalfMut { buffer: &mut g2, pitch: c2 }];
        let training = Training { loss: &mut loss, g, slope: &mut slope, share: 1.0 / rows as f32 };
        output(Loss::Energy, rows, [c1, c2], z, &det, &mut value, Some(training))
    })?;
    let g = [half(&g1, c1), half(&g2, c2)];
    bench.run("flow_coupling_backward", &shape, traffic(2 * c + 4 * c2), &[], MANY, || {
        let gx = [HalfMut { buffer: &mut gx1, pitch: c1 }, HalfMut { buffer: &mut gx2, pitch: c2 }];
        let to = HalfMut { buffer: &mut ga, pitch: 2 * c2 };
        backward(1.9, rows, g, &vectors, &mix, half(&x2, c2), &s, &slope, gx, to)
    })?;
    bench.run("flow_vectors", &shape, traffic(2 * c2 + hidden + 2 * c), &[], MANY, || {
        vectors.sums(rows, half(&ga, 2 * c2), half(&gh, hidden), g, z, &slope, &mut work)?;
        vectors.finish(rows, &work, &mix, None)
    })
}

fn step(bench: &mut Bench, n: usize) -> CudaResult<()> {
    if !bench.wants("flow_adam", 16 * n) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let mut steps = Steps::new(&cuda, 1)?;
    steps.load(&[AdamStep::new(1e-4, [0.9, 0.999], 1e-8, 0.0, false, 1)])?;
    let (mut p, g, mut moments) = (values(&cuda, n)?, values(&cuda, n)?, Moments::new(&cuda, n)?);
    bench.run("flow_adam", &[("n", n)], Work::memory(28 * n), &[], MANY, || adam(&steps, &mut p, &mut moments, &g))
}
