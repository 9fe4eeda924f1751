use std::sync::Mutex;

use blemish_grad::optim::{Adam, AdamState, Decay};
use blemish_grad::{GradError, Module};
use blemish_kernels::adam::AdamStep;
use blemish_kernels::adam::cuda::Steps;
use blemish_kernels::cuda::norm::{Chosen, Pictures, Table};
use blemish_kernels::cuda::{CudaError, CudaResult};
use blemish_tensor::cuda::{Buffer, Cuda, Recording};

use super::map_blocks::MapBlocks;
use super::map_learning::Learning;
use super::map_model::{Scoring, latents};
use crate::train::{Latent, check_adam, check_moments, fresh_moments};
use crate::{FlowError, MapFlow, Recomputed, Result};

/// Groups of pictures whose launches are kept recorded.
const RECORDINGS: usize = 8;

/// Trains a [`MapFlow`] on a GPU under FastFlow's loss: the form of [`ConvTrainer`](crate::ConvTrainer) there, which agrees with it
/// within rounding.
///
/// A batch goes through in groups of a fixed number of pictures, whose gradients are added up in order, then Adam takes its step.
/// The launches of a group are recorded once and started again. For one kind of GPU the results are the same bits every time.
pub struct MapTrainer {
    cuda: Cuda,
    adam: Adam,
    /// The parameters as they were when last brought back, which is where their names and shapes come from.
    model: MapFlow,
    state: AdamState,
    taken: u64,
    blocks: MapBlocks,
    learning: Learning,
    steps: Steps,
    /// Feature maps: those of a group, or all there are.
    maps: Buffer<f32>,
    held: Option<usize>,
    table: Table,
    /// Pictures of a group, and of a batch at most.
    group: usize,
    images: usize,
    recordings: Vec<(Key, Option<Recording>)>,
    scoring: Mutex<Option<Scoring>>,
}

/// What is different in the launches: a group of so many pictures of a batch of so many, whose gradients are added to those there,
/// or the step after a batch whose first group has so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Group { count: usize, images: usize, add: bool },
    Update { count: usize },
}

/// The pictures of a step.
#[derive(Clone, Copy, Debug)]
pub enum MapBatch<'a> {
    /// Feature maps `[h, w, c]` in the CPU's memory.
    Maps(&'a [&'a [f32]]),
    /// Numbers of the maps that [`MapTrainer::hold`] copied to the GPU.
    Held(&'a [usize]),
}

impl MapBatch<'_> {
    fn len(&self) -> usize {
        match self {
            MapBatch::Maps(maps) => maps.len(),
            MapBatch::Held(numbers) => numbers.len(),
        }
    }
}

impl std::fmt::Debug for MapTrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapTrainer")
            .field("shape", &self.blocks.shape)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl MapTrainer {
    /// For batches of up to `images` pictures, as many of which go through together as `bytes` of working memory hold, at least
    /// one. How many that is decides about the order of sums, hence about the last bits.
    ///
    /// # Errors
    /// [`FlowError::Params`] for settings of Adam out of range or no pictures; [`FlowError::Gpu`], for want of memory for instance.
    pub fn new(cuda: &Cuda, model: MapFlow, adam: Adam, images: usize, bytes: usize) -> Result<MapTrainer> {
        check_adam(&adam)?;
        if images == 0 {
            return Err(FlowError::Params { name: "images", why: "0; at least 1".to_owned() });
        }
        let state = fresh_moments(&model);
        let blocks = MapBlocks::new(cuda, &model)?;
        let group = (bytes / Learning::bytes(&blocks).max(1)).clamp(1, images);
        let groups = images.div_ceil(group);
        let maps = cuda.zeros(group.saturating_mul(blocks.shape.values())).map_err(CudaError::from)?;
        // One turn besides, which is Adam's.
        let mut table = Table::new(cuda, (groups + 1) * group, group)?;
        table.set(&(0..(groups + 1) * group).map(|i| (i % group) as u32).collect::<Vec<_>>())?;
        Ok(MapTrainer {
            cuda: cuda.clone(),
            adam,
            state,
            taken: 0,
            learning: Learning::new(cuda, &blocks, group)?,
            model,
            blocks,
            steps: Steps::new(cuda, groups + 1)?,
            maps,
            held: None,
            table,
            group,
            images,
            recordings: Vec::new(),
            scoring: Mutex::default(),
        })
    }

    /// Copies all maps there are, `[h, w, c]` each, to the GPU, so that steps name them by their numbers ([`MapBatch::Held`]).
    ///
    /// # Errors
    /// [`FlowError::Shape`] for none or a map of another size; [`FlowError::Gpu`] for want of memory, after which maps are given step
    /// by step as before.
    pub fn hold<'m>(&mut self, maps: impl ExactSizeIterator<Item = &'m [f32]>) -> Result<()> {
        let (count, values) = (maps.len(), self.blocks.shape.values());
        if count == 0 {
            return Err(self.not_maps("none".to_owned()));
        }
        let mut all = self.cuda.scratch(count.saturating_mul(values)).map_err(CudaError::from)?;
        for (i, map) in maps.enumerate() {
            self.check_map(map)?;
            all.write_at(i * values, map).map_err(CudaError::from)?;
        }
        let groups = self.images.div_ceil(self.group);
        self.table = Table::new(&self.cuda, (groups + 1) * self.group, count)?;
        (self.maps, self.held) = (all, Some(count));
        self.recordings.clear();
        Ok(())
    }

    /// Whether [`hold`](Self::hold) copied the maps.
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    fn not_maps(&self, got: String) -> FlowError {
        let (h, w, c) = self.model.dim();
        FlowError::Shape { what: "feature maps", wanted: format!("[{h}, {w}, {c}], at least one"), got }
    }

    fn check_map(&self, map: &[f32]) -> Result<()> {
        if map.len() == self.blocks.shape.values() {
            return Ok(());
        }
        Err(self.not_maps(format!("{} values", map.len())))
    }

    /// The model as it was when last brought back.
    pub fn model(&self) -> &MapFlow {
        &self.model
    }

    /// The optimiser's memory, for checkpoints, as it was when last brought back.
    pub fn state(&self) -> &AdamState {
        &self.state
    }

    /// Brings the model back from the GPU and, with `moments`, the optimiser's memory; all of it or, after an error, nothing.
    ///
    /// # Errors
    /// [`FlowError::Gpu`].
    pub fn bring(&mut self, moments: bool) -> Result<()> {
        let mut values = self.learning.values(&self.blocks)?.into_iter();
        let moments = moments.then(|| self.learning.moments(&self.blocks)).transpose()?;
        self.model.visit_mut(&mut |_, param| {
            if let Some(values) = values.next().filter(|v| v.len() == param.data().len()) {
                param.data_mut().copy_from_slice(&values);
            }
        });
        if let Some([first, second]) = moments {
            self.state = AdamState { steps: vec![self.taken; first.len()], exp_avg: first, exp_avg_sq: second };
        }
        Ok(())
    }

    /// The model, brought back and moved out.
    ///
    /// # Errors
    /// [`FlowError::Gpu`].
    pub fn into_model(mut self) -> Result<MapFlow> {
        self.bring(false)?;
        Ok(self.model)
    }

    /// Goes on from a checkpoint, of a [`ConvTrainer`](crate::ConvTrainer) as well.
    ///
    /// # Errors
    /// [`GradError::State`] if it is that of another model, [`FlowError::Shape`] if parameters took different numbers of steps;
    /// [`FlowError::Gpu`].
    pub fn resume(&mut self, model: MapFlow, state: AdamState) -> Result<()> {
        if model.dim() != self.model.dim() {
            let (wanted, got) = (format!("{:?}", self.model.dim()), format!("{:?}", model.dim()));
            return Err(FlowError::Shape { what: "flow", wanted, got });
        }
        check_moments(&model, &state)?;
        let taken = state.steps.first().copied().unwrap_or(0);
        if let Some(other) = state.steps.iter().find(|steps| **steps != taken) {
            let (wanted, got) = (format!("{taken} steps of every parameter"), other.to_string());
            return Err(FlowError::Shape { what: "optimiser", wanted, got });
        }
        // What is recorded works on the parameters before.
        self.recordings.clear();
        let mut blocks = MapBlocks::new(&self.cuda, &model)?;
        if blocks.shape != self.blocks.shape {
            let (wanted, got) = (format!("{:?}", self.blocks.shape), format!("{:?}", blocks.shape));
            return Err(FlowError::Shape { what: "flow", wanted, got });
        }
        self.learning.take(&mut blocks, &state)?;
        (self.blocks, self.model, self.state, self.taken) = (blocks, model, state, taken);
        Ok(())
    }

    /// A step with learning rate `lr`; returns the loss before it.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for no pictures, too many, a map of another size or one that is not held; [`GradError::NotFinite`] if the
    /// loss is no number, nothing is changed then; [`FlowError::Gpu`].
    pub fn step(&mut self, batch: MapBatch<'_>, lr: f32) -> Result<f32> {
        let Adam { betas, eps, weight_decay, decay, .. } = self.adam;
        let step = AdamStep::new(lr, betas, eps, weight_decay, decay == Decay::Decoupled, self.taken + 1);
        let loss = self.losses(batch, step)?;
        self.launch(Key::Update { count: self.group.min(batch.len()) })?;
        self.taken += 1;
        Ok(loss)
    }

    /// The loss and the gradients, without a step.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn gradients(&mut self, batch: MapBatch<'_>) -> Result<Recomputed> {
        let loss = self.losses(batch, AdamStep::new(0.0, [0.0; 2], 1.0, 0.0, false, 1))?;
        let count = self.group.min(batch.len());
        let gradients = self.learning.gradients(&mut self.blocks, count)?;
        Ok(Recomputed { loss, gradients: gradients.into_iter().map(Some).collect() })
    }

    /// The latents of maps `[h, w, c]` with the parameters as they are now.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for a map of another size; [`FlowError::Gpu`].
    pub fn latents(&self, maps: &[&[f32]]) -> Result<Vec<Latent>> {
        let mut all =
            self.cuda.scratch(maps.len().saturating_mul(self.blocks.shape.values())).map_err(CudaError::from)?;
        for (i, map) in maps.iter().enumerate() {
            self.check_map(map)?;
            all.write_at(i * map.len(), map).map_err(CudaError::from)?;
        }
        latents(&self.cuda, &self.blocks, &all, &self.scoring)
    }

    /// Sends all groups of a batch through; returns the loss.
    fn losses(&mut self, batch: MapBatch<'_>, step: AdamStep) -> Result<f32> {
        let (images, values) = (batch.len(), self.blocks.shape.values());
        if images == 0 || images > self.images {
            return Err(self.not_maps(format!("{images} of them, of at most {}", self.images)));
        }
        match (batch, self.held) {
            (MapBatch::Maps(maps), None) => maps.iter().try_for_each(|map| self.check_map(map))?,
            (MapBatch::Held(numbers), Some(count)) if numbers.iter().all(|i| *i < count) => {
                self.table.set(&numbers.iter().map(|i| *i as u32).collect::<Vec<_>>())?;
            }
            (_, held) => return Err(self.not_maps(format!("others than the {held:?} held"))),
        }
        let groups = images.div_ceil(self.group);
        self.steps.load(&vec![step; groups + 1])?;
        for g in 0..groups {
            let count = self.group.min(images - g * self.group);
            if let MapBatch::Maps(maps) = batch {
                for (i, map) in maps.iter().skip(g * self.group).take(count).enumerate() {
                    self.maps.write_at(i * values, map).map_err(CudaError::from)?;
                }
            }
            self.launch(Key::Group { count, images, add: g > 0 })?;
        }
        let loss = (self.steps.losses(groups)?.iter().sum::<f64>() / images as f64) as f32;
        if loss.is_finite() {
            return Ok(loss);
        }
        Err(GradError::NotFinite { what: "the loss".to_owned() }.into())
    }

    /// Starts launches: the first time one by one, since modules are loaded then, later as recorded.
    fn launch(&mut self, key: Key) -> CudaResult<()> {
        match self.recordings.iter().position(|(k, _)| *k == key) {
            None => {
                if self.recordings.len() >= RECORDINGS {
                    self.recordings.remove(0);
                }
                self.recordings.push((key, None));
                self.work(key)
            }
            Some(i) => {
                if self.recordings.get(i).is_some_and(|(_, recording)| recording.is_none()) {
                    let cuda = self.cuda.clone();
                    let recording = cuda.record(|| self.work(key))?;
                    if let Some(place) = self.recordings.get_mut(i) {
                        place.1 = Some(recording);
                    }
                }
                match self.recordings.get(i) {
                    Some((_, Some(recording))) => Ok(recording.replay()?),
                    _ => Ok(()),
                }
            }
        }
    }

    fn work(&mut self, key: Key) -> CudaResult<()> {
        let Key::Group { count, images, add } = key else {
            let Key::Update { count } = key else { return Ok(()) };
            return self.learning.update(&mut self.blocks, count, &self.steps);
        };
        let shape = &self.blocks.shape;
        let chosen = Some(Chosen { table: &self.table, steps: Some(&self.steps), each: self.group });
        let pictures = Pictures { maps: &self.maps, pixels: shape.pixels(), channels: shape.channels, count, chosen };
        self.learning.group(&self.cuda, &self.blocks, pictures, images, add)?;
        self.learning.end(&mut self.steps, count * shape.pixels())
    }
}
