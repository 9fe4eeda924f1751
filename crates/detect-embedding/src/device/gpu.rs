//! The GPU forms.

use blemish_kernels::cuda::{CudaError, CudaResult};
use blemish_kernels::{kcenter, mahalanobis, nearest};
use blemish_tensor::TensorError;
use blemish_tensor::cuda::{Buffer, Cuda};

use super::{
    Array3, ArrayView2, ArrayView4, Device, KCenter, Layout, MeansAndFactors, Neighbors, SparseProjection, Tables,
};
use crate::{EmbeddingError, Result};

pub(super) type Gpu = Cuda;
/// Floats of patches that are on their way to a projection.
const PART: usize = 16 << 20;

pub(super) fn of(device: &Device) -> Option<&Gpu> {
    device.as_cuda()
}

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

/// `None` for what does not fit the memory budget.
fn if_fits<T>(result: CudaResult<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(CudaError::Device(TensorError::Budget { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug)]
pub(crate) enum Bank {
    Held(Box<nearest::cuda::Bank>),
    /// One that takes more than the memory at hand.
    Streamed(Cuda),
}

impl Bank {
    /// `None` where not even parts of the bank fit.
    pub(super) fn search(
        &self,
        rows: ArrayView2<'_, f32>,
        query: ArrayView2<'_, f32>,
        k: usize,
    ) -> Result<Option<Neighbors>> {
        if_fits(match self {
            Bank::Held(bank) => bank.search(query, k),
            Bank::Streamed(cuda) => nearest::cuda::search_streamed(cuda, rows, query, k),
        })
    }
}

pub(super) fn bank(cuda: &Cuda, rows: ArrayView2<'_, f32>) -> Result<Option<Bank>> {
    let free = cuda.memory_budget().saturating_sub(cuda.memory_used());
    // A search needs room as well.
    if nearest::cuda::Bank::bytes(rows.nrows(), rows.ncols()) > free / 4 * 3 {
        return Ok(Some(Bank::Streamed(cuda.clone())));
    }
    let held = if_fits(nearest::cuda::Bank::new(cuda, rows))?;
    Ok(Some(held.map_or_else(|| Bank::Streamed(cuda.clone()), |bank| Bank::Held(Box::new(bank)))))
}

pub(super) fn coreset(
    cuda: &Cuda,
    patches: ArrayView2<'_, f32>,
    projection: Option<&SparseProjection>,
    count: usize,
    start: usize,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<KCenter>> {
    let patches = patches.as_standard_layout();
    // The CPU form says which value is not finite.
    let Some(values) = patches.as_slice().filter(|v| v.iter().all(|v| v.is_finite())) else { return Ok(None) };
    let (n, d) = patches.dim();
    let points = match projection {
        Some(projection) => if_fits(project(cuda, values, projection))?.map(|points| (points, projection.dim().1)),
        None => if_fits(cuda.upload(values).map_err(CudaError::from))?.map(|points| (points, d)),
    };
    let Some((points, d)) = points else { return Ok(None) };
    if_fits(kcenter::cuda::greedy(cuda, &points, [n, d], count, start, on_progress))
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

    pub(super) fn push(&mut self, maps: &[ArrayView4<'_, f32>]) -> Result<()> {
        let n = maps.first().map_or(0, |m| m.dim().0);
        let buffers = upload(&self.0, maps)?;
        Ok(self.1.push(&buffers.iter().collect::<Vec<_>>(), n)?)
    }

    pub(super) fn finish(self, epsilon: f64) -> Result<MeansAndFactors> {
        Ok((self.1.mean()?, self.1.factor(epsilon)?))
    }
}

pub(super) fn moments(cuda: &Cuda, layout: &Layout) -> Result<Option<Moments>> {
    let free = cuda.memory_budget().saturating_sub(cuda.memory_used());
    // Feature maps need room as well.
    if layout.maps().len() > mahalanobis::cuda::MAPS || mahalanobis::cuda::Moments::bytes(layout) > free / 4 * 3 {
        return Ok(None);
    }
    Ok(if_fits(mahalanobis::cuda::Moments::new(cuda, layout.clone()))?.map(|made| Moments(cuda.clone(), made)))
}

fn upload(cuda: &Cuda, maps: &[ArrayView4<'_, f32>]) -> Result<Vec<Buffer<f32>>> {
    let one = |map: &ArrayView4<'_, f32>| {
        let map = map.as_standard_layout();
        Ok(cuda.upload(map.as_slice().unwrap_or_default())?)
    };
    maps.iter().map(one).collect()
}

#[derive(Debug)]
pub(crate) struct Gaussians(Cuda, mahalanobis::cuda::Gaussians);

impl Gaussians {
    pub(super) fn distance(&self, layout: &Layout, maps: &[ArrayView4<'_, f32>]) -> Result<Array3<f32>> {
        let n = maps.first().map_or(0, |m| m.dim().0);
        let (height, width) = layout.grid();
        let buffers = upload(&self.0, maps)?;
        let values = self.1.distance(&buffers.iter().collect::<Vec<_>>(), n)?.read()?;
        let wrong = |e: ndarray::ShapeError| blemish_core::CoreError::Shape {
            what: "distances",
            wanted: format!("[{n}, {height}, {width}]"),
            got: e.to_string(),
        };
        Ok(Array3::from_shape_vec((n, height, width), values).map_err(wrong)?)
    }
}

pub(super) fn gaussians(
    cuda: &Cuda,
    layout: &Layout,
    mean: &[&[f32]],
    tables: Tables<'_>,
) -> Result<Option<Gaussians>> {
    if layout.maps().len() > mahalanobis::cuda::MAPS {
        return Ok(None);
    }
    let made = match tables {
        Tables::Triangles(weight) => mahalanobis::cuda::Gaussians::triangle(cuda, layout, mean, weight),
        Tables::LowRank(basis, scale, epsilon) => {
            mahalanobis::cuda::Gaussians::low_rank(cuda, layout, mean, basis, scale, epsilon)
        }
    };
    Ok(if_fits(made)?.map(|made| Gaussians(cuda.clone(), made)))
}
