#![allow(unsafe_code)]
use blemish_tensor::cuda::{Buffer, Cuda};

use crate::cuda::{CudaResult, PAIRWISE, THREADS, check, grid};
use crate::error::shape_error;

const OP: &str = "pairwise_squared";
/// Rows of a tile, and its shared bytes.
const SIDE: usize = 32;
const TILE: u32 = 16_384;
/// Most rows of queries: blocks along the second axis of a grid.
const MOST: usize = 65_535 * SIDE;

/// Squared Euclidean distances `[m, n]` of `query` `[m, d]` to `bank` `[n, d]`, the bits of
/// [`nearest::pairwise_squared`](crate::nearest::pairwise_squared).
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) for buffers of other lengths, sizes of zero, or more than 2,097,120
/// queries; the device's.
pub fn pairwise_squared(
    cuda: &Cuda,
    query: &Buffer<f32>,
    bank: &Buffer<f32>,
    [m, n, d]: [usize; 3],
) -> CudaResult<Buffer<f32>> {
    if [m, n, d].contains(&0) || m > MOST || n > i32::MAX as usize - SIDE {
        return Err(shape_error(OP, format!("1 <= m <= {MOST}, n >= 1, d >= 1"), [m, n, d]).into());
    }
    if m.checked_mul(d) != Some(query.len()) || n.checked_mul(d) != Some(bank.len()) {
        return Err(shape_error(OP, format!("rows [{m}, {d}] and [{n}, {d}]"), (query.len(), bank.len())).into());
    }
    let mut out = cuda.scratch(m.saturating_mul(n))?;
    into(cuda, query, bank, [m, n, d], &mut out)?;
    Ok(out)
}

/// Into `out`, which has at least m n values; the rest as checked above.
pub(super) fn into(
    cuda: &Cuda,
    query: &Buffer<f32>,
    bank: &Buffer<f32>,
    [m, n, d]: [usize; 3],
    out: &mut Buffer<f32>,
) -> CudaResult<()> {
    check(OP, &[d], d)?;
    let launch = cuda.launch(PAIRWISE, "pairwise_squared")?.input(query).input(bank).output(out).int(m).int(n).int(d);
    // SAFETY: the buffers hold m d, n d and m n values; rows and values beyond are neither read nor written.
    unsafe { launch.run((grid(n, SIDE), grid(m, SIDE)), THREADS, TILE) }?;
    Ok(())
}
