#![allow(unsafe_code)]
use blemish_tensor::TensorError;
use blemish_tensor::cuda::{Buffer, Cuda, Launch, Plain};

use super::super::moments::{CHUNK, F64_BYTES, too_few};
use super::{Level, Tables};
use crate::KernelError;
use crate::cuda::{CudaResult, MOMENTS, THREADS, check};
use crate::mahalanobis::{Layout, PAD};

const OP: &str = "mahalanobis moments on a GPU";
/// Shared bytes of `moments_factor`, and rows it makes at a time.
const FACTOR: u32 = 33_792;
const TILE: usize = 32;

/// Means and covariances of all groups of a [`Layout`], in one pass on a GPU; see
/// [`mahalanobis::Moments`](crate::mahalanobis::Moments), whose totals have the same types.
///
/// Memory: the totals, and for [`factor`](Self::factor) the unpacked factors of all levels but the last, in `f64`.
pub struct Moments {
    cuda: Cuda,
    layout: Layout,
    tables: Tables,
    count: usize,
    /// All levels one after the other, `[group, row]`.
    shift: Buffer<f32>,
    sum: Buffer<f64>,
    products: Products,
}

/// `[level][group, packed rows]`.
enum Products {
    F32(Vec<Buffer<f32>>),
    F64(Vec<Buffer<f64>>),
}

impl Moments {
    /// No pictures yet.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] for more than 4 maps; the device's, if the totals do not fit for instance.
    pub fn new(cuda: &Cuda, layout: Layout) -> CudaResult<Self> {
        let tables = Tables::new(cuda, &layout)?;
        let values = tables.levels.iter().map(|l| l.groups * (l.b - l.a)).sum();
        let lengths = tables.levels.iter().map(|l| l.groups * l.floats());
        let products = if in_f64(&layout) {
            Products::F64(lengths.map(|n| cuda.zeros(n)).collect::<Result<_, _>>()?)
        } else {
            Products::F32(lengths.map(|n| cuda.zeros(n)).collect::<Result<_, _>>()?)
        };
        let (shift, sum) = (cuda.zeros(values)?, cuda.zeros(values)?);
        Ok(Moments { cuda: cuda.clone(), layout, tables, count: 0, shift, sum, products })
    }

    /// Bytes that totals and factors of a layout take on the GPU, about.
    pub fn bytes(layout: &Layout) -> usize {
        let total = if in_f64(layout) { 8 } else { 4 };
        let last = layout.levels() - 1;
        let above = |l: usize| layout.groups(l) * layout.rows(l).len() * layout.rows(l).end * 8;
        let own = layout.rows(last).end * (layout.rows(last).len() + TILE) * 8;
        layout.floats() * total + (0..last).map(above).sum::<usize>() + own
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Pictures so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds `n` more pictures from one buffer `[n, h, w, c]` for each map.
    ///
    /// # Errors
    /// [`KernelError::Shape`](crate::KernelError::Shape) for other buffers; the device's, also for more channels than its
    /// shared memory holds.
    pub fn push(&mut self, maps: &[&Buffer<f32>], n: usize) -> CudaResult<()> {
        self.tables.check(maps, n)?;
        check(OP, &[n], n)?;
        if self.count == 0 {
            self.set_shift(maps, n)?;
        }
        let Moments { cuda, tables, shift, sum, products, .. } = self;
        let levels = tables.levels.len();
        for (i, level) in tables.levels.iter().enumerate() {
            // As many pictures at a time as shared memory holds.
            let most = (cuda.info().shared_memory.max(48 << 10) as usize / (16 * level.b)).clamp(1, CHUNK / 4);
            // Enough blocks for all multiprocessors.
            let parts = (4 * cuda.info().multiprocessors as usize).div_ceil(level.groups).clamp(1, 8) as u32;
            for first in (0..n).step_by(4 * most) {
                let quads = (n - first).div_ceil(4).min(most);
                let name = match products {
                    Products::F32(_) => "moments_add_f32",
                    Products::F64(_) => "moments_add_f64",
                };
                let launch = tables.read(cuda.launch(MOMENTS, name)?, maps).input(&tables.mean_at);
                let launch = launch.input(&tables.mean_rows).input(&level.area).input(&level.ancestor).input(&*shift);
                let launch = match products {
                    Products::F32(products) => launch.output(sum).output(&mut products[i]),
                    Products::F64(products) => launch.output(sum).output(&mut products[i]),
                };
                let launch = launch.int(i).int(levels).int(level.a).int(level.b).int(first).int(n).int(quads);
                let launch = launch.int(tables.grid.0).int(tables.grid.1);
                // SAFETY: the tables were made from the layout, whose indices lie inside maps, shift and sums; the totals
                // have the level's rows of the triangle for each group; shared memory holds 4 quads pictures of b entries.
                unsafe { launch.run((level.groups as u32, parts), THREADS, (16 * level.b * quads) as u32) }?;
            }
        }
        self.count += n;
        Ok(())
    }

    fn set_shift(&mut self, maps: &[&Buffer<f32>], n: usize) -> CudaResult<()> {
        let tables = &self.tables;
        for (i, level) in tables.levels.iter().enumerate() {
            let launch: Launch<'_> = tables.read(self.cuda.launch(MOMENTS, "moments_shift")?, maps);
            let launch = launch.input(&tables.mean_at).input(&tables.mean_rows).input(&level.area);
            let launch = launch.input(&level.ancestor).output(&mut self.shift).int(i).int(level.a).int(level.b).int(n);
            let launch = launch.int(tables.grid.0).int(tables.grid.1);
            // SAFETY: as in `push`; `shift` has the level's rows for each group from `mean_at` on.
            unsafe { launch.run((level.groups as u32, 1), THREADS, 0) }?;
        }
        Ok(())
    }

    /// Means, one `[groups, rows]` for each level.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] if a feature was NaN or infinite; the device's.
    pub fn mean(&self) -> CudaResult<Vec<Vec<f32>>> {
        let n = self.count.max(1) as f64;
        let (shift, sum) = (self.shift.read()?, self.sum.read()?);
        let all: Vec<f32> = shift.iter().zip(&sum).map(|(m, s)| (f64::from(*m) + s / n) as f32).collect();
        if let Some(index) = all.iter().position(|m| !m.is_finite()) {
            return Err(KernelError::NotFinite { op: OP, what: "a feature mean", index }.into());
        }
        let mut rest = all.as_slice();
        let level = |l: &Level| {
            let (own, after) = rest.split_at(l.groups * (l.b - l.a));
            rest = after;
            own.to_vec()
        };
        Ok(self.tables.levels.iter().map(level).collect())
    }

    /// The inverse Cholesky factors of `covariance + epsilon I` (divisor `N - 1`), packed: one tensor of
    /// [`Layout::weight_len`] floats for each level.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] for fewer than two pictures, or a covariance that is not positive definite; the device's.
    pub fn factor(self, epsilon: f64) -> CudaResult<Vec<Vec<f32>>> {
        if self.count < 2 {
            return Err(too_few(self.count).into());
        }
        let Moments { cuda, tables, count, sum, products, .. } = self;
        let mut starts = vec![0i32];
        starts.extend(tables.levels.iter().map(|l| l.b as i32));
        let job = Job {
            constants: cuda.upload(&[count as f64, epsilon])?,
            starts: cuda.upload(&starts)?,
            failed: cuda.zeros(1)?,
            unused: cuda.zeros(1)?,
            cuda: &cuda,
            tables: &tables,
            sum,
            above: Vec::new(),
        };
        match products {
            Products::F32(products) => job.levels("moments_covariance_f32", products),
            Products::F64(products) => job.levels("moments_covariance_f64", products),
        }
    }
}

/// What factoring reads, and the unpacked factors of the levels done.
struct Job<'a> {
    cuda: &'a Cuda,
    tables: &'a Tables,
    sum: Buffer<f64>,
    constants: Buffer<f64>,
    starts: Buffer<i32>,
    failed: Buffer<u32>,
    unused: Buffer<f64>,
    above: Vec<Buffer<f64>>,
}

impl Job<'_> {
    fn levels<T: Plain>(mut self, kernel: &'static str, products: Vec<Buffer<T>>) -> CudaResult<Vec<Vec<f32>>> {
        let mut weights = Vec::with_capacity(products.len());
        for (i, product) in products.into_iter().enumerate() {
            weights.push(self.level(kernel, i, &product)?);
            let failed = self.failed.read()?[0];
            if failed > 0 {
                let what = format!("the covariance of group {} of level {i} is not positive definite", failed - 1);
                return Err(KernelError::Parameter { op: OP, what }.into());
            }
        }
        Ok(weights)
    }

    /// The weights of one level, some groups at a time.
    fn level<T: Plain>(&mut self, kernel: &'static str, i: usize, product: &Buffer<T>) -> CudaResult<Vec<f32>> {
        let Job { cuda, tables, sum, constants, starts, failed, unused, above } = self;
        let level = &tables.levels[i];
        let (levels, height, last) = (tables.levels.len(), level.b - level.a, i + 1 == tables.levels.len());
        let (own, floats) = (height * level.b, level.floats());
        let mut weight = vec![0f32; level.groups * floats + PAD];
        // Later levels read the whole of one that is not the last; of the last some groups are enough.
        let mut whole = if last { None } else { Some(cuda.scratch::<f64>(level.groups * own)?) };
        let each = 8 * TILE * level.b + 4 * floats + if last { 8 * own } else { 0 };
        let (budget, used) = (cuda.memory_budget(), cuda.memory_used());
        let some = (budget.saturating_sub(used) / 2 / each).min(level.groups).min(1 << 20);
        if some == 0 {
            return Err(TensorError::Budget { wanted: 2 * each, used, budget }.into());
        }
        let mut part = cuda.scratch::<f64>(if last { some * own } else { 0 })?;
        let mut scratch = cuda.scratch::<f64>(some * TILE * level.b)?;
        let mut packed = cuda.scratch::<f32>(some * floats)?;
        let wide = own.div_ceil(8 * THREADS as usize).clamp(1, 64) as u32;
        for start in (0..level.groups).step_by(some) {
            let count = some.min(level.groups - start);
            let (rows, place) = whole.as_mut().map_or((&mut part, 0), |whole| (whole, start));
            let launch = cuda.launch(MOMENTS, kernel)?.input(product).input(&*sum).input(&tables.channel);
            let launch = launch.input(&tables.mean_at).input(&tables.mean_rows).input(&level.ancestor);
            let launch = launch.input(&*constants).output(rows).int(levels).int(level.a).int(level.b);
            // SAFETY: products of the level's groups, sums of all levels; `rows` has `height` rows of b values for the groups
            // from `place` on.
            unsafe { launch.int(start).int(place).run((count as u32, wide), THREADS, 0) }?;
            let leading = |n: usize| above.get(n).unwrap_or(unused);
            let launch = cuda.launch(MOMENTS, "moments_factor")?.input(leading(0)).input(leading(1)).input(leading(2));
            let launch = launch.input(&*starts).input(&level.ancestor).output(rows).output(&mut scratch);
            let launch = launch.output(failed).int(i).int(levels).int(level.a).int(level.b);
            // SAFETY: as above; of the levels above, at most three, all groups are there; `scratch` has 32 rows of b values
            // for each block.
            unsafe { launch.int(start).int(place).run((count as u32, 1), THREADS, FACTOR) }?;
            let launch = cuda.launch(MOMENTS, "moments_pack")?.input(&*rows).output(&mut packed);
            // SAFETY: as above; `packed` has the packed rows of each block's group.
            unsafe { launch.int(level.a).int(level.b).int(place).run((count as u32, wide), THREADS, 0) }?;
            packed.read_at(0, &mut weight[start * floats..(start + count) * floats])?;
        }
        self.above.extend(whole);
        Ok(weight)
    }
}

impl Level {
    /// Floats of a group's rows of the triangle.
    fn floats(&self) -> usize {
        let triangle = |n: usize| n * (n + 1) / 2;
        triangle(self.b) - triangle(self.a)
    }
}

fn in_f64(layout: &Layout) -> bool {
    layout.floats() * size_of::<f64>() <= F64_BYTES
}
