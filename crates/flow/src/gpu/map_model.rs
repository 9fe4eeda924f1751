use std::sync::{Mutex, PoisonError};

use blemish_kernels::coupling::cuda::{Loss, output};
use blemish_kernels::cuda::norm::{Chosen, Norm, Pictures, Table};
use blemish_kernels::cuda::{CudaError, CudaResult};
use blemish_tensor::cuda::{Buffer, Cuda};

use super::map_blocks::{MapBlocks, upload};
use super::map_work::Work;
use crate::train::Latent;
use crate::{FlowError, MapFlow, Result};

/// Pictures that go through a flow together.
const TOGETHER: usize = 8;

/// A [`MapFlow`] on a GPU, ready for prediction: the form of [`PackedFlow`](crate::PackedFlow) there.
pub struct MapModel {
    cuda: Cuda,
    blocks: MapBlocks,
    /// One call at a time; the memory is kept.
    scoring: Mutex<Option<Scoring>>,
}

impl std::fmt::Debug for MapModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapModel").field("shape", &self.blocks.shape).finish_non_exhaustive()
    }
}

/// Working memory of up to `images` pictures.
pub(super) struct Scoring {
    norm: Norm,
    work: Work,
    images: usize,
}

impl MapModel {
    /// Copies `model` to the GPU.
    ///
    /// # Errors
    /// [`FlowError::Gpu`], for want of memory for instance.
    pub fn new(cuda: &Cuda, model: &MapFlow) -> Result<MapModel> {
        Ok(MapModel { cuda: cuda.clone(), blocks: MapBlocks::new(cuda, model)?, scoring: Mutex::default() })
    }

    /// Height, width and channels of the feature maps.
    pub fn dim(&self) -> (usize, usize, usize) {
        let [h, w] = self.blocks.shape.size;
        (h, w, self.blocks.shape.channels)
    }

    /// The latents of the `n` feature maps `[n, h, w, c]` in `maps`, which lie on this GPU. A map's latent does not depend on the
    /// others.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for another length; [`FlowError::Gpu`].
    pub fn latents(&self, maps: &Buffer<f32>) -> Result<Vec<Latent>> {
        latents(&self.cuda, &self.blocks, maps, &self.scoring)
    }

    /// As [`latents`](Self::latents), for maps in the CPU's memory.
    ///
    /// # Errors
    /// As [`latents`](Self::latents).
    pub fn latents_of(&self, maps: &[f32]) -> Result<Vec<Latent>> {
        self.latents(&upload(&self.cuda, maps)?)
    }
}

/// The latents of whole maps, some at a time.
pub(super) fn latents(
    cuda: &Cuda,
    blocks: &MapBlocks,
    maps: &Buffer<f32>,
    scoring: &Mutex<Option<Scoring>>,
) -> Result<Vec<Latent>> {
    let (shape, values) = (blocks.shape, blocks.shape.values());
    if !maps.len().is_multiple_of(values) {
        let wanted = format!("[n, {}, {}, {}]", shape.size[0], shape.size[1], shape.channels);
        return Err(FlowError::Shape { what: "feature maps", wanted, got: format!("{} values", maps.len()) });
    }
    let n = maps.len() / values;
    if n == 0 {
        return Ok(Vec::new());
    }
    // A panic elsewhere leaves nothing behind that is not written anew.
    let mut place = scoring.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = n.min(TOGETHER);
    let own = match place.as_mut().filter(|own| own.images >= wanted) {
        Some(own) => own,
        None => {
            *place = None;
            place.insert(Scoring::new(cuda, blocks, wanted)?)
        }
    };
    let mut all = Vec::with_capacity(n);
    for first in (0..n).step_by(TOGETHER) {
        all.extend(own.run(cuda, blocks, maps, (first, TOGETHER.min(n - first)), n)?);
    }
    Ok(all)
}

impl Scoring {
    fn new(cuda: &Cuda, blocks: &MapBlocks, images: usize) -> CudaResult<Scoring> {
        let shape = &blocks.shape;
        let norm = Norm::new(cuda, images, shape.pixels(), shape.channels)?;
        Ok(Scoring { norm, work: Work::new(cuda, shape, images, None)?, images })
    }

    /// The latents of `count` of all `n` maps, from `first` on.
    fn run(
        &mut self,
        cuda: &Cuda,
        blocks: &MapBlocks,
        maps: &Buffer<f32>,
        (first, count): (usize, usize),
        n: usize,
    ) -> CudaResult<Vec<Latent>> {
        let (shape, pixels) = (&blocks.shape, blocks.shape.pixels());
        let mut table = Table::new(cuda, count, n)?;
        let numbers: Vec<u32> = (first..first + count).map(|i| i as u32).collect();
        table.set(&numbers)?;
        let chosen = Some(Chosen { table: &table, steps: None, each: count });
        let pictures = Pictures { maps, pixels, channels: shape.channels, count, chosen };
        let last = blocks.forward(cuda, pictures, &mut self.norm, &mut self.work)?;
        let Work { slots, log_det, energy, .. } = &mut self.work;
        let Some(latent) = slots.get(last) else { return Ok(Vec::new()) };
        let rows = count * pixels;
        output(Loss::Energy, rows, shape.halves(), latent.halves(), log_det, energy, None)?;
        let (mut energies, mut dets) = (vec![0.0f32; rows], vec![0.0f32; rows]);
        energy.read_at(0, &mut energies).map_err(CudaError::from)?;
        log_det.read_at(0, &mut dets).map_err(CudaError::from)?;
        let one = |(energy, dets): (&[f32], &[f32])| {
            let log_det = dets.iter().map(|v| f64::from(*v)).sum::<f64>();
            let squares = energy.iter().map(|e| f64::from(*e)).sum::<f64>() * shape.channels as f64;
            Latent { energy: energy.to_vec(), log_dets: dets.to_vec(), log_det, loss: 0.5 * squares - log_det }
        };
        Ok(energies.chunks_exact(pixels).zip(dets.chunks_exact(pixels)).map(one).collect())
    }
}
