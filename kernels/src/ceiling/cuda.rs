#![allow(unsafe_code)]
//! What a GPU can do at best; a second or less.

use blemish_tensor::cuda::{Buffer, Cuda};

use crate::cuda::{CEILING, CEILING_80, CudaResult, THREADS};

/// Passes, the best of which counts.
const PASSES: usize = 10;

/// The ceilings of a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// 10^9 bytes a second that a copy reads and writes.
    pub copy_gbs: f64,
    /// 10^9 single-precision operations a second; a multiply-add counts as two.
    pub gflops: f64,
    /// The same of fp16 products with f32 sums by `mma.sync`, where the chip has it.
    pub tensor_gflops: Option<f64>,
}

/// Measures with a buffer of `bytes` (256 MiB is far beyond every cache) and `rounds` of arithmetic (some thousand).
///
/// # Errors
/// The device's.
pub fn measure(cuda: &Cuda, bytes: usize, rounds: usize) -> CudaResult<Ceilings> {
    let blocks = cuda.info().multiprocessors.max(1) * 8;
    let n = (bytes / 16).clamp(1, 1 << 27);
    let (from, mut to) = (cuda.zeros::<f32>(4 * n)?, cuda.scratch::<f32>(4 * n)?);
    let copy = fastest(cuda, 32.0 * n as f64, || {
        let launch = cuda.launch(CEILING, "ceiling_copy")?.input(&from).output(&mut to).int(n);
        // SAFETY: both buffers have n times four values.
        Ok(unsafe { launch.run((blocks, 1), THREADS, 0) }?)
    })?;
    drop((from, to));
    let start = cuda.upload(&[0.999f32, 0.001])?;
    let mut out: Buffer<f32> = cuda.scratch((blocks * THREADS) as usize)?;
    let threads = f64::from(blocks * THREADS);
    let gflops = fastest(cuda, 32.0 * rounds as f64 * threads, || {
        let launch = cuda.launch(CEILING, "ceiling_multiply_add")?.input(&start).output(&mut out).int(rounds);
        // SAFETY: two values are read, one is written for each thread.
        Ok(unsafe { launch.run((blocks, 1), THREADS, 0) }?)
    })?;
    let mut tensor_gflops = None;
    if cuda.info().capability >= (8, 0) {
        tensor_gflops = Some(fastest(cuda, 1024.0 * rounds as f64 * threads, || {
            let launch = cuda.launch(CEILING_80, "ceiling_tensor")?.input(&start).output(&mut out).int(rounds);
            // SAFETY: as above.
            Ok(unsafe { launch.run((blocks, 1), THREADS, 0) }?)
        })?);
    }
    Ok(Ceilings { copy_gbs: copy, gflops, tensor_gflops })
}

/// The highest rate of some passes, in 10^9 a second, each doing `work`.
fn fastest(cuda: &Cuda, work: f64, mut pass: impl FnMut() -> CudaResult<()>) -> CudaResult<f64> {
    let mut best = 0f64;
    for _ in 0..PASSES {
        let before = cuda.event()?;
        pass()?;
        let milliseconds = before.milliseconds_to(&cuda.event()?)?;
        best = best.max(work / f64::from(milliseconds.max(1e-6)) / 1e6);
    }
    Ok(best)
}
