#![allow(unsafe_code)]
use blemish_tensor::cuda::{Buffer, Cuda};

use super::SparseProjection;
use crate::cuda::{CudaResult, PROJECTION, THREADS, check, grid};
use crate::error::shape_error;

const OP: &str = "sparse projection on a GPU";
/// Threads of a block that applies it.
const APPLY: u32 = 512;

/// The matrix of a [`SparseProjection`] on a GPU, which draws it there; the results are the same bits.
pub struct Projection {
    cuda: Cuda,
    in_dim: usize,
    out_dim: usize,
    scale: f32,
    entry: Buffer<u32>,
    count: Buffer<i32>,
}

impl Projection {
    /// Draws the matrix.
    ///
    /// # Errors
    /// [`KernelError::Shape`](crate::KernelError::Shape) for 2^31 elements or more; the device's.
    pub fn new(cuda: &Cuda, projection: &SparseProjection) -> CudaResult<Self> {
        let (in_dim, out_dim) = projection.dim();
        let elements = check(OP, &[in_dim, out_dim], in_dim.saturating_mul(out_dim))?;
        let (seed, limit, scale) = projection.source();
        let (mut entry, mut count) = (cuda.scratch(elements)?, cuda.scratch(out_dim)?);
        let constants = cuda.upload(&[seed, limit])?;
        let launch = cuda.launch(PROJECTION, "projection_draw")?.input(&constants).output(&mut entry);
        let launch = launch.output(&mut count).int(in_dim).int(out_dim);
        // SAFETY: an output has room for all inputs; a warp for each output.
        unsafe { launch.run((grid(out_dim, 8), 1), THREADS, 0) }?;
        Ok(Projection { cuda: cuda.clone(), in_dim, out_dim, scale, entry, count })
    }

    /// Projects the first `n` of `rows` `[.., in_dim]` to rows `first .. first + n` of `out` `[.., out_dim]`.
    ///
    /// # Errors
    /// [`KernelError::Shape`](crate::KernelError::Shape) for buffers without room for them; the device's.
    pub fn apply(&self, rows: &Buffer<f32>, n: usize, out: &mut Buffer<f32>, first: usize) -> CudaResult<()> {
        let whole = |n: usize, d: usize, len: usize| n.checked_mul(d).is_some_and(|floats| floats <= len);
        let end = first.saturating_add(n);
        if n == 0 || !whole(n, self.in_dim, rows.len()) || !whole(end, self.out_dim, out.len()) {
            let wanted = format!("{n} >= 1 rows of {}, room for {end} rows of {}", self.in_dim, self.out_dim);
            return Err(shape_error(OP, wanted, (rows.len(), out.len())).into());
        }
        let [most] = self.cuda.parameter(PROJECTION, "PROJECTION_ROWS")?;
        let room = self.cuda.info().shared_memory as usize;
        let shared = |rows: usize| 4 * rows * self.in_dim;
        // As many rows of a block in shared memory as have room there.
        let staged = [most, most / 2].into_iter().find(|rows| shared(*rows) <= room).unwrap_or(0);
        let each = if staged == 0 { most / 2 } else { staged };
        let launch = self.cuda.launch(PROJECTION, "projection_apply")?.input(rows).input(&self.entry);
        let launch = launch.input(&self.count).output(out).float(self.scale).int(first).int(n);
        let launch = launch.int(self.in_dim).int(self.out_dim).int(staged);
        // SAFETY: rows and room are there, as checked; entries are inputs; shared memory holds the rows of a block where it is used.
        unsafe { launch.run((grid(n, each), 1), APPLY, shared(staged) as u32) }?;
        Ok(())
    }
}
