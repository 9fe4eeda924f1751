#![allow(unsafe_code)]
use blemish_tensor::TensorError;
use blemish_tensor::cuda::{Buffer, Cuda, Launch};

use super::super::moments::{CHUNK, F64_BYTES, too_few};
use super::{Level, Tables, stride};
use crate::KernelError;
use crate::cuda::{CudaResult, MOMENTS, THREADS, check};
use crate::mahalanobis::{Layout, PAD};

const OP: &str = "mahalanobis moments on a GPU";
/// Shared bytes of `moments_factor`, and rows it makes at a time.
const FACTOR: u32 = 34_816;
const TILE: usize = 32;
/// Threads of `moments_factor`.
const FACTOR_THREADS: u32 = 128;
/// Shared bytes of `moments_pack`, and rows and columns it turns at a time.
const PACK: u32 = 4160;
const PANEL: usize = 16;
const WIDE: usize = 64;

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

/// `[level][group, totals]`; kernels/cu/moments.cu says how they lie.
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
        let lengths = tables.levels.iter().map(|l| l.groups * l.totals());
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
        let all = |l: usize| layout.groups(l) * totals(layout.rows(l).start, layout.rows(l).end) * total;
        (0..=last).map(all).sum::<usize>() + (0..last).map(above).sum::<usize>() + own
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
            let pitch = level.a + (level.b - level.a).next_multiple_of(PANEL);
            let most = (cuda.info().shared_memory.max(48 << 10) as usize / (16 * pitch)).clamp(1, CHUNK / 4);
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
                // have those of the level for each group; shared memory holds 4 quads pictures of `pitch` entries.
                unsafe { launch.run((level.groups as u32, parts), THREADS, (16 * pitch * quads) as u32) }?;
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
        self.levels(epsilon, |job, i| {
            let level = &job.tables.levels[i];
            let mut weight = vec![0f32; level.groups * level.floats() + PAD];
            job.level(i, Packed::Read(&mut weight))?;
            Ok(weight)
        })
    }

    /// As [`factor`](Self::factor), left on the GPU: what [`Gaussians::fitted`](super::Gaussians::fitted) takes.
    ///
    /// # Errors
    /// As [`factor`](Self::factor).
    pub fn factor_there(self, epsilon: f64) -> CudaResult<Vec<Buffer<f32>>> {
        self.levels(epsilon, |job, i| {
            let level = &job.tables.levels[i];
            let mut weight = job.cuda.zeros(level.groups * stride(level.floats()))?;
            job.level(i, Packed::Kept(&mut weight))?;
            Ok(weight)
        })
    }

    fn levels<W>(self, epsilon: f64, one: impl Fn(&mut Job<'_>, usize) -> CudaResult<W>) -> CudaResult<Vec<W>> {
        if self.count < 2 {
            return Err(too_few(self.count).into());
        }
        let Moments { cuda, tables, count, sum, mut products, .. } = self;
        let mut starts = vec![0i32];
        starts.extend(tables.levels.iter().map(|l| l.b as i32));
        match &mut products {
            Products::F32(all) => all.reverse(),
            Products::F64(all) => all.reverse(),
        }
        let n = count as f64;
        let mut job = Job {
            constants: cuda.upload(&[n, epsilon, 1.0 / n, 1.0 / (n - 1.0)])?,
            starts: cuda.upload(&starts)?,
            failed: cuda.zeros(1)?,
            unused: cuda.zeros(1)?,
            cuda: &cuda,
            tables: &tables,
            sum,
            products,
            above: Vec::new(),
        };
        let mut weights = Vec::with_capacity(tables.levels.len());
        for i in 0..tables.levels.len() {
            weights.push(one(&mut job, i)?);
            let failed = job.failed.read()?[0];
            if failed > 0 {
                let what = format!("the covariance of group {} of level {i} is not positive definite", failed - 1);
                return Err(KernelError::Parameter { op: OP, what }.into());
            }
        }
        Ok(weights)
    }
}

/// Where the packed factors of a level go.
enum Packed<'a> {
    /// All of them to one buffer.
    Kept(&'a mut Buffer<f32>),
    /// Some at a time to the host.
    Read(&'a mut [f32]),
}

/// What factoring reads, and the unpacked factors of the levels done.
struct Job<'a> {
    cuda: &'a Cuda,
    tables: &'a Tables,
    sum: Buffer<f64>,
    /// Of the levels not yet done, the next one last.
    products: Products,
    constants: Buffer<f64>,
    starts: Buffer<i32>,
    failed: Buffer<u32>,
    unused: Buffer<f64>,
    above: Vec<Buffer<f64>>,
}

impl Job<'_> {
    /// The weights of one level, some groups at a time.
    fn level(&mut self, i: usize, mut out: Packed<'_>) -> CudaResult<()> {
        let Job { cuda, tables, sum, products, constants, starts, failed, unused, above } = self;
        let level = &tables.levels[i];
        let (levels, height, last) = (tables.levels.len(), level.b - level.a, i + 1 == tables.levels.len());
        let (own, floats) = (height * level.b, level.floats());
        // Later levels read the whole of one that is not the last; of the last some groups are enough.
        let mut whole = if last { None } else { Some(cuda.scratch::<f64>(level.groups * own)?) };
        let read = matches!(out, Packed::Read(_));
        let each = 8 * TILE * level.b + if read { 4 * floats } else { 0 } + if last { 8 * own } else { 0 };
        let (budget, used) = (cuda.memory_budget(), cuda.memory_used());
        let some = (budget.saturating_sub(used) / 2 / each).min(level.groups).min(1 << 20);
        if some == 0 {
            return Err(TensorError::Budget { wanted: 2 * each, used, budget }.into());
        }
        let mut part = cuda.scratch::<f64>(if last { some * own } else { 0 })?;
        let mut scratch = cuda.scratch::<f64>(some * TILE * level.b)?;
        let mut packed = cuda.scratch::<f32>(if read { some * floats } else { 0 })?;
        let wide = own.div_ceil(8 * THREADS as usize).clamp(1, 64) as u32;
        let turns = (level.a..level.b).step_by(PANEL).map(|r0| (r0 + PANEL).div_ceil(WIDE)).sum::<usize>();
        for start in (0..level.groups).step_by(some) {
            let count = some.min(level.groups - start);
            let (rows, place) = whole.as_mut().map_or((&mut part, 0), |whole| (whole, start));
            let launch = match &*products {
                Products::F32(all) => cuda.launch(MOMENTS, "moments_covariance_f32")?.input(&all[all.len() - 1]),
                Products::F64(all) => cuda.launch(MOMENTS, "moments_covariance_f64")?.input(&all[all.len() - 1]),
            };
            let launch = launch.input(&*sum).input(&tables.channel).input(&tables.mean_at).input(&tables.mean_rows);
            let launch = launch.input(&level.ancestor).input(&*constants).output(rows).int(levels);
            let launch = launch.int(level.a).int(level.b).int(start).int(place);
            // SAFETY: totals of the level's groups, sums of all levels; `rows` has `height` rows of b values for the groups
            // from `place` on.
            unsafe { launch.run((count as u32, wide), THREADS, 0) }?;
            let leading = |n: usize| above.get(n).unwrap_or(unused);
            let launch = cuda.launch(MOMENTS, "moments_factor")?.input(leading(0)).input(leading(1)).input(leading(2));
            let launch = launch.input(&*starts).input(&level.ancestor).output(rows).output(&mut scratch);
            let launch = launch.output(failed).int(i).int(levels).int(level.a).int(level.b);
            // SAFETY: as above; of the levels above, at most three, all groups are there; `scratch` has 32 rows of b values
            // for each block.
            unsafe { launch.int(start).int(place).run((count as u32, 1), FACTOR_THREADS, FACTOR) }?;
            let (to, at, each) = match &mut out {
                Packed::Kept(all) => (&mut **all, start, stride(floats)),
                Packed::Read(_) => (&mut packed, 0, floats),
            };
            let launch = cuda.launch(MOMENTS, "moments_pack")?.input(&*rows).output(to);
            let launch = launch.int(level.a).int(level.b).int(place).int(at).int(each);
            // SAFETY: as above; the packed rows of the blocks' groups lie in `to` from group `at` on, `each` apart.
            unsafe { launch.run((count as u32, turns.div_ceil(4) as u32), THREADS, PACK) }?;
            if let Packed::Read(weight) = &mut out {
                packed.read_at(0, &mut weight[start * floats..(start + count) * floats])?;
            }
        }
        match products {
            Products::F32(all) => drop(all.pop()),
            Products::F64(all) => drop(all.pop()),
        }
        self.above.extend(whole);
        Ok(())
    }
}

impl Level {
    /// Floats of a group's rows of the triangle.
    pub(super) fn floats(&self) -> usize {
        let triangle = |n: usize| n * (n + 1) / 2;
        triangle(self.b) - triangle(self.a)
    }

    /// Totals of a group, as the kernels lay them out.
    fn totals(&self) -> usize {
        totals(self.a, self.b)
    }
}

/// Whole panels of rows, each with as many columns as its last row has.
fn totals(a: usize, b: usize) -> usize {
    let panels = (b - a).div_ceil(PANEL);
    PANEL * panels * a + 128 * panels * (panels + 1)
}

fn in_f64(layout: &Layout) -> bool {
    layout.floats() * size_of::<f64>() <= F64_BYTES
}
