//! Which device a step runs on: the only place of this crate that knows of GPUs.
//!
//! Every step has a CPU form, which is what counts. Its GPU form is used if the session or the model asks for a GPU and
//! what it needs fits there; results are the same but for rounding in the distances of PaDiM.

#[cfg(feature = "cuda")]
mod gpu;
#[cfg(not(feature = "cuda"))]
#[path = "none.rs"]
mod gpu;

use std::sync::{Mutex, OnceLock, PoisonError};

use blemish_kernels::kcenter::{self, KCenter, SparseProjection};
use blemish_kernels::mahalanobis::{self, Layout, distance, distance_low_rank};
use blemish_kernels::nearest::{Bank, Neighbors};
use blemish_tensor::Device;
use ndarray::{Array3, ArrayView2, ArrayView4};

use crate::Result;
use crate::padim::extend;

/// A device and the copy of a table that is kept there, made when it is first needed.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    device: Device,
    making: Mutex<()>,
    /// `None` if it does not fit.
    made: OnceLock<Option<T>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { device: Device::cpu(), making: Mutex::default(), made: OnceLock::new() }
    }
}

impl<T> Kept<T> {
    /// Forgets what is kept elsewhere.
    pub(crate) fn use_device(&mut self, device: &Device) {
        if self.device != *device {
            *self = Kept { device: device.clone(), ..Kept::default() };
        }
    }

    /// The copy, if the device is a GPU that has room for it.
    fn get(&self, make: impl FnOnce(&gpu::Gpu) -> Result<Option<T>>) -> Result<Option<&T>> {
        let Some(gpu) = gpu::of(&self.device) else { return Ok(None) };
        if let Some(made) = self.made.get() {
            return Ok(made.as_ref());
        }
        // Two copies at a time might not fit where one does.
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if self.made.get().is_none() {
            let made = make(gpu)?;
            return Ok(self.made.get_or_init(|| made).as_ref());
        }
        Ok(self.made.get().and_then(Option::as_ref))
    }
}

/// Rows to be searched, here and on a GPU.
#[derive(Debug)]
pub(crate) struct SearchBank {
    cpu: Bank,
    gpu: Kept<gpu::Bank>,
}

impl From<Bank> for SearchBank {
    fn from(cpu: Bank) -> Self {
        SearchBank { cpu, gpu: Kept::default() }
    }
}

impl SearchBank {
    pub(crate) fn use_device(&mut self, device: &Device) {
        self.gpu.use_device(device);
    }

    /// The CPU's form.
    pub(crate) fn here(&self) -> &Bank {
        &self.cpu
    }

    /// As [`Bank::search`].
    pub(crate) fn search(&self, query: ArrayView2<'_, f32>, k: usize) -> Result<Neighbors> {
        if gpu::searches(k)
            && let Some(bank) = self.gpu.get(|gpu| gpu::bank(gpu, self.cpu.rows().view()))?
            && let Some(found) = bank.search(self.cpu.rows().view(), query, k)?
        {
            return Ok(found);
        }
        Ok(self.cpu.search(query, k)?)
    }
}

/// The coreset of `patches` `[n, d]`, which are projected first if that is wanted; as [`kcenter::greedy`].
pub(crate) fn coreset(
    device: &Device,
    patches: ArrayView2<'_, f32>,
    projection: Option<&SparseProjection>,
    count: usize,
    start: usize,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<KCenter> {
    if let Some(gpu) = gpu::of(device)
        && let Some(found) = gpu::coreset(gpu, patches, projection, count, start, on_progress)?
    {
        return Ok(found);
    }
    let projected = projection.map(|p| p.apply(patches)).transpose()?;
    let points = projected.as_ref().map_or(patches, |p| p.view());
    Ok(kcenter::greedy(points, count, start, on_progress)?)
}

/// Means and packed inverse factors, each a tensor for each level.
pub(crate) type MeansAndFactors = (Vec<Vec<f32>>, Vec<Vec<f32>>);

/// Means and covariances of all positions, here or on a GPU.
pub(crate) enum Moments {
    Cpu(mahalanobis::Moments),
    Gpu(Box<gpu::Moments>),
}

impl Moments {
    /// On the device if it is a GPU with room for them, else here.
    pub(crate) fn new(device: &Device, layout: Layout) -> Result<Self> {
        if let Some(gpu) = gpu::of(device)
            && let Some(moments) = gpu::moments(gpu, &layout)?
        {
            return Ok(Moments::Gpu(Box::new(moments)));
        }
        Ok(Moments::Cpu(mahalanobis::Moments::new(layout)))
    }

    /// The layout.
    pub(crate) fn layout(&self) -> &Layout {
        match self {
            Moments::Cpu(moments) => moments.layout(),
            Moments::Gpu(moments) => moments.layout(),
        }
    }

    /// As [`mahalanobis::Moments::push`].
    pub(crate) fn push(&mut self, maps: &[ArrayView4<'_, f32>]) -> Result<()> {
        match self {
            Moments::Cpu(moments) => Ok(moments.push(maps)?),
            Moments::Gpu(moments) => moments.push(maps),
        }
    }

    /// What was learnt.
    pub(crate) fn finish(self, epsilon: f64) -> Result<MeansAndFactors> {
        match self {
            Moments::Cpu(moments) => {
                let mean = moments.mean()?;
                Ok((mean, moments.factor(epsilon, extend)?))
            }
            Moments::Gpu(moments) => moments.finish(epsilon),
        }
    }
}

/// What the distances of PaDiM are computed from: means of each level, and one of two forms of the factors.
#[derive(Clone, Copy)]
pub(crate) enum Tables<'a> {
    /// Weights of each level.
    Triangles(&'a [&'a [f32]]),
    /// Orthonormal directions, their scales, and what was added to the diagonal.
    LowRank(&'a [f32], &'a [f32], f32),
}

/// The copy of [`Tables`] on a GPU.
pub(crate) type KeptGaussians = Kept<gpu::Gaussians>;

/// Distances `[n, height, width]` of feature maps, as [`distance`] and [`distance_low_rank`].
pub(crate) fn distances(
    kept: &KeptGaussians,
    layout: &Layout,
    mean: &[&[f32]],
    tables: Tables<'_>,
    maps: &[ArrayView4<'_, f32>],
) -> Result<Array3<f32>> {
    if let Some(gaussians) = kept.get(|gpu| gpu::gaussians(gpu, layout, mean, tables))? {
        return gaussians.distance(layout, maps);
    }
    Ok(match tables {
        Tables::Triangles(weight) => distance(layout, mean, weight, maps)?,
        Tables::LowRank(basis, scale, epsilon) => distance_low_rank(layout, mean, basis, scale, epsilon, maps)?,
    })
}
