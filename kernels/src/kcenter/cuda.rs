#![allow(unsafe_code)]
//! Exact greedy k-center on a GPU: the picks of the CPU. Within an epoch nothing comes back to the host but the number of
//! picks.
//!
//! | item | what it does |
//! |---|---|
//! | [`greedy`] | picks rows that are each farthest from the earlier ones |
//! | [`Projection`] | the matrix of a [`SparseProjection`](super::SparseProjection), for rows on the GPU |

pub use super::cuda_projection::Projection;

use blemish_tensor::cuda::{Buffer, Cuda};

use super::KCenter;
use crate::KernelError;
use crate::cuda::{CudaResult, KCENTER, THREADS, check, grid};
use crate::error::shape_error;

const OP: &str = "greedy k-center";
/// Points in a pool, at most.
const POOL: usize = 2048;
/// Points of the pool that one block can have, and shared bytes before their rows (`kcenter_greedy`).
const MOST: usize = 112;
const AHEAD: usize = 512;
/// Shared bytes of `kcenter_update` and `kcenter_threshold`.
const TILE: u32 = 20_480;
const SCAN: u32 = 4096;
/// Words of the state, the first of which is the number of picks.
const STATE: usize = 6;

/// As [`greedy`](super::greedy), for `points` `[n, d]` on the GPU, which must be finite.
///
/// # Errors
/// As [`greedy`](super::greedy), but that values are not looked at; the device's.
pub fn greedy(
    cuda: &Cuda,
    points: &Buffer<f32>,
    [n, d]: [usize; 2],
    count: usize,
    start: usize,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> CudaResult<KCenter> {
    if n == 0 || d == 0 || n > i32::MAX as usize - 32 || n.checked_mul(d) != Some(points.len()) {
        let wanted = "points [n, d] with 1 <= n < 2^31 - 32 and d >= 1";
        return Err(shape_error(OP, wanted, ([n, d], points.len())).into());
    }
    if count > n || start >= n {
        let what = format!("{count} picks from row {start} of {n} rows; at most as many picks as rows, a start below");
        return Err(KernelError::Parameter { op: OP, what }.into());
    }
    let mut out = KCenter { picks: Vec::new(), radius: Vec::new() };
    if count == 0 {
        return Ok(out);
    }
    let mut work = Work::new(cuda, points, [n, d], count, start)?;
    let (mut done, mut epoch) = (0, 1);
    while epoch < count {
        if !on_progress(epoch) {
            break;
        }
        work.update(done, epoch - done)?;
        done = epoch;
        work.select()?;
        work.pick()?;
        let mut picked = [0];
        work.state.read_at(0, &mut picked)?;
        let picked = picked[0] as usize;
        if picked <= epoch || picked > count {
            // The first pick of an epoch is certain; points that are not finite have no farthest one.
            return Err(KernelError::NotFinite { op: OP, what: "the distance of a point", index: epoch }.into());
        }
        epoch = picked;
    }
    if epoch == count {
        on_progress(count);
    }
    let (mut picks, mut squared) = (vec![0; epoch], vec![0.0; epoch]);
    work.picks.read_at(0, &mut picks)?;
    work.squared.read_at(0, &mut squared)?;
    out.picks = picks.into_iter().map(|p| p as usize).collect();
    out.radius = squared.into_iter().map(f32::sqrt).collect();
    Ok(out)
}

/// What lies on the GPU.
struct Work<'a> {
    cuda: &'a Cuda,
    points: &'a Buffer<f32>,
    n: usize,
    d: usize,
    count: usize,
    size: usize,
    /// Blocks of the picking kernel, the rows of each that lie in shared memory, and how many bytes that takes.
    blocks: u32,
    rows: usize,
    shared: u32,
    near: Buffer<f32>,
    histogram: Buffer<u32>,
    state: Buffer<u32>,
    pool: Buffer<u32>,
    best: Buffer<u64>,
    farthest: Buffer<u64>,
    picks: Buffer<u32>,
    squared: Buffer<f32>,
}

impl<'a> Work<'a> {
    fn new(
        cuda: &'a Cuda,
        points: &'a Buffer<f32>,
        [n, d]: [usize; 2],
        count: usize,
        start: usize,
    ) -> CudaResult<Self> {
        check(OP, &[d, AHEAD], d.saturating_mul(AHEAD))?;
        // Rows in shared memory if a block can hold a few; else they come from the second-level cache.
        let room = (cuda.info().shared_memory as usize).saturating_sub(AHEAD) / (4 * d);
        let multiprocessors = cuda.info().multiprocessors.max(1) as usize;
        let share = POOL.div_ceil(multiprocessors).min(MOST);
        let rows = if room >= 4 { share.min(room) } else { 0 };
        let shared = u32::try_from(AHEAD + 4 * rows * d).unwrap_or(u32::MAX);
        let fit = cuda.launch(KCENTER, "kcenter_greedy")?.resident(THREADS, shared)?;
        let blocks = fit.min(cuda.info().multiprocessors).max(1);
        let each = if rows > 0 { rows } else { share };
        let size = (blocks as usize * each).min(POOL);
        let mut state = cuda.zeros(STATE)?;
        state.write_at(0, &[1])?;
        let (mut picks, mut squared) = (cuda.scratch(count)?, cuda.scratch(count)?);
        picks.write_at(0, &[start as u32])?;
        squared.write_at(0, &[f32::INFINITY])?;
        Ok(Work {
            cuda,
            points,
            n,
            d,
            count,
            size,
            blocks,
            rows,
            shared,
            near: cuda.upload(&vec![f32::INFINITY; n])?,
            histogram: cuda.zeros(1 << 16)?,
            state,
            pool: cuda.scratch(size)?,
            best: cuda.scratch(2 * blocks as usize)?,
            farthest: cuda.zeros(1)?,
            picks,
            squared,
        })
    }

    /// Brings all points up to date with `count` picks from `first` on.
    fn update(&mut self, first: usize, count: usize) -> CudaResult<()> {
        let launch = self.cuda.launch(KCENTER, "kcenter_update")?.input(self.points).output(&mut self.near);
        let launch = launch.input(&self.picks).int(first).int(count).int(self.n).int(self.d);
        // SAFETY: `near` has n values, first + count picks are made, all of them rows of `points` [n, d].
        unsafe { launch.run((grid(self.n, 64), 1), THREADS, TILE) }?;
        Ok(())
    }

    /// Finds the threshold and collects the pool.
    fn select(&mut self) -> CudaResult<()> {
        self.farthest.clear()?;
        let blocks = grid(self.n, THREADS as usize).min(self.cuda.info().multiprocessors.max(1) * 8);
        for level in 0..2 {
            let launch = self.cuda.launch(KCENTER, "kcenter_histogram")?.input(&self.near).output(&mut self.histogram);
            let launch = launch.input(&self.state).output(&mut self.farthest).int(self.n).int(level);
            // SAFETY: 2^16 bins, n values.
            unsafe { launch.run((blocks, 1), THREADS, 0) }?;
            let launch = self.cuda.launch(KCENTER, "kcenter_threshold")?.output(&mut self.histogram);
            let launch = launch.output(&mut self.state).int(self.size).int(level);
            // SAFETY: one block over 2^16 bins; 4096 shared bytes hold its 1024 sums.
            unsafe { launch.run((1, 1), 1024, SCAN) }?;
        }
        let launch = self.cuda.launch(KCENTER, "kcenter_collect")?.input(&self.near).output(&mut self.state);
        let launch = launch.output(&mut self.pool).int(self.n);
        // SAFETY: at most `size` values are above the threshold.
        unsafe { launch.run((grid(self.n, THREADS as usize), 1), THREADS, 0) }?;
        Ok(())
    }

    fn pick(&mut self) -> CudaResult<()> {
        let launch = self.cuda.launch(KCENTER, "kcenter_greedy")?.input(self.points).input(&self.near);
        let launch = launch.output(&mut self.state).input(&self.pool).output(&mut self.best).input(&self.farthest);
        let launch =
            launch.output(&mut self.picks).output(&mut self.squared).int(self.count).int(self.d).int(self.rows);
        // SAFETY: the pool's points, spread over the blocks, are at most `rows` (or 112) for each, for which there is room;
        // `best` has two values a block; at most `count` picks are written.
        unsafe { launch.run_cooperative(self.blocks, THREADS, self.shared) }?;
        Ok(())
    }
}
