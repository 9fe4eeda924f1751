use std::sync::{Mutex, PoisonError};

use blemish_kernels::adam::cuda::Steps;
use blemish_kernels::coupling::cuda::gather;
use blemish_kernels::cuda::CudaResult;
use blemish_tensor::cuda::{Buffer, Cuda};

use super::blocks::Blocks;
use super::room::Room;
use crate::train::panels::Sizes;
use crate::{Flow, FlowError, Result};

/// Samples that go through a flow together.
const TOGETHER: usize = 2048;

/// A flow of linear blocks on a GPU, for log-likelihoods; products in `f32`.
pub struct LinearModel {
    cuda: Cuda,
    blocks: Blocks,
    scoring: Scoring,
}

impl LinearModel {
    /// Copies `flow` to the GPU.
    ///
    /// # Errors
    /// [`FlowError::Params`] for a flow with convolutions, with rotations or without a condition; [`FlowError::Gpu`], for want of
    /// memory for instance.
    pub fn new(cuda: &Cuda, flow: &Flow) -> Result<LinearModel> {
        let blocks = Blocks::new(cuda, flow, false)?;
        let scoring = Scoring::new(cuda, blocks.sizes)?;
        Ok(LinearModel { cuda: cuda.clone(), blocks, scoring })
    }

    /// The log-likelihood of each sample over the number of channels, as [`Flow::log_likelihoods`]: `[m]` for `features` `[m, c]`
    /// on this GPU. Sample `i` has the condition `i % positions` of `codes` `[positions, k]`. A sample's value does not depend on
    /// the others.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the lengths do not fit; [`FlowError::Gpu`].
    pub fn log_likelihoods(&self, features: &Buffer<f32>, codes: &Buffer<f32>) -> Result<Vec<f32>> {
        self.scoring.run(&self.blocks, features, codes)
    }

    /// As [`log_likelihoods`](Self::log_likelihoods), of features in the CPU's memory.
    ///
    /// # Errors
    /// As [`log_likelihoods`](Self::log_likelihoods).
    pub fn log_likelihoods_of(&self, features: &[f32], codes: &Buffer<f32>) -> Result<Vec<f32>> {
        self.log_likelihoods(&upload(&self.cuda, features)?, codes)
    }
}

/// Numbers on their way to a GPU.
pub(super) fn upload(cuda: &Cuda, values: &[f32]) -> Result<Buffer<f32>> {
    Ok(cuda.upload(values).map_err(blemish_kernels::cuda::CudaError::from)?)
}

/// What likelihoods are computed in, one call at a time.
pub(super) struct Scoring(Mutex<Inner>);

struct Inner {
    room: Room,
    /// Numbers of the samples.
    samples: Buffer<u32>,
    steps: Steps,
}

impl Scoring {
    pub(super) fn new(cuda: &Cuda, sizes: Sizes) -> Result<Scoring> {
        let inner = || -> CudaResult<Inner> {
            let room = Room::new(cuda, TOGETHER, 1, sizes)?;
            Ok(Inner { room, samples: cuda.scratch(TOGETHER)?, steps: Steps::new(cuda, 1)? })
        };
        Ok(Scoring(Mutex::new(inner()?)))
    }

    pub(super) fn run(&self, blocks: &Blocks, features: &Buffer<f32>, codes: &Buffer<f32>) -> Result<Vec<f32>> {
        let Sizes { channels, condition, .. } = blocks.sizes;
        let (m, positions) = (features.len() / channels, codes.len() / condition);
        let whole = features.len() == m * channels && codes.len() == positions * condition && positions > 0;
        if !whole || u32::try_from(m).is_err() {
            let wanted = format!("[m, {channels}] and [positions, {condition}]");
            let got = format!("{} and {} values", features.len(), codes.len());
            return Err(FlowError::Shape { what: "samples", wanted, got });
        }
        // Whatever a call before left there is written over.
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = vec![0.0; m];
        for (part, values) in all.chunks_mut(TOGETHER).enumerate() {
            inner.part(blocks, part * TOGETHER, values, features, codes)?;
        }
        Ok(all)
    }
}

impl Inner {
    /// The values of the samples from `first` on.
    fn part(
        &mut self,
        blocks: &Blocks,
        first: usize,
        values: &mut [f32],
        features: &Buffer<f32>,
        codes: &Buffer<f32>,
    ) -> CudaResult<()> {
        let n = values.len();
        let samples: Vec<u32> = (first..first + n).map(|i| i as u32).collect();
        self.samples.write_at(0, &samples)?;
        let sizes = blocks.sizes;
        let widths = [sizes.first(), sizes.second(), sizes.condition];
        let Room { slots, condition, .. } = &mut self.room;
        let Some(slot) = slots.first_mut() else { return Ok(()) };
        let (x, condition) = (slot.x.halves_mut(), condition.half_mut());
        gather(&self.steps, 0, n, &self.samples, features, codes, widths, x, condition)?;
        blocks.forward(&mut self.room, n, true)?;
        blocks.likelihoods(&mut self.room, n)?;
        Ok(self.room.value.read_at(0, values)?)
    }
}
