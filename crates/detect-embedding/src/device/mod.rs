//! Which device a step runs on: the only place of this crate that knows of GPUs.
//!
//! Every step has a CPU form, which is what counts. Its GPU form is used if the session or the model asks for a GPU; whatever
//! does not fit there or fails is done by the CPU form, and the reason is kept for the user. Results are the same but for
//! rounding in the distances of PaDiM.

#![cfg_attr(
    not(feature = "cuda"),
    allow(
        dead_code,
        clippy::infallible_destructuring_match,
        reason = "what GPUs need is written once, for programs with them"
    )
)]

#[cfg(feature = "cuda")]
mod gpu;
#[cfg(not(feature = "cuda"))]
#[path = "none.rs"]
mod gpu;

use blemish_embed::Maps;
use blemish_embed::device::{Kept, gpu as gpu_of};
pub(crate) use blemish_embed::device::{Refused, Tried};
use blemish_kernels::blur::Border;
use blemish_kernels::kcenter::{self, KCenter, SparseProjection};
use blemish_kernels::mahalanobis::{self, Layout, distance, distance_low_rank};
use blemish_kernels::nearest::{Bank, Neighbors};
use blemish_tensor::Device;
use ndarray::{Array2, Array3, Array4, ArrayView2, ArrayView4};

use crate::padim::extend;
use crate::{EmbeddingError, Mode, Result};

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

    /// In words, where searches run.
    pub(crate) fn placement(&self) -> String {
        self.gpu.words()
    }

    /// As [`Bank::search`].
    pub(crate) fn search(&self, query: ArrayView2<'_, f32>, k: usize) -> Result<Neighbors> {
        if gpu::searches(k)
            && let Some(bank) = self.gpu.get(|gpu| gpu::bank(gpu, self.cpu.rows().view()))
            && let Some(found) = self.gpu.noted(bank.search(self.cpu.rows().view(), query, k))
        {
            return Ok(found);
        }
        Ok(self.cpu.search(query, k)?)
    }

    /// Row number and distance of the nearest row of each patch; `None` if that is to be done with [`search`](Self::search).
    pub(crate) fn search_there(&self, patches: &Patches) -> Option<(Vec<u32>, Vec<f32>)> {
        let bank = self.gpu.get(|gpu| gpu::bank(gpu, self.cpu.rows().view()))?;
        self.gpu.noted(bank.search_there(&patches.0))
    }
}

/// Borrowed feature maps, one for each layer.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// In the CPU's memory.
    Host(&'a [Array4<f32>]),
    /// In a GPU's memory.
    #[cfg(feature = "cuda")]
    Gpu(&'a [blemish_embed::GpuMap]),
}

impl<'a> From<&'a Maps> for Source<'a> {
    fn from(maps: &'a Maps) -> Self {
        match maps {
            Maps::Host(maps) => Source::Host(maps),
            #[cfg(feature = "cuda")]
            Maps::Gpu(maps) => Source::Gpu(maps),
        }
    }
}

impl Source<'_> {
    /// How many pictures.
    fn pictures(&self) -> usize {
        match self {
            Source::Host(maps) => maps.first().map_or(0, |m| m.dim().0),
            #[cfg(feature = "cuda")]
            Source::Gpu(maps) => maps.first().map_or(0, |m| m.shape()[0]),
        }
    }
}

/// Patch embeddings `[n h w, c]` in a GPU's memory.
pub(crate) struct Patches(gpu::Patches);

impl Patches {
    /// Those of maps that are on a GPU, if it has room for them.
    pub(crate) fn of(maps: &Maps, mode: Mode) -> Option<Patches> {
        gpu::patches(maps, mode)?.ok().map(Patches)
    }

    /// Rows and columns.
    pub(crate) fn dim(&self) -> (usize, usize) {
        self.0.dim()
    }

    /// The rows `at`, in the CPU's memory.
    pub(crate) fn rows(&self, at: &[usize]) -> Option<Array2<f32>> {
        let mut rows = Array2::zeros((at.len(), self.dim().1));
        for (mut row, &i) in rows.rows_mut().into_iter().zip(at) {
            self.0.read(i, row.as_slice_mut()?).ok()?;
        }
        Some(rows)
    }

    /// All rows, in the CPU's memory.
    pub(crate) fn all(&self) -> Option<Array2<f32>> {
        let mut rows = Array2::zeros(self.dim());
        self.0.read(0, rows.as_slice_mut()?).ok()?;
        Some(rows)
    }

    /// Room on the same GPU for `rows` rows, if there is.
    pub(crate) fn store(&self, rows: usize) -> Option<Store> {
        gpu::store(&self.0, rows).ok().map(Store)
    }
}

/// The patches of all pictures of a training in a GPU's memory.
pub(crate) struct Store(gpu::Store);

impl Store {
    /// Rows taken so far, and their width.
    pub(crate) fn dim(&self) -> (usize, usize) {
        self.0.dim()
    }

    /// Whether as many rows were taken as there is room for.
    pub(crate) fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// Takes the patches of a batch; false if they do not fit.
    pub(crate) fn push(&mut self, patches: &Patches) -> bool {
        self.0.push(&patches.0).is_ok()
    }

    /// All rows taken so far, in the CPU's memory; the error says what the GPU refused.
    pub(crate) fn all(&self) -> Result<Vec<f32>> {
        self.0.all().map_err(|refused| lost("patches", refused))
    }

    /// The rows `at`, in the CPU's memory.
    pub(crate) fn select(&self, at: &[u32]) -> Result<Vec<f32>> {
        self.0.select(at).map_err(|refused| lost("patches", refused))
    }

    /// The coreset of all rows.
    pub(crate) fn coreset(
        &self,
        projection: Option<&SparseProjection>,
        count: usize,
        start: usize,
        on_progress: &mut dyn FnMut(usize) -> bool,
    ) -> Tried<KCenter> {
        self.0.coreset(projection, count, start, on_progress)
    }
}

/// `what` was on the GPU alone and cannot be had.
fn lost(what: &str, refused: Refused) -> EmbeddingError {
    let why = match refused {
        Refused::Device(why) => why,
        Refused::Arguments => "not there".to_owned(),
    };
    let source = format!("{what} on a GPU: {why}").into();
    EmbeddingError::Core(blemish_core::CoreError::Detector { kind: "embedding detector", source })
}

/// The coreset of `patches` `[n, d]`, which are projected first if that is wanted, as [`kcenter::greedy`]; and why it was not
/// picked on the GPU asked for.
pub(crate) fn coreset(
    device: &Device,
    patches: ArrayView2<'_, f32>,
    projection: Option<&SparseProjection>,
    count: usize,
    start: usize,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<(KCenter, Option<String>)> {
    let mut why = None;
    if let Some(gpu) = gpu_of(device) {
        match gpu::coreset(gpu, patches, projection, count, start, on_progress) {
            Ok(found) => return Ok((found, None)),
            Err(Refused::Device(reason)) => why = Some(reason),
            Err(Refused::Arguments) => {}
        }
    }
    let projected = projection.map(|p| p.apply(patches)).transpose()?;
    let points = projected.as_ref().map_or(patches, |p| p.view());
    Ok((kcenter::greedy(points, count, start, on_progress)?, why))
}

/// Packed inverse factors of each level, where they were computed.
pub(crate) enum Fitted {
    Here(Vec<Vec<f32>>),
    There(Box<KeptGaussians>),
}

/// The weights of the factors that are kept on a GPU alone.
pub(crate) fn weights_there(kept: &KeptGaussians) -> Result<Vec<Vec<f32>>> {
    let gone = || Refused::Device("the factors learnt there are gone".to_owned());
    kept.made().ok_or_else(gone).and_then(gpu::Gaussians::weights).map_err(|refused| lost("factors", refused))
}

/// Means and covariances of all positions, here or on a GPU.
pub(crate) enum Moments {
    Cpu(mahalanobis::Moments),
    Gpu(Box<gpu::Moments>),
}

impl Moments {
    /// On the device if it is a GPU with room for them, else here.
    pub(crate) fn new(device: &Device, layout: Layout) -> Result<Self> {
        if let Some(gpu) = gpu_of(device)
            && let Ok(moments) = gpu::moments(gpu, &layout)
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
    pub(crate) fn push(&mut self, maps: Source<'_>) -> Result<()> {
        match self {
            Moments::Cpu(moments) => with_views(maps, |maps| Ok(moments.push(maps)?)),
            Moments::Gpu(moments) => moments.push(maps),
        }
    }

    /// Means of each level, and what was learnt.
    pub(crate) fn finish(self, epsilon: f64) -> Result<(Vec<Vec<f32>>, Fitted)> {
        match self {
            Moments::Cpu(moments) => {
                let mean = moments.mean()?;
                Ok((mean, Fitted::Here(moments.factor(epsilon, extend)?)))
            }
            Moments::Gpu(moments) => moments.finish(epsilon),
        }
    }
}

/// What the distances of PaDiM are computed from: means of each level, and one of two forms of the factors.
#[derive(Clone, Copy)]
pub(crate) enum Tables<'a> {
    /// Weights of each level, which may have to be brought from the GPU.
    Triangles(&'a dyn Fn() -> Result<Vec<&'a [f32]>>),
    /// Orthonormal directions, their scales, and what was added to the diagonal.
    LowRank(&'a [f32], &'a [f32], f32),
}

/// The copy of [`Tables`] on a GPU.
pub(crate) type KeptGaussians = Kept<gpu::Gaussians>;

/// What is measured from: the layout of the embedding, the means of each level, the factors, and their copy on a GPU.
#[derive(Clone, Copy)]
pub(crate) struct Measure<'a> {
    pub(crate) kept: &'a KeptGaussians,
    pub(crate) layout: &'a Layout,
    pub(crate) mean: &'a [&'a [f32]],
    pub(crate) tables: Tables<'a>,
}

impl Measure<'_> {
    fn there(&self) -> Option<&gpu::Gaussians> {
        self.kept.get(|gpu| gpu::gaussians(gpu, self.layout, self.mean, self.tables))
    }

    /// Distances `[n, height, width]` of feature maps, as [`distance`] and [`distance_low_rank`].
    pub(crate) fn distances(&self, maps: Source<'_>) -> Result<Array3<f32>> {
        let n = maps.pictures();
        if let Some(found) = self.there().and_then(|there| self.kept.noted(there.distance(maps)))
            && let Ok(found) = Array3::from_shape_vec((n, self.layout.grid().0, self.layout.grid().1), found)
        {
            return Ok(found);
        }
        with_views(maps, |maps| {
            Ok(match self.tables {
                Tables::Triangles(weights) => distance(self.layout, self.mean, &weights()?, maps)?,
                Tables::LowRank(basis, scale, epsilon) => {
                    distance_low_rank(self.layout, self.mean, basis, scale, epsilon, maps)?
                }
            })
        })
    }

    /// Distances brought to the pictures' size and blurred, if maps and tables are on a GPU.
    pub(crate) fn upsampled(&self, maps: Source<'_>, how: &Upsampled) -> Option<Array3<f32>> {
        if matches!(maps, Source::Host(_)) {
            return None;
        }
        let n = maps.pictures();
        let found = self.kept.noted(self.there()?.upsampled(maps, self.layout.grid(), how))?;
        Array3::from_shape_vec((n, how.size.0, how.size.1), found).ok()
    }
}

/// How distances become a map: bilinear to `size`, then a blur.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(crate) struct Upsampled {
    pub(crate) size: (usize, usize),
    pub(crate) sigma: f32,
    pub(crate) border: Border,
}

/// Does `work` on the maps in the CPU's memory; a copy of those that are not there.
pub(crate) fn with_views<T>(maps: Source<'_>, work: impl FnOnce(&[ArrayView4<'_, f32>]) -> Result<T>) -> Result<T> {
    let views = |maps: &[Array4<f32>]| work(&maps.iter().map(|m| m.view()).collect::<Vec<_>>());
    match maps {
        Source::Host(maps) => views(maps),
        #[cfg(feature = "cuda")]
        Source::Gpu(maps) => {
            let copies = maps.iter().map(blemish_embed::GpuMap::download);
            views(&copies.collect::<std::result::Result<Vec<_>, _>>().map_err(blemish_embed::EmbedError::from)?)
        }
    }
}
