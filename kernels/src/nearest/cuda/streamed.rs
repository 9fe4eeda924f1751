use blemish_tensor::TensorError;
use blemish_tensor::cuda::Cuda;
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::bank::{BLOCK, MOST, OP, Part, SMALL, Sieve, tensor_cores};
use crate::KernelError;
use crate::cuda::CudaResult;
use crate::error::shape_error;
use crate::nearest::{Isa, Neighbors, finite, squared_rows};

/// As [`Bank::search`](super::Bank::search), for rows `[n, d]` that stay in the host's memory: they go to the GPU in chunks as
/// large as the memory budget allows, the next one while the one before is searched. The results are the same.
///
/// Every search brings the whole bank over the bus, so it pays for many queries at a time.
///
/// # Errors
/// As [`Bank::search`](super::Bank::search); [`TensorError::Budget`] if the budget has no room for a single row.
pub fn search_streamed(
    cuda: &Cuda,
    rows: ArrayView2<'_, f32>,
    query: ArrayView2<'_, f32>,
    k: usize,
) -> CudaResult<Neighbors> {
    let ((n, d), m) = (rows.dim(), query.nrows());
    if n == 0 || d == 0 || d > 1 << 24 || u32::try_from(n).is_err() || query.ncols() != d {
        let wanted = "rows [n, d] and queries [m, d] with 1 <= n < 2^32 and 1 <= d <= 2^24";
        return Err(shape_error(OP, wanted, (rows.shape(), query.shape())).into());
    }
    if k == 0 || k > MOST {
        return Err(KernelError::Parameter { op: OP, what: format!("k = {k}; 1 to {MOST} are possible") }.into());
    }
    let (rows, query) = (rows.as_standard_layout(), query.as_standard_layout());
    let (values, queries) = (finite(OP, "the bank", &rows)?, finite(OP, "the query", &query)?);
    let plan = Plan::new(cuda, n, m, d, k)?;
    let mut best: Vec<Vec<Found>> = vec![Vec::new(); m];
    let mut feed = cuda.feed::<f32>(plan.rows * d)?;
    let chunks: Vec<&[f32]> = values.chunks(plan.rows * d).collect();
    feed.send(chunks[0])?;
    for (i, chunk) in chunks.iter().enumerate() {
        if let Some(next) = chunks.get(i + 1) {
            feed.send(next)?;
        }
        let (buffer, size) = (feed.receive()?, chunk.len() / d);
        let sieve =
            if tensor_cores(cuda) && size >= SMALL { Sieve::new(cuda, chunk, buffer, [size, d])? } else { None };
        let part = Part { cuda, rows: buffer, n: size, d, sieve: sieve.as_ref() };
        let kept = k.min(size);
        let groups = queries.chunks(plan.queries * d).zip(best.chunks_mut(plan.queries));
        for (group, best) in groups {
            let device = cuda.upload(group)?;
            let found = part.search(&device, best.len(), kept)?;
            let (index, distance) = (found.0.read()?, found.1.read()?);
            let found = index.par_chunks_exact(kept).zip(distance.par_chunks_exact(kept));
            best.par_iter_mut().zip(group.par_chunks_exact(d)).zip(found).for_each(
                |((best, query), (index, distance))| {
                    let first = (i * plan.rows) as u32;
                    best.extend(
                        index.iter().zip(distance).map(|(row, &distance)| Found { distance, row: first + row }),
                    );
                    merge(best, k, query, values);
                },
            );
        }
    }
    let kept = k.min(n);
    let (mut index, mut distance) = (Array2::zeros((m, kept)), Array2::zeros((m, kept)));
    for ((mut index, mut distance), found) in
        index.axis_iter_mut(Axis(0)).zip(distance.axis_iter_mut(Axis(0))).zip(&best)
    {
        for ((index, distance), found) in index.iter_mut().zip(&mut distance).zip(found) {
            (*index, *distance) = (found.row, found.distance);
        }
    }
    Ok(Neighbors { index, distance })
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    distance: f32,
    row: u32,
}

/// Sorts and keeps the `k` best. The order is that of squared distances, of which two may have the same root.
fn merge(best: &mut Vec<Found>, k: usize, query: &[f32], bank: &[f32]) {
    let squared = |found: &Found| {
        let mut squared = [0f32];
        squared_rows(Isa::best(), query, &bank[found.row as usize * query.len()..][..query.len()], &mut squared);
        squared[0]
    };
    best.sort_by(|a, b| {
        a.distance.total_cmp(&b.distance).then_with(|| squared(a).total_cmp(&squared(b))).then(a.row.cmp(&b.row))
    });
    best.truncate(k);
}

/// Rows of a chunk, and queries searched together.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    rows: usize,
    queries: usize,
}

impl Plan {
    fn new(cuda: &Cuda, n: usize, m: usize, d: usize, k: usize) -> CudaResult<Self> {
        let (used, budget) = (cuda.memory_used(), cuda.memory_budget());
        let free = budget.saturating_sub(used);
        let half = 2 * d.next_multiple_of(32);
        // Two buffers of rows; their fp16 forms with norms and losses.
        let row = 8 * d + half + 12;
        // Tables that do not grow with the rows, and what else is small.
        let fixed = 8 * d + 1024;
        let rows = (free.saturating_sub(fixed) / 2 / row).min(n).min((i32::MAX as usize - 256) / d.max(1));
        let rows = if rows > BLOCK { rows / BLOCK * BLOCK } else { rows };
        // Bounds of whole blocks, or all distances; a last chunk may be scanned.
        let scanned = if tensor_cores(cuda) { rows.min(SMALL) } else { rows };
        let query = 4 * d + half + 8 + 8 * k + (8 * rows.div_ceil(BLOCK)).max(4 * scanned);
        let queries = (free / 4 / query).min(m.max(1)).min(1 << 15);
        if rows == 0 || queries == 0 {
            return Err(TensorError::Budget { wanted: 2 * row + fixed + 4 * query, used, budget }.into());
        }
        Ok(Plan { rows, queries })
    }
}
