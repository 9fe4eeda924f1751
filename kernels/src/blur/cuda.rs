#![allow(unsafe_code)]
//! Gaussian blur on a GPU: the bits of the CPU.

use blemish_tensor::cuda::{Buffer, Cuda};

use super::{Border, MAX_SIGMA, half_kernel};
use crate::KernelError;
use crate::cuda::{BLUR, CudaResult, THREADS, check, grid, strips};
use crate::error::shape_error;

/// Rows of a tile of the kernel that makes both passes at once.
const HIGH: usize = 32;

/// Blurs `n` maps `[n, h, w]` with a Gaussian of `sigma` pixels.
///
/// # Errors
/// As [`gaussian_with`](super::gaussian_with); the device's.
pub fn gaussian(
    cuda: &Cuda,
    maps: &Buffer<f32>,
    [n, h, w]: [usize; 3],
    sigma: f32,
    border: Border,
) -> CudaResult<Buffer<f32>> {
    const OP: &str = "gaussian blur";
    if !(0.0..=MAX_SIGMA).contains(&sigma) {
        let what = format!("sigma is {sigma}; 0 to {MAX_SIGMA} pixels are possible");
        return Err(KernelError::Parameter { op: OP, what }.into());
    }
    if n == 0 || h == 0 || w == 0 {
        return Err(shape_error(OP, "at least one map, one row and one column", (n, h, w)).into());
    }
    let values = check(OP, &[n, h, w], maps.len())?;
    let taps = half_kernel(sigma);
    let kernel = cuda.upload(&taps)?;
    let radius = taps.len() - 1;
    let symmetric = usize::from(border == Border::Symmetric);
    let mut out = cuda.scratch(values)?;
    let [wide] = cuda.parameter(BLUR, "BLUR_WIDE")?;
    let shared = 4 * ((radius + 4) / 4 * 4 + 2 * (HIGH + radius) * (wide + 2 * radius + 1));
    if shared <= cuda.info().shared_memory as usize {
        let launch = cuda.launch(BLUR, "blur_tile")?.input(maps).output(&mut out).input(&kernel);
        let launch = launch.int(n).int(h).int(w).int(radius).int(symmetric);
        let tiles = grid(w.div_ceil(wide).saturating_mul(h.div_ceil(HIGH)), 1);
        // SAFETY: both buffers hold the n h w values, `kernel` radius + 1; tiles cover a map, and shared memory holds one with
        // what surrounds it.
        unsafe { launch.run((tiles, strips(n)), THREADS, shared as u32) }?;
        return Ok(out);
    }
    let mut down = cuda.scratch(values)?;
    let pass = |from: &Buffer<f32>, to: &mut Buffer<f32>, axis: usize| {
        let launch = cuda.launch(BLUR, "blur_axis")?.input(from).output(to).input(&kernel);
        let launch = launch.int(n).int(h).int(w).int(radius).int(axis).int(symmetric);
        // SAFETY: both buffers hold the n h w values, `kernel` radius + 1; reflected indices lie inside their line.
        unsafe { launch.run((grid(values, THREADS as usize), 1), THREADS, 0) }
    };
    pass(maps, &mut down, 0)?;
    pass(&down, &mut out, 1)?;
    Ok(out)
}
