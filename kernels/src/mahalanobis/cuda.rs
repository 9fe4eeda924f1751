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

use blemish_tensor::cuda::{Buffer, Cuda, Launch, Module};

use super::layout::At;
use super::{Layout, PAD};
use crate::KernelError;
use crate::cuda::{CudaResult, MAHALANOBIS, MAHALANOBIS_80, check, ints};
use crate::error::shape_error;

const OP: &str = "mahalanobis distance on a GPU";
/// Feature maps that a layout may have here, at most.
pub const MAPS: usize = 4;
/// Kernels of triangles, by the pictures of a block.
const TRIANGLES: [(usize, &str); 4] = [
    (4, "mahalanobis_triangle_4"),
    (8, "mahalanobis_triangle_8"),
    (16, "mahalanobis_triangle_16"),
    (32, "mahalanobis_triangle_32"),
];
/// In triangles on the GPU a group begins at a multiple of this many floats.
const ALIGN: usize = 8;
/// Rows of the basis that are taken at a time, and floats of the pieces of a warp's triangle.
const BLOCK: usize = 8;
const PIECE: usize = 256;
/// Floats copied to the GPU at a time.
const STAGED: usize = 4 << 20;

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
        check_weights(layout, weight.iter().map(|w| w.len()), |level| layout.weight_len(level))?;
        let levels = weight.iter().enumerate();
        let weight = levels.map(|(level, w)| apart(cuda, w, layout.groups(level))).collect::<CudaResult<_>>()?;
        Gaussians::new(cuda, layout, mean, Form::Triangle(weight))
    }

    /// Takes packed triangles that are on the GPU, of [`Moments::factor_there`], one buffer a level.
    ///
    /// # Errors
    /// As [`triangle`](Self::triangle).
    pub fn fitted(cuda: &Cuda, layout: &Layout, mean: &[&[f32]], weight: Vec<Buffer<f32>>) -> CudaResult<Self> {
        check_weights(layout, weight.iter().map(Buffer::len), |level| {
            let groups = layout.groups(level);
            groups * stride((layout.weight_len(level) - PAD) / groups.max(1))
        })?;
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

    /// The packed triangles in the host's memory, a tensor of [`Layout::weight_len`] floats for each level, as
    /// [`Moments::factor`] gives them; nothing of orthonormal bases.
    ///
    /// # Errors
    /// The device's.
    pub fn weights(&self) -> CudaResult<Option<Vec<Vec<f32>>>> {
        let Form::Triangle(weights) = &self.form else { return Ok(None) };
        let levels = weights.iter().zip(&self.tables.levels);
        levels.map(|(weight, level)| together(weight, level)).collect::<CudaResult<_>>().map(Some)
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
                let shape = self.low_rank_shape(level.b, *rank, n)?;
                let launch = self.begin(shape.kernel, maps, level)?.input(basis).input(scale).output(&mut out);
                let launch = launch.float(*epsilon).int(*rank).int(levels.len()).int(level.b).int(level.groups).int(n);
                let launch = launch.int(shape.parts).int(*height).int(*width);
                // SAFETY: the tables were made from the layout, whose indices lie inside maps and means; basis and scale
                // have rank rows for each group; areas lie inside the grid, which `out` has n of.
                unsafe { launch.run(grid(level, shape.parts), shape.threads, shape.shared) }?;
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
        let mut parents = self.cuda.scratch::<f32>(1)?;
        for (i, (level, weight)) in self.tables.levels.iter().zip(weights).enumerate() {
            let mut sums = self.cuda.scratch::<f32>(level.groups.saturating_mul(n))?;
            let shape = self.triangle_shape(level.b, n)?;
            let launch = self.begin(shape.kernel, maps, level)?.input(weight).input(&parents);
            let launch =
                launch.output(&mut sums).output(out).int(i).int(self.tables.levels.len()).int(level.a).int(level.b);
            let launch = launch.int(n).int(shape.parts).int(self.tables.grid.0).int(self.tables.grid.1);
            // SAFETY: as above; weights have the level's rows of the triangle for each group, `sums` n values for each
            // group, `parents` those of the level before.
            unsafe { launch.run(grid(level, shape.parts), shape.threads, shape.shared) }?;
            parents = sums;
        }
        Ok(())
    }

    /// Each weight is read once for as many pictures as there are and shared memory holds.
    fn triangle_shape(&self, b: usize, n: usize) -> CudaResult<Shape> {
        let module = module(&self.cuda);
        let [warps] = self.cuda.parameter(module, "MAHALANOBIS_WARPS")?;
        let [stages] = self.cuda.parameter(module, "MAHALANOBIS_STAGES")?;
        // Planes of four pictures are 3 modulo 8 columns apart.
        let stride = b + (11 - b % 8) % 8;
        let shape = |(pictures, kernel): (usize, &'static str)| {
            let floats = warps * (stages * PIECE + pictures) + pictures * stride;
            Shape::new(kernel, warps, n.div_ceil(pictures), floats)
        };
        let enough = TRIANGLES.iter().position(|(pictures, _)| *pictures >= n).unwrap_or(TRIANGLES.len() - 1);
        let mut fitting = TRIANGLES[..=enough].iter().rev().map(|&one| shape(one));
        Ok(fitting.find(|s| self.fits(s)).unwrap_or_else(|| shape(TRIANGLES[0])))
    }

    /// Few pictures spread over warps; with more each row of the basis in shared memory serves several at once.
    fn low_rank_shape(&self, d: usize, rank: usize, n: usize) -> CudaResult<Shape> {
        let module = module(&self.cuda);
        let [tiles] = self.cuda.parameter(module, "MAHALANOBIS_TILES")?;
        let [many] = self.cuda.parameter(module, "MAHALANOBIS_MANY")?;
        let shape = |kernel: &'static str, pictures: usize, warps: usize, tiles: usize| {
            // As few blocks as can be, and warps for no more pictures than these then have.
            let parts = n.div_ceil(pictures * warps);
            let warps = n.div_ceil(pictures * parts);
            let tile = (BLOCK * d + 3).next_multiple_of(4);
            let floats = warps * pictures * (d + BLOCK) + rank.next_multiple_of(4) + tiles * tile;
            Shape::new(kernel, warps, parts, floats)
        };
        let usual = match n {
            1..=2 => ("mahalanobis_low_rank_1", 1, 2),
            3..=16 => ("mahalanobis_low_rank_4", 4, 4),
            _ if many == 4 => ("mahalanobis_low_rank_4", 4, 8),
            _ => ("mahalanobis_low_rank_8", 8, 4),
        };
        let wide = ("mahalanobis_low_rank_wide", 4, 8);
        let usual = (1..=usual.2).rev().map(|warps| shape(usual.0, usual.1, warps, tiles));
        let less = (1..=2).rev().map(|warps| shape("mahalanobis_low_rank_4", 4, warps, tiles));
        let wide = (1..=wide.2).rev().map(|warps| shape(wide.0, wide.1, warps, 0));
        let last = shape("mahalanobis_low_rank_wide", 4, 1, 0);
        Ok(usual.chain(less).chain(wide).find(|s| self.fits(s)).unwrap_or(last))
    }

    fn fits(&self, shape: &Shape) -> bool {
        shape.shared <= self.cuda.info().shared_memory.max(48 << 10)
    }

    /// A launch with the arguments that both kernels begin with.
    fn begin<'a>(&'a self, kernel: &'static str, maps: &[&'a Buffer<f32>], level: &'a Level) -> CudaResult<Launch<'a>> {
        let tables = &self.tables;
        let launch = tables.read(self.cuda.launch(module(&self.cuda), kernel)?, maps);
        let launch = launch.input(&self.mean).input(&tables.mean_at);
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

fn check_weights(
    layout: &Layout,
    lengths: impl Iterator<Item = usize>,
    wanted: impl Fn(usize) -> usize,
) -> CudaResult<()> {
    let got: Vec<usize> = lengths.collect();
    if got.len() != layout.levels() || !got.iter().enumerate().all(|(level, len)| *len == wanted(level)) {
        return Err(shape_error(OP, "a weight tensor for each level", got).into());
    }
    Ok(())
}

/// From one group's triangle of so many floats to the next on the GPU.
fn stride(floats: usize) -> usize {
    floats.next_multiple_of(ALIGN)
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

/// A kernel and how it is launched.
struct Shape {
    kernel: &'static str,
    threads: u32,
    /// Blocks that share the pictures, for each group.
    parts: usize,
    shared: u32,
}

impl Shape {
    fn new(kernel: &'static str, warps: usize, parts: usize, floats: usize) -> Self {
        let number = |v: usize| u32::try_from(v).unwrap_or(u32::MAX);
        Shape { kernel, threads: number(32 * warps), parts, shared: number(4 * floats) }
    }
}

fn grid(level: &Level, parts: usize) -> (u32, u32) {
    (u32::try_from(level.groups.saturating_mul(parts)).unwrap_or(u32::MAX), 1)
}

/// The kernels for a GPU; with asynchronous copies where it has them.
fn module(cuda: &Cuda) -> Module {
    if cuda.info().capability >= (8, 0) { MAHALANOBIS_80 } else { MAHALANOBIS }
}

/// Copies the triangles of `groups` groups to the GPU, each from a multiple of [`ALIGN`] floats on.
fn apart(cuda: &Cuda, weight: &[f32], groups: usize) -> CudaResult<Buffer<f32>> {
    let floats = (weight.len() - PAD) / groups.max(1);
    let stride = stride(floats);
    let mut buffer = cuda.scratch(groups * stride)?;
    let some = (STAGED / stride.max(1)).max(1);
    let mut staged = vec![0.0; some.min(groups) * stride];
    for (i, part) in weight[..groups * floats].chunks((some * floats).max(1)).enumerate() {
        let rows = part.chunks_exact(floats);
        let count = rows.len();
        staged.chunks_exact_mut(stride).zip(rows).for_each(|(to, from)| to[..floats].copy_from_slice(from));
        buffer.write_at(i * some * stride, &staged[..count * stride])?;
    }
    Ok(buffer)
}

/// The reverse of [`apart`].
fn together(buffer: &Buffer<f32>, level: &Level) -> CudaResult<Vec<f32>> {
    let floats = level.floats();
    let stride = stride(floats);
    let mut weight = vec![0.0; level.groups * floats + PAD];
    let some = (STAGED / stride.max(1)).max(1);
    let mut staged = vec![0.0; some.min(level.groups) * stride];
    for (i, part) in weight[..level.groups * floats].chunks_mut((some * floats).max(1)).enumerate() {
        let staged = &mut staged[..part.len() / floats * stride];
        buffer.read_at(i * some * stride, staged)?;
        let rows = part.chunks_exact_mut(floats).zip(staged.chunks_exact(stride));
        rows.for_each(|(to, from)| to.copy_from_slice(&from[..floats]));
    }
    Ok(weight)
}
