//! PaDiM's fit and PatchCore's projection.

use blemish_kernels::cuda::CudaResult;
use blemish_kernels::kcenter::{self, SparseProjection};
use blemish_kernels::mahalanobis::{Layout, cuda::Moments};

use crate::cases::spread;
use crate::measure::{Bench, Work};

/// Pictures that go to the GPU together, over and over.
const BATCH: usize = 16;

pub(crate) fn all(bench: &mut Bench, tiny: bool) -> CudaResult<()> {
    let fits: &[[usize; 3]] = if tiny { &[[20, 4, 9]] } else { &[[208, 56, 100], [208, 56, 550]] };
    for &[n, side, d] in fits {
        moments(bench, n, side, d)?;
    }
    let projections: &[[usize; 3]] = if tiny { &[[9, 30, 7]] } else { &[[200_000, 1536, 301], [25_088, 1536, 128]] };
    for &[n, from, to] in projections {
        projection(bench, n, from, to)?;
    }
    Ok(())
}

/// Means, covariances and inverse factors of `n` pictures, from maps that are on the GPU; the factors stay there.
fn moments(bench: &mut Bench, n: usize, side: usize, d: usize) -> CudaResult<()> {
    let sizes = [[side, side, 256], [side / 2, side / 2, 512], [side / 4, side / 4, 1024]];
    let channels: Vec<usize> = (0..d).map(|i| i * 1792 / d).collect();
    let layout = Layout::new(&sizes, &channels, true)?;
    let values: usize = sizes.iter().map(|s| BATCH * s[0] * s[1] * s[2]).sum();
    if !bench.wants("moments_fit", Moments::bytes(&layout) + 4 * values) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let upload = |(seed, s): (usize, &[usize; 3])| cuda.upload(&spread(BATCH * s[0] * s[1] * s[2], seed as u64));
    let maps = sizes.iter().enumerate().map(upload).collect::<Result<Vec<_>, _>>()?;
    let maps: Vec<_> = maps.iter().collect();
    let floats: usize = (0..layout.levels()).map(|l| layout.weight_len(l)).sum();
    let batches = n.div_ceil(BATCH);
    // Products of every picture; factors are two thirds of a cube for what a level adds, most of it in the last.
    let cube = 2.0 / 3.0 * (d as f64).powi(3) * (side * side) as f64;
    let flops = 2.0 * (batches * BATCH) as f64 * floats as f64 + cube;
    let work = Work::new(flops, batches * 8 * floats + batches * 4 * values);
    let shape = [("n", batches * BATCH), ("side", side), ("d", d)];
    bench.run("moments_fit", &shape, work, &[], 3, || {
        let mut moments = Moments::new(&cuda, layout.clone())?;
        for _ in 0..batches {
            moments.push(&maps, BATCH)?;
        }
        moments.mean()?;
        moments.factor_there(0.01).map(drop)
    })
}

fn projection(bench: &mut Bench, n: usize, from: usize, to: usize) -> CudaResult<()> {
    if !bench.wants("projection", 4 * n * (from + to)) {
        return Ok(());
    }
    let cuda = bench.cuda.clone();
    let rows = cuda.upload(&spread(n * from, 1))?;
    let matrix = kcenter::cuda::Projection::new(&cuda, &SparseProjection::new(from, to, 1)?)?;
    let mut out = cuda.scratch(n * to)?;
    let work = Work::memory(4 * n * (from + to));
    let shape = [("n", n), ("from", from), ("to", to)];
    bench.run("projection", &shape, work, &[("projection_apply", work)], 1000, || matrix.apply(&rows, n, &mut out, 0))
}
