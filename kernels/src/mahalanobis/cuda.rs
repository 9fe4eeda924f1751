#![allow(unsafe_code)]
//! Mahalanobis distance and its fit on a GPU, from feature maps that are there. The forms, layouts and tensors are those of the
//! CPU; sums run in another order, so distances agree to rounding.
//!
//! | item | what it is |
//! |---|---|
//! | [`Moments`] | means and covariances in one pass, and their inverse Cholesky factors |
//! | [`Gaussians`] | the distances of a batch |

mod moments;

pub use moments::Moments;

use blemish_tensor::cuda::{Buffer, Cuda, Launch};

use super::Layout;
use super::layout::At;
use crate::KernelError;
use crate::cuda::{CudaResult, MAHALANOBIS, check, ints};
use crate::error::shape_error;

const OP: &str = "mahalanobis distance on a GPU";
/// Feature maps that a layout may have here, at most.
pub const MAPS: usize = 4;
/// Pictures that a block has.
const PICTURES: usize = 4;

/// The Gaussians of all positions, on a GPU.
pub struct Gaussians {
    cuda: Cuda,
    tables: Tables,
    mean: Buffer<f32>,
    form: Form,
}

/// A layout, as the kernels read it.
struct Tables {
    grid: (usize, usize),
    maps: Vec<[usize; 3]>,
    levels: Vec<Level>,
    shape: Buffer<i32>,
    channel: Buffer<u32>,
    mean_at: Buffer<u64>,
    mean_rows: Buffer<i32>,
}

struct Level {
    a: usize,
    b: usize,
    groups: usize,
    area: Buffer<i32>,
    ancestor: Buffer<u32>,
}

enum Form {
    Triangle(Vec<Buffer<f32>>),
    LowRank { basis: Buffer<f32>, scale: Buffer<f32>, rank: usize, epsilon: f32 },
}

impl std::fmt::Debug for Gaussians {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tables { grid, levels, .. } = &self.tables;
        let d = levels.last().map_or(0, |l| l.b);
        write!(f, "Gaussians({grid:?}, {d} channels, {} levels, on {:?})", levels.len(), self.cuda)
    }
}

impl Gaussians {
    /// Copies packed triangles to the GPU; the arguments of [`distance`](super::distance).
    ///
    /// # Errors
    /// [`KernelError::Shape`] if they do not belong together, [`KernelError::Parameter`] for more than 4 maps; the device's.
    pub fn triangle(cuda: &Cuda, layout: &Layout, mean: &[&[f32]], weight: &[&[f32]]) -> CudaResult<Self> {
        check_weights(layout, weight.iter().map(|w| w.len()))?;
        let weight = weight.iter().map(|w| cuda.upload(w)).collect::<Result<_, _>>()?;
        Gaussians::new(cuda, layout, mean, Form::Triangle(weight))
    }

    /// Takes packed triangles that are on the GPU, of [`Moments::factor_there`], one buffer a level.
    ///
    /// # Errors
    /// As [`triangle`](Self::triangle).
    pub fn fitted(cuda: &Cuda, layout: &Layout, mean: &[&[f32]], weight: Vec<Buffer<f32>>) -> CudaResult<Self> {
        check_weights(layout, weight.iter().map(Buffer::len))?;
        Gaussians::new(cuda, layout, mean, Form::Triangle(weight))
    }

    /// Copies orthonormal bases to the GPU; the arguments of [`distance_low_rank`](super::distance_low_rank).
    ///
    /// # Errors
    /// As [`triangle`](Self::triangle); [`KernelError::Parameter`] unless `epsilon` is positive.
    pub fn low_rank(
        cuda: &Cuda,
        layout: &Layout,
        mean: &[&[f32]],
        basis: &[f32],
        scale: &[f32],
        epsilon: f32,
    ) -> CudaResult<Self> {
        let (d, groups) = (layout.channels().len(), layout.groups(layout.levels() - 1));
        let rank = scale.len() / groups.max(1);
        if scale.len() != groups * rank || basis.len() != groups * rank * d {
            let wanted = format!("basis [{groups}, k, {d}], scale [{groups}, k]");
            return Err(shape_error(OP, wanted, [basis.len(), scale.len()]).into());
        }
        if !(epsilon.is_finite() && epsilon > 0.0) {
            let what = format!("epsilon is {epsilon}; it must be positive");
            return Err(KernelError::Parameter { op: OP, what }.into());
        }
        let form = Form::LowRank { basis: cuda.upload(basis)?, scale: cuda.upload(scale)?, rank, epsilon };
        Gaussians::new(cuda, layout, mean, form)
    }

    fn new(cuda: &Cuda, layout: &Layout, mean: &[&[f32]], form: Form) -> CudaResult<Self> {
        let fits = |(level, m): (usize, &&[f32])| m.len() == layout.groups(level) * layout.rows(level).len();
        if mean.len() != layout.levels() || !mean.iter().enumerate().all(fits) {
            let got: Vec<usize> = mean.iter().map(|m| m.len()).collect();
            return Err(shape_error(OP, "means [groups, rows] for each level", got).into());
        }
        let tables = Tables::new(cuda, layout)?;
        Ok(Gaussians { cuda: cuda.clone(), tables, mean: cuda.upload(&mean.concat())?, form })
    }

    /// Distances `[n, height, width]` of `n` pictures from one buffer `[n, h, w, c]` for each map.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for other buffers; the device's, also for more channels than its shared memory holds.
    pub fn distance(&self, maps: &[&Buffer<f32>], n: usize) -> CudaResult<Buffer<f32>> {
        self.tables.check(maps, n)?;
        let Tables { grid: (height, width), levels, .. } = &self.tables;
        let values = n.saturating_mul(*height).saturating_mul(*width);
        check(OP, &[values], values)?;
        let mut out = self.cuda.scratch(values)?;
        match &self.form {
            Form::Triangle(weights) => self.triangles(weights, maps, n, &mut out)?,
            Form::LowRank { basis, scale, rank, epsilon } => {
                let Some(level) = levels.last() else { return Ok(out) };
                let launch =
                    self.begin("mahalanobis_low_rank", maps, level)?.input(basis).input(scale).output(&mut out);
                let launch = launch.float(*epsilon).int(*rank).int(levels.len()).int(level.b).int(n);
                let launch = launch.int(*height).int(*width);
                // SAFETY: the tables were made from the layout, whose indices lie inside maps and means; basis and scale
                // have rank rows for each group; areas lie inside the grid, which `out` has n of.
                unsafe { launch.run(grid(level, n), 128, 16 * level.b as u32) }?;
            }
        }
        Ok(out)
    }

    fn triangles(
        &self,
        weights: &[Buffer<f32>],
        maps: &[&Buffer<f32>],
        n: usize,
        out: &mut Buffer<f32>,
    ) -> CudaResult<()> {
        let [warps] = self.cuda.parameter(MAHALANOBIS, "MAHALANOBIS_WARPS")?;
        let warps = warps as u32;
        let mut parents = self.cuda.scratch::<f32>(1)?;
        for (i, (level, weight)) in self.tables.levels.iter().zip(weights).enumerate() {
            let mut sums = self.cuda.scratch::<f32>(level.groups.saturating_mul(n))?;
            let launch = self.begin("mahalanobis_triangle", maps, level)?.input(weight).input(&parents);
            let launch =
                launch.output(&mut sums).output(out).int(i).int(self.tables.levels.len()).int(level.a).int(level.b);
            let launch = launch.int(n).int(self.tables.grid.0).int(self.tables.grid.1);
            // SAFETY: as above; weights have the level's rows of the triangle for each group, `sums` n values for each
            // group, `parents` those of the level before.
            unsafe { launch.run(grid(level, n), 32 * warps, 16 * (warps + level.b as u32)) }?;
            parents = sums;
        }
        Ok(())
    }

    /// A launch with the arguments that both kernels begin with.
    fn begin<'a>(&'a self, kernel: &'static str, maps: &[&'a Buffer<f32>], level: &'a Level) -> CudaResult<Launch<'a>> {
        let tables = &self.tables;
        let launch = tables.read(self.cuda.launch(MAHALANOBIS, kernel)?, maps).input(&self.mean).input(&tables.mean_at);
        Ok(launch.input(&tables.mean_rows).input(&level.area).input(&level.ancestor))
    }
}

impl Tables {
    fn new(cuda: &Cuda, layout: &Layout) -> CudaResult<Self> {
        let maps: Vec<[usize; 3]> = layout.maps().collect();
        if maps.len() > MAPS {
            let what = format!("{} feature maps; up to {MAPS} are possible", maps.len());
            return Err(KernelError::Parameter { op: OP, what }.into());
        }
        let rows: Vec<usize> = (0..layout.levels()).map(|level| layout.rows(level).len()).collect();
        let starts = (0..layout.levels()).scan(0u64, |at, level| {
            let own = *at;
            *at += (layout.groups(level) * layout.rows(level).len()) as u64;
            Some(own)
        });
        let levels = (0..layout.levels()).map(|level| Level::new(cuda, layout, level)).collect::<CudaResult<_>>()?;
        Ok(Tables {
            grid: layout.grid(),
            levels,
            shape: cuda.upload(&ints(OP, maps.iter().flatten().copied())?)?,
            channel: cuda.upload(&channels(layout, &maps))?,
            mean_at: cuda.upload(&starts.collect::<Vec<u64>>())?,
            mean_rows: cuda.upload(&ints(OP, rows)?)?,
            maps,
        })
    }

    /// Refuses anything but the maps of `n` >= 1 pictures.
    fn check(&self, maps: &[&Buffer<f32>], n: usize) -> CudaResult<()> {
        let fits = |(map, size): (&&Buffer<f32>, &[usize; 3])| n.checked_mul(size.iter().product()) == Some(map.len());
        if maps.len() != self.maps.len() || n == 0 || !maps.iter().zip(&self.maps).all(fits) {
            let got: Vec<usize> = maps.iter().map(|m| m.len()).collect();
            return Err(shape_error(OP, format!("maps of {n} >= 1 pictures of {:?}", self.maps), got).into());
        }
        Ok(())
    }

    /// The arguments that all kernels begin with.
    fn read<'a>(&'a self, mut launch: Launch<'a>, maps: &[&'a Buffer<f32>]) -> Launch<'a> {
        for i in 0..MAPS {
            // No channel names a map that is not there.
            if let Some(map) = maps.get(i).or(maps.first()) {
                launch = launch.input(*map);
            }
        }
        launch.input(&self.shape).input(&self.channel)
    }
}

impl Level {
    fn new(cuda: &Cuda, layout: &Layout, level: usize) -> CudaResult<Self> {
        let rows = layout.rows(level);
        let (height, width) = layout.level(level).groups();
        let (mut area, mut ancestor) = (Vec::new(), Vec::new());
        for y in 0..height {
            for x in 0..width {
                let (ys, xs) = layout.area(At { level, y, x });
                for above in 0..layout.levels() {
                    ancestor.push(if above <= level { layout.group(above, ys.start, xs.start)? as u32 } else { 0 });
                }
                area.extend([ys.start, ys.end, xs.start, xs.end]);
            }
        }
        let area = cuda.upload(&ints(OP, area)?)?;
        Ok(Level { a: rows.start, b: rows.end, groups: height * width, area, ancestor: cuda.upload(&ancestor)? })
    }
}

fn check_weights(layout: &Layout, lengths: impl Iterator<Item = usize>) -> CudaResult<()> {
    let got: Vec<usize> = lengths.collect();
    if got.len() != layout.levels() || !got.iter().enumerate().all(|(level, len)| *len == layout.weight_len(level)) {
        return Err(shape_error(OP, "a weight tensor for each level", got).into());
    }
    Ok(())
}

/// Map, channel in it, level and place in the level of each entry of the embedding.
fn channels(layout: &Layout, maps: &[[usize; 3]]) -> Vec<u32> {
    let mut table = Vec::with_capacity(4 * layout.channels().len());
    for level in 0..layout.levels() {
        for (place, entry) in layout.rows(level).enumerate() {
            let (mut map, mut channel) = (0, layout.channels()[entry]);
            while let Some([_, _, c]) = maps.get(map).filter(|m| channel >= m[2]) {
                (map, channel) = (map + 1, channel - c);
            }
            table.extend([map as u32, channel as u32, level as u32, place as u32]);
        }
    }
    table
}

fn grid(level: &Level, n: usize) -> (u32, u32) {
    (u32::try_from(level.groups).unwrap_or(u32::MAX), u32::try_from(n.div_ceil(PICTURES)).unwrap_or(u32::MAX))
}
