//! The GPU forms.

use blemish_kernels::cuda::{CudaError, CudaResult};
use blemish_kernels::{blur, kcenter, mahalanobis, nearest, resize};
use blemish_tensor::cuda::{Buffer, Cuda};
use blemish_tensor::{Device, TensorError};

use super::{
    ArrayView2, ArrayView4, Fitted, KCenter, Kept, Layout, Neighbors, Refused, Source, SparseProjection, Tables, Tried,
    Upsampled,
};
use crate::{EmbeddingError, Result};

mod patches;

pub(crate) use patches::{Patches, Store};
pub(super) use patches::{patches, store};

/// Floats of patches that are on their way to a projection.
const PART: usize = 16 << 20;

/// Whether a search can give so many rows.
pub(super) fn searches(k: usize) -> bool {
    k <= nearest::cuda::MOST
}

impl From<CudaError> for EmbeddingError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::Kernel(error) => EmbeddingError::Kernel(error),
            CudaError::Device(error) => EmbeddingError::Tensor(error),
            other => EmbeddingError::Core(blemish_core::CoreError::Detector {
                kind: "embedding detector",
                source: Box::new(other),
            }),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Bank {
    Held(Box<nearest::cuda::Bank>),
    /// One that takes more than the memory at hand.
    Streamed(Cuda),
}

impl Bank {
    pub(super) fn search(&self, rows: ArrayView2<'_, f32>, query: ArrayView2<'_, f32>, k: usize) -> Tried<Neighbors> {
        Ok(match self {
            Bank::Held(bank) => bank.search(query, k)?,
            Bank::Streamed(cuda) => nearest::cuda::search_streamed(cuda, rows, query, k)?,
        })
    }

    /// The nearest row of each of `patches`.
    pub(super) fn search_there(&self, patches: &Patches) -> Tried<(Vec<u32>, Vec<f32>)> {
        let Bank::Held(bank) = self else { return Err(Refused::Arguments) };
        let (n, d) = patches.dim();
        if bank.dim().1 != d || n > bank.group() {
            return Err(Refused::Arguments);
        }
        let (index, distance) = bank.search_device(patches.values(), n, 1)?;
        let (index, distance) = (index.read()?, distance.read()?);
        // The CPU form says which value is not finite.
        let whole = distance.iter().all(|d| d.is_finite()) && index.iter().all(|&i| (i as usize) < bank.dim().0);
        if whole { Ok((index, distance)) } else { Err(Refused::Arguments) }
    }
}

pub(super) fn bank(cuda: &Cuda, rows: ArrayView2<'_, f32>) -> Tried<Bank> {
    let free = cuda.memory_budget().saturating_sub(cuda.memory_used());
    // A search needs room as well.
    if nearest::cuda::Bank::bytes(rows.nrows(), rows.ncols()) > free / 4 * 3 {
        return Ok(Bank::Streamed(cuda.clone()));
    }
    match nearest::cuda::Bank::new(cuda, rows) {
        Ok(bank) => Ok(Bank::Held(Box::new(bank))),
        Err(CudaError::Device(TensorError::Budget { .. })) => Ok(Bank::Streamed(cuda.clone())),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn coreset(
    cuda: &Cuda,
    patches: ArrayView2<'_, f32>,
    projection: Option<&SparseProjection>,
    count: usize,
    start: usize,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Tried<KCenter> {
    let patches = patches.as_standard_layout();
    // The CPU form says which value is not finite.
    let values = patches.as_slice().filter(|v| v.iter().all(|v| v.is_finite())).ok_or(Refused::Arguments)?;
    let (n, d) = patches.dim();
    let (points, d) = match projection {
        Some(projection) => (project(cuda, values, projection)?, projection.dim().1),
        None => (cuda.upload(values)?, d),
    };
    Ok(kcenter::cuda::greedy(cuda, &points, [n, d], count, start, on_progress)?)
}

/// The projections of all rows; the rows themselves go to the GPU in parts.
fn project(cuda: &Cuda, values: &[f32], projection: &SparseProjection) -> CudaResult<Buffer<f32>> {
    let (from, to) = projection.dim();
    let matrix = kcenter::cuda::Projection::new(cuda, projection)?;
    let mut points = cuda.scratch((values.len() / from).saturating_mul(to))?;
    let free = cuda.memory_budget().saturating_sub(cuda.memory_used());
    let rows = (free / 16 / from).min(PART / from).min(values.len() / from).max(1);
    let mut feed = cuda.feed::<f32>(rows * from)?;
    let parts: Vec<&[f32]> = values.chunks(rows * from).collect();
    for i in 0..=parts.len() {
        if let Some(next) = parts.get(i) {
            feed.send(next)?;
        }
        if i > 0 {
            let count = parts[i - 1].len() / from;
            matrix.apply(feed.receive()?, count, &mut points, (i - 1) * rows)?;
        }
    }
    Ok(points)
}

pub(crate) struct Moments(Cuda, mahalanobis::cuda::Moments);

impl Moments {
    pub(super) fn layout(&self) -> &Layout {
        self.1.layout()
    }

    pub(super) fn push(&mut self, maps: Source<'_>) -> Result<()> {
        Ok(on_gpu(&self.0, maps, |buffers, n| self.1.push(buffers, n))?)
    }

    /// The factors stay on the GPU where there is room for them and for their rows in `f64`, which later levels read.
    pub(super) fn finish(self, epsilon: f64) -> Result<(Vec<Vec<f32>>, Fitted)> {
        let Moments(cuda, moments) = self;
        let (layout, mean) = (moments.layout().clone(), moments.mean()?);
        let free = cuda.memory_budget().saturating_sub(cuda.memory_used());
        if layout.floats() * (size_of::<f32>() + size_of::<f64>()) > free / 2 {
            return Ok((mean, Fitted::Here(moments.factor(epsilon)?)));
        }
        let weights = moments.factor_there(epsilon)?;
        let means: Vec<&[f32]> = mean.iter().map(Vec::as_slice).collect();
        let made = mahalanobis::cuda::Gaussians::fitted(&cuda, &layout, &means, weights)?;
        let device = Device::cuda(cuda.clone());
        Ok((mean, Fitted::There(Box::new(Kept::holding(&device, Gaussians(cuda, made))))))
    }
}

pub(super) fn moments(cuda: &Cuda, layout: &Layout) -> Tried<Moments> {
    let free = cuda.memory_budget().saturating_sub(cuda.memory_used());
    // Feature maps need room as well.
    if layout.maps().len() > mahalanobis::cuda::MAPS || mahalanobis::cuda::Moments::bytes(layout) > free / 4 * 3 {
        return Err(Refused::Device("the covariances do not fit its memory".to_owned()));
    }
    Ok(Moments(cuda.clone(), mahalanobis::cuda::Moments::new(cuda, layout.clone())?))
}

/// Does `work` on the maps where they are, or on copies of them on the GPU.
fn on_gpu<T>(
    cuda: &Cuda,
    maps: Source<'_>,
    work: impl FnOnce(&[&Buffer<f32>], usize) -> CudaResult<T>,
) -> std::result::Result<T, CudaError> {
    let n = maps.pictures();
    match maps {
        Source::Gpu(maps) => work(&maps.iter().map(|m| m.values()).collect::<Vec<_>>(), n),
        Source::Host(maps) => {
            let buffers = upload(cuda, &maps.iter().map(|m| m.view()).collect::<Vec<_>>())?;
            work(&buffers.iter().collect::<Vec<_>>(), n)
        }
    }
}

fn upload(cuda: &Cuda, maps: &[ArrayView4<'_, f32>]) -> CudaResult<Vec<Buffer<f32>>> {
    let one = |map: &ArrayView4<'_, f32>| {
        let map = map.as_standard_layout();
        Ok(cuda.upload(map.as_slice().unwrap_or_default())?)
    };
    maps.iter().map(one).collect()
}

#[derive(Debug)]
pub(crate) struct Gaussians(Cuda, mahalanobis::cuda::Gaussians);

impl Gaussians {
    /// Packed triangles of each level, in the CPU's memory.
    pub(super) fn weights(&self) -> Tried<Vec<Vec<f32>>> {
        self.1.weights()?.ok_or(Refused::Arguments)
    }

    /// `[n, height, width]`, flat.
    pub(super) fn distance(&self, maps: Source<'_>) -> Tried<Vec<f32>> {
        Ok(on_gpu(&self.0, maps, |buffers, n| self.1.distance(buffers, n))?.read()?)
    }

    /// Distances brought to the size of the picture and blurred, `[n, size]`, flat.
    pub(super) fn upsampled(&self, maps: Source<'_>, grid: (usize, usize), how: &Upsampled) -> Tried<Vec<f32>> {
        let n = maps.pictures();
        let distance = on_gpu(&self.0, maps, |buffers, n| self.1.distance(buffers, n))?;
        let up = resize::cuda::bilinear(&self.0, &distance, n, [grid.0, grid.1, 1], how.size)?;
        if how.sigma <= 0.0 {
            return Ok(up.read()?);
        }
        Ok(blur::cuda::gaussian(&self.0, &up, [n, how.size.0, how.size.1], how.sigma, how.border)?.read()?)
    }
}

pub(super) fn gaussians(cuda: &Cuda, layout: &Layout, mean: &[&[f32]], tables: Tables<'_>) -> Tried<Gaussians> {
    let made = match tables {
        Tables::Triangles(weights) => {
            let weights = weights().map_err(|_| Refused::Arguments)?;
            mahalanobis::cuda::Gaussians::triangle(cuda, layout, mean, &weights)
        }
        Tables::LowRank(basis, scale, epsilon) => {
            mahalanobis::cuda::Gaussians::low_rank(cuda, layout, mean, basis, scale, epsilon)
        }
    };
    Ok(Gaussians(cuda.clone(), made?))
}
