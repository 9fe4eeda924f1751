use blemish_grad::GradError;
use blemish_grad::optim::{Adam, AdamState, Decay};
use blemish_kernels::adam::AdamStep;
use blemish_kernels::adam::cuda::Steps;
use blemish_kernels::coupling::cuda::{Loss, Training, gather, next, output};
use blemish_kernels::cuda::CudaResult;
use blemish_kernels::product::cuda::possible;
use blemish_tensor::cuda::{Buffer, Cuda, Recording};

use super::blocks::{Blocks, PARAMS, Way, WeightMoments, Weights};
use super::model::{Scoring, upload};
use super::room::Room;
use crate::train::panels::Sizes;
use crate::train::{check_adam, check_moments};
use crate::{Flow, FlowError, Products, Recomputed, Result};

/// Recorded steps that are kept, one for each number of samples.
const RECORDINGS: usize = 4;

/// What a [`LinearTrainer`] gets at a time.
#[derive(Clone, Copy, Debug)]
pub struct Batches<'a> {
    /// The condition of each position of a picture, `[positions, k]`.
    pub codes: &'a [f32],
    /// Most pictures of a batch.
    pub pictures: usize,
    /// Samples of a step.
    pub samples: usize,
}

/// Trains a flow of linear blocks on a GPU as [`crate::LinearTrainer`] does on the CPU, a batch of pictures at a time.
///
/// Features and order of the samples are copied to the GPU once for a batch; each step is one start of recorded launches, and the
/// losses are read at its end. Weights and Adam's moments stay there until they are asked for. For `P` parameters and `n` samples
/// a step takes `6 n P` operations and moves `32 P` bytes.
pub struct LinearTrainer {
    flow: Flow,
    adam: Adam,
    state: AdamState,
    products: Products,
    cuda: Cuda,
    positions: usize,
    samples: usize,
    pictures: usize,
    done: u64,
    loaded: bool,
    scoring: Scoring,
    // Recordings go before what they use.
    recordings: Vec<(usize, Recording)>,
    there: There,
}

/// All of the training that lies on the GPU.
struct There {
    blocks: Blocks,
    moments: Vec<WeightMoments>,
    room: Room,
    way: Way,
    steps: Steps,
    loss: Buffer<f64>,
    features: Buffer<f32>,
    fibres: Buffer<u32>,
    codes: Buffer<f32>,
    samples: usize,
}

impl LinearTrainer {
    /// Copies `flow` to the GPU and takes all the memory that training needs.
    ///
    /// # Errors
    /// [`FlowError::Params`] for a flow with convolutions, with rotations or without a condition, or settings of Adam out of range;
    /// [`FlowError::Shape`] for codes of no position or another width, or batches of nothing; [`FlowError::Gpu`], for want of memory
    /// for instance.
    pub fn new(cuda: &Cuda, flow: Flow, adam: Adam, products: Products, batches: Batches<'_>) -> Result<LinearTrainer> {
        check_adam(&adam)?;
        let products = if possible(cuda) { products } else { Products::F32 };
        let blocks = Blocks::new(cuda, &flow, products == Products::Bf16)?;
        let sizes = blocks.sizes;
        let Batches { codes, pictures, samples } = batches;
        let positions = codes.len() / sizes.condition;
        let most = pictures.checked_mul(positions).filter(|m| u32::try_from(*m).is_ok()).unwrap_or_default();
        if most == 0 || samples == 0 || codes.len() != positions * sizes.condition {
            let wanted = format!("codes [positions, {}], pictures and samples, none of them none", sizes.condition);
            let got = format!("{} values, {pictures} and {samples}", codes.len());
            return Err(FlowError::Shape { what: "batches", wanted, got });
        }
        let there = There::new(cuda, blocks, codes, most, samples)?;
        let scoring = Scoring::new(cuda, sizes)?;
        let state = AdamState { steps: vec![0; PARAMS * flow.blocks().len()], ..AdamState::default() };
        let (cuda, recordings) = (cuda.clone(), Vec::new());
        Ok(LinearTrainer {
            flow,
            adam,
            state,
            products,
            cuda,
            positions,
            samples,
            pictures,
            done: 0,
            loaded: false,
            scoring,
            recordings,
            there,
        })
    }

    /// What the products are computed in: `f32` also where bf16 is asked for, on chips without it.
    pub fn products(&self) -> Products {
        self.products
    }

    /// The flow as it was when it was last brought here.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The optimiser's memory, likewise; without its moments if they never were.
    pub fn state(&self) -> &AdamState {
        &self.state
    }

    /// Brings the flow from the GPU, and with `moments` the optimiser's memory; all of it or, after an error, nothing.
    ///
    /// # Errors
    /// [`FlowError::Gpu`].
    pub fn bring(&mut self, moments: bool) -> Result<()> {
        let mut flow = self.flow.clone();
        self.there.blocks.read(&mut flow)?;
        if moments {
            [self.state.exp_avg, self.state.exp_avg_sq] = self.there.blocks.read_moments(&self.there.moments)?;
        }
        self.state.steps.fill(self.done);
        self.flow = flow;
        Ok(())
    }

    /// The flow as it is now, moved out.
    ///
    /// # Errors
    /// [`FlowError::Gpu`].
    pub fn into_flow(mut self) -> Result<Flow> {
        self.bring(false)?;
        Ok(self.flow)
    }

    /// Goes on from a checkpoint, of whichever device.
    ///
    /// # Errors
    /// [`FlowError::Shape`] or [`GradError::State`] if it is that of another flow; [`FlowError::Gpu`].
    pub fn resume(&mut self, flow: Flow, state: AdamState) -> Result<()> {
        let sizes = self.there.blocks.sizes;
        if Sizes::of(&flow)? != sizes || flow.blocks().len() != self.flow.blocks().len() {
            let (wanted, got) = (format!("{sizes:?}"), "another".to_owned());
            return Err(FlowError::Shape { what: "flow", wanted, got });
        }
        check_moments(&flow, &state)?;
        let done = state.steps.first().copied().unwrap_or_default();
        if state.steps.iter().any(|steps| *steps != done) {
            let (wanted, got) = (format!("{done} steps of all"), format!("{:?}", state.steps));
            return Err(GradError::State { name: "steps".to_owned(), wanted, got }.into());
        }
        // What is recorded uses the weights that are there now.
        self.recordings.clear();
        self.there.blocks = Blocks::new(&self.cuda, &flow, self.products == Products::Bf16)?;
        self.there.blocks.write_moments(&mut self.there.moments, &state)?;
        (self.flow, self.state, self.done) = (flow, state, done);
        Ok(())
    }

    /// A step of Adam with learning rate `lr` for every so many samples of `order`, numbers below pictures times positions: sample `i`
    /// is position `i % positions` of map `i / positions`, maps being `[positions, c]`. What is left over joins the last step, or is
    /// left out without `leftovers`; a step there is in any case. Returns the sum of the losses before each step, and how many there
    /// were.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if something does not fit; [`GradError::NotFinite`] if a loss is no number, the flow is of no use then;
    /// [`FlowError::Gpu`].
    pub fn train(&mut self, maps: &[&[f32]], order: &[u32], leftovers: bool, lr: f32) -> Result<(f64, usize)> {
        let each = self.positions * self.there.blocks.sizes.channels;
        let m = maps.len() * self.positions;
        let fits = maps.len() <= self.pictures && maps.iter().all(|map| map.len() == each);
        if !fits || order.is_empty() || order.len() > m || order.iter().any(|i| *i as usize >= m) {
            let wanted = format!("at most {} maps of {each} values, and the numbers of their samples", self.pictures);
            let got = format!("{} maps, {} samples", maps.len(), order.len());
            return Err(FlowError::Shape { what: "batch", wanted, got });
        }
        let count = (order.len() / self.samples).max(1);
        let last = if leftovers || count == 1 { order.len() - (count - 1) * self.samples } else { self.samples };
        let Adam { betas, eps, weight_decay, decay, .. } = self.adam;
        let step = |t| AdamStep::new(lr, betas, eps, weight_decay, decay == Decay::Decoupled, t);
        let steps: Vec<AdamStep> = (1..=count as u64).map(|i| step(self.done + i)).collect();
        self.there.load(maps, order, &steps)?;
        for i in 1..=count {
            self.step(if i == count { last } else { self.samples })?;
        }
        self.done += count as u64;
        let losses = self.there.steps.losses(count)?;
        if losses.iter().any(|loss| !loss.is_finite()) {
            return Err(GradError::NotFinite { what: "the loss".to_owned() }.into());
        }
        Ok((losses.iter().sum(), count))
    }

    /// The next step, on `n` samples.
    fn step(&mut self, n: usize) -> CudaResult<()> {
        if let Some((_, recording)) = self.recordings.iter().find(|(samples, _)| *samples == n) {
            return Ok(recording.replay()?);
        }
        if !self.loaded {
            // As it is, since a kernel should have been loaded before it is recorded.
            self.loaded = true;
            return self.there.step(n);
        }
        if self.recordings.len() >= RECORDINGS {
            self.recordings.remove(0);
        }
        let recording = self.cuda.record(|| self.there.step(n))?;
        recording.replay()?;
        self.recordings.push((n, recording));
        Ok(())
    }

    /// The loss of samples `x` `[n, c]` with conditions `[n, k]`, and the gradients, without a step; of no more samples than a step
    /// has.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the lengths do not fit; [`GradError::NotFinite`] if the loss is no number; [`FlowError::Gpu`].
    pub fn gradients(&mut self, x: &[f32], condition: &[f32]) -> Result<Recomputed> {
        let Sizes { channels, condition: width, .. } = self.there.blocks.sizes;
        let n = x.len() / channels;
        if n == 0 || n > self.there.room.rows || x.len() != n * channels || condition.len() != n * width {
            let wanted = format!("[n, {channels}] and [n, {width}], n at most {}", self.there.room.rows);
            let got = format!("{} and {} values", x.len(), condition.len());
            return Err(FlowError::Shape { what: "samples", wanted, got });
        }
        let (x, condition) = (upload(&self.cuda, x)?, upload(&self.cuda, condition)?);
        let (loss, gradients) = self.there.gradients(n, &x, &condition)?;
        if !loss.is_finite() {
            return Err(GradError::NotFinite { what: "the loss".to_owned() }.into());
        }
        Ok(Recomputed { loss: loss as f32, gradients })
    }

    /// As [`Flow::log_likelihoods`] with the weights as they are now, of whole maps `[positions, c]`; products in `f32`.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the length does not fit; [`FlowError::Gpu`].
    pub fn log_likelihoods(&self, x: &[f32]) -> Result<Vec<f32>> {
        self.scoring.run(&self.there.blocks, &upload(&self.cuda, x)?, &self.there.codes)
    }
}

impl There {
    fn new(cuda: &Cuda, blocks: Blocks, codes: &[f32], most: usize, samples: usize) -> Result<There> {
        let sizes = blocks.sizes;
        let count = blocks.blocks.len();
        // A step with what is left over has less than twice the samples.
        let rows = most.min(samples.saturating_mul(2).saturating_sub(1));
        let make = || -> CudaResult<There> {
            Ok(There {
                moments: (0..count).map(|_| WeightMoments::new(cuda, sizes)).collect::<CudaResult<_>>()?,
                room: Room::new(cuda, rows, count, sizes)?,
                way: Way::new(cuda, rows, sizes)?,
                steps: Steps::new(cuda, (most / samples).max(1))?,
                loss: cuda.scratch(rows)?,
                features: cuda.scratch(most.saturating_mul(sizes.channels))?,
                fibres: cuda.scratch(most)?,
                codes: cuda.upload(codes)?,
                samples,
                blocks,
            })
        };
        Ok(make()?)
    }

    /// Takes maps, the order of their samples and the steps to do.
    fn load(&mut self, maps: &[&[f32]], order: &[u32], steps: &[AdamStep]) -> CudaResult<()> {
        let mut at = 0;
        for map in maps {
            self.features.write_at(at, map)?;
            at += map.len();
        }
        self.fibres.write_at(0, order)?;
        self.steps.load(steps)
    }

    fn step(&mut self, n: usize) -> CudaResult<()> {
        let There { blocks, moments, room, way, steps, loss, features, fibres, codes, samples } = self;
        forward(blocks, room, way, loss, (steps, *samples, n), fibres, features, codes)?;
        blocks.backward(room, way, n, Some(steps), &mut Weights::Step(moments))?;
        next(steps, loss, n, n)
    }

    /// Loss and gradients of samples with conditions of their own.
    fn gradients(
        &mut self,
        n: usize,
        x: &Buffer<f32>,
        condition: &Buffer<f32>,
    ) -> CudaResult<(f64, Vec<Option<Vec<f32>>>)> {
        let There { blocks, room, way, loss, .. } = self;
        let mut steps = Steps::new(x.cuda(), 1)?;
        let samples = x.cuda().upload(&(0..n as u32).collect::<Vec<_>>())?;
        forward(blocks, room, way, loss, (&steps, n, n), &samples, x, condition)?;
        let mut found = Vec::new();
        blocks.backward(room, way, n, None, &mut Weights::Collect(&mut found))?;
        next(&mut steps, loss, n, n)?;
        let mut gradients = vec![None; PARAMS * blocks.blocks.len()];
        for (b, collected) in found {
            if let (Some(block), Some(to)) = (blocks.blocks.get(b), gradients.get_mut(PARAMS * b..PARAMS * (b + 1))) {
                to.iter_mut().zip(collected.with(block)?).for_each(|(to, gradient)| *to = Some(gradient));
            }
        }
        let loss = steps.losses(1)?.iter().sum();
        Ok((loss, gradients))
    }
}

/// Gathers `n` samples, of which a step has `each`, takes them through the flow, and begins the way back at its end.
#[expect(clippy::too_many_arguments, reason = "the parts of a step, borrowed one by one")]
fn forward(
    blocks: &Blocks,
    room: &mut Room,
    way: &mut Way,
    loss: &mut Buffer<f64>,
    (steps, each, n): (&Steps, usize, usize),
    fibres: &Buffer<u32>,
    features: &Buffer<f32>,
    codes: &Buffer<f32>,
) -> CudaResult<()> {
    let sizes = blocks.sizes;
    let halves = [sizes.first(), sizes.second()];
    let Some(slot) = room.slots.first_mut() else { return Ok(()) };
    let (x, condition) = (slot.x.halves_mut(), room.condition.half_mut());
    gather(steps, each, n, fibres, features, codes, [halves[0], halves[1], sizes.condition], x, condition)?;
    blocks.forward(room, n, false)?;
    let Way { g: [g, _], slope, .. } = way;
    let share = (1.0 / (n * sizes.channels) as f64) as f32;
    let training = Training { loss, g: g.halves_mut(), slope, share };
    output(Loss::Likelihood, n, halves, room.z.halves(), &room.log_det, &mut room.value, Some(training))
}
