//! Patch embeddings in a GPU's memory: those of a batch, and all of a training.

use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::embed::{self, Layer, Terms};
use blemish_kernels::kcenter;
use blemish_tensor::cuda::{Buffer, Cuda};

use super::super::{KCenter, Maps, Refused, SparseProjection, Tried};
use crate::Mode;
use crate::patchcore::locally_aware;

/// Patch embeddings `[n h w, c]`.
pub(crate) struct Patches {
    values: Buffer<f32>,
    dim: (usize, usize),
}

impl Patches {
    pub(crate) fn dim(&self) -> (usize, usize) {
        self.dim
    }

    pub(crate) fn values(&self) -> &Buffer<f32> {
        &self.values
    }

    /// The numbers of the rows from `first` on, as many as `rows` holds.
    pub(crate) fn read(&self, first: usize, rows: &mut [f32]) -> Tried<()> {
        Ok(self.values.read_at(first.saturating_mul(self.dim.1), rows)?)
    }
}

/// The embeddings of maps that are on a GPU.
pub(crate) fn patches(maps: &Maps, mode: Mode) -> Option<Tried<Patches>> {
    let Maps::Gpu(maps) = maps else { return None };
    let first = maps.first()?;
    let [n, h, w, _] = first.shape();
    let sizes: Vec<[usize; 3]> = maps.iter().map(|m| m.shape()).map(|[_, h, w, c]| [h, w, c]).collect();
    let layers: Vec<_> = maps.iter().zip(&sizes).map(|(map, size)| (map.values(), *size)).collect();
    let cuda = first.values().cuda();
    let (width, made) = match mode {
        Mode::Anomalib => (sizes.iter().map(|s| s[2]).sum(), embed::embed(cuda, n, &layers)),
        Mode::Paper => (locally_aware::WIDTH, authors(cuda, n, &layers)),
    };
    Some(made.map(|values| Patches { values, dim: (n * h * w, width) }).map_err(Refused::from))
}

fn authors(cuda: &Cuda, n: usize, layers: &[(&Buffer<f32>, [usize; 3])]) -> CudaResult<Buffer<f32>> {
    let table = |(l, (_, [_, _, c])): (usize, &(&Buffer<f32>, [usize; 3]))| {
        let (columns, terms) = locally_aware::terms(*c, l, layers.len());
        Ok((columns.start, Terms::new(cuda, *c, &terms)?))
    };
    let tables = layers.iter().enumerate().map(table).collect::<CudaResult<Vec<(usize, Terms)>>>()?;
    let layers: Vec<Layer<'_>> =
        layers.iter().zip(&tables).map(|((map, size), (first, terms))| (*map, *size, terms, *first)).collect();
    embed::embed_terms(cuda, n, &layers, locally_aware::WIDTH)
}

/// Room for the patches of all pictures, `[rows, width]`.
pub(crate) struct Store {
    values: Buffer<f32>,
    rows: usize,
    width: usize,
    filled: usize,
}

/// Room for `rows` rows such as those of `first`, if that leaves half of the memory.
pub(crate) fn store(first: &Patches, rows: usize) -> Tried<Store> {
    let (cuda, width) = (first.values.cuda(), first.dim.1);
    let floats = rows.checked_mul(width).filter(|n| *n <= i32::MAX as usize).ok_or(Refused::Arguments)?;
    let free = cuda.memory_budget().saturating_sub(cuda.memory_used());
    if floats > free / 8 {
        return Err(Refused::Device("the patches do not fit its memory".to_owned()));
    }
    Ok(Store { values: cuda.scratch(floats)?, rows, width, filled: 0 })
}

impl Store {
    /// Rows taken so far, and their width.
    pub(crate) fn dim(&self) -> (usize, usize) {
        (self.filled, self.width)
    }

    /// Whether all rows are there.
    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.rows
    }

    /// Takes the patches of a batch.
    pub(crate) fn push(&mut self, patches: &Patches) -> Tried<()> {
        let (n, width) = patches.dim;
        if width != self.width || n > self.rows - self.filled {
            return Err(Refused::Arguments);
        }
        let pairs: Vec<(u32, u32)> = (0..n).map(|i| (i as u32, (self.filled + i) as u32)).collect();
        embed::select(&patches.values, width, &pairs, &mut self.values)?;
        self.filled += n;
        Ok(())
    }

    /// The rows `at`, in the CPU's memory.
    pub(crate) fn select(&self, at: &[u32]) -> Tried<Vec<f32>> {
        let mut picked = self.values.cuda().scratch(at.len().saturating_mul(self.width))?;
        let pairs: Vec<(u32, u32)> = at.iter().zip(0u32..).map(|(from, to)| (*from, to)).collect();
        embed::select(&self.values, self.width, &pairs, &mut picked)?;
        Ok(picked.read()?)
    }

    /// All rows taken so far, in the CPU's memory.
    pub(crate) fn all(&self) -> Tried<Vec<f32>> {
        let mut rows = vec![0.0; self.filled * self.width];
        self.values.read_at(0, &mut rows)?;
        Ok(rows)
    }

    /// The coreset of all rows.
    pub(crate) fn coreset(
        &self,
        projection: Option<&SparseProjection>,
        count: usize,
        start: usize,
        on_progress: &mut dyn FnMut(usize) -> bool,
    ) -> Tried<KCenter> {
        let (n, cuda) = (self.rows, self.values.cuda());
        if !self.is_full() {
            return Err(Refused::Arguments);
        }
        let Some(projection) = projection else {
            return Ok(kcenter::cuda::greedy(cuda, &self.values, [n, self.width], count, start, on_progress)?);
        };
        let d = projection.dim().1;
        let mut points = cuda.scratch(n.saturating_mul(d))?;
        kcenter::cuda::Projection::new(cuda, projection)?.apply(&self.values, n, &mut points, 0)?;
        Ok(kcenter::cuda::greedy(cuda, &points, [n, d], count, start, on_progress)?)
    }
}
