//! FastFlow's flows on a GPU.

use blemish_embed::Maps;
use blemish_flow::gpu::{MapBatch, MapModel};
use blemish_flow::{FlowError, Latent, MapFlow};
use blemish_grad::optim::{Adam, AdamState};
use blemish_tensor::cuda::Cuda;

use super::{Refused, Tried, refused};

/// Bytes of working memory of a flow in training: what bounds the pictures that go through it together. Always the same, since the
/// last bits depend on it.
const WORKING: usize = 1 << 30;

/// A flow in training.
pub(crate) struct MapTrainer(blemish_flow::gpu::MapTrainer);

/// A trainer with all its memory, for up to `pictures` at a step.
pub(crate) fn trainer(cuda: &Cuda, model: MapFlow, adam: Adam, pictures: usize) -> Tried<MapTrainer> {
    blemish_flow::gpu::MapTrainer::new(cuda, model, adam, pictures, WORKING).map(MapTrainer).map_err(refused)
}

impl MapTrainer {
    /// Copies all maps there are to the GPU, if they take less than half of the memory left there.
    pub(crate) fn hold<'m>(&mut self, cuda: &Cuda, maps: impl ExactSizeIterator<Item = &'m [f32]>) -> Tried<()> {
        let (h, w, c) = self.0.model().dim();
        let bytes = maps.len().saturating_mul(4 * h * w * c);
        if bytes > cuda.memory_budget().saturating_sub(cuda.memory_used()) / 2 {
            return Err(Refused::Arguments);
        }
        self.0.hold(maps).map_err(refused)
    }

    /// A step on maps, of which the ones held are known by their numbers.
    pub(crate) fn step(&mut self, maps: &[&[f32]], numbers: &[usize], lr: f32) -> Result<f32, FlowError> {
        let batch = if self.0.holds() { MapBatch::Held(numbers) } else { MapBatch::Maps(maps) };
        self.0.step(batch, lr)
    }

    pub(crate) fn latents(&self, maps: &[&[f32]]) -> Result<Vec<Latent>, FlowError> {
        self.0.latents(maps)
    }

    pub(crate) fn bring(&mut self, moments: bool) -> Result<(), FlowError> {
        self.0.bring(moments)
    }

    pub(crate) fn model(&self) -> &MapFlow {
        self.0.model()
    }

    pub(crate) fn state(&self) -> &AdamState {
        self.0.state()
    }

    pub(crate) fn resume(&mut self, model: MapFlow, state: AdamState) -> Result<(), FlowError> {
        self.0.resume(model, state)
    }

    pub(crate) fn into_model(self) -> Result<MapFlow, FlowError> {
        self.0.into_model()
    }
}

/// The flow of each layer.
pub(crate) struct Latents(Vec<MapModel>);

impl Latents {
    pub(crate) fn new<'m>(cuda: &Cuda, flows: impl Iterator<Item = &'m MapFlow>) -> Tried<Latents> {
        flows.map(|flow| MapModel::new(cuda, flow).map_err(refused)).collect::<Tried<_>>().map(Latents)
    }

    /// For each layer the latents of its maps.
    pub(crate) fn of(&self, maps: &Maps) -> Tried<Vec<Vec<Latent>>> {
        match maps {
            Maps::Host(maps) => {
                let layer = |(model, map): (&MapModel, &ndarray::Array4<f32>)| {
                    let map = map.as_standard_layout();
                    model.latents_of(map.as_slice().ok_or(Refused::Arguments)?).map_err(refused)
                };
                self.0.iter().zip(maps).map(layer).collect()
            }
            Maps::Gpu(maps) => {
                self.0.iter().zip(maps).map(|(model, map)| model.latents(map.values()).map_err(refused)).collect()
            }
        }
    }

    /// The latent of each layer of one picture.
    pub(crate) fn of_picture(&self, maps: &[Vec<f32>]) -> Tried<Vec<Latent>> {
        let layers = self.0.iter().zip(maps);
        Ok(layers.map(|(model, map)| model.latents_of(map).map_err(refused)).collect::<Tried<Vec<_>>>()?.concat())
    }
}
