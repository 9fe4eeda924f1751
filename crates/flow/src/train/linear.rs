use blemish_grad::optim::{Adam, AdamState, Decay};
use blemish_grad::{GradError, Module, Param};
use blemish_kernels::Par;
use blemish_kernels::adam::{AdamStep, adam};
use blemish_kernels::coupling::{self, Layout};
use blemish_kernels::product::panel::{self, Moments, PANEL, Weight};
use rayon::prelude::*;

use super::OfKernel;
use super::panels::{Panels, Sizes, Slot};
use super::products::{Products, Turned};
use super::sums::{dot, row_sums, sum};
use crate::block::{global_scale, global_scale_slope};
use crate::{Block, Flow, FlowError, Mixing, Recomputed, Result};

/// Trains a flow of linear blocks under CFlow-AD's loss ([`log_likelihood_loss`](crate::log_likelihood_loss)), one step of
/// Adam for each batch of samples.
///
/// Activations lie in panels `[channels, 64 samples]`, so that weights are read where they are and never packed, and the
/// gradient of a weight is used up by Adam tile by tile, without ever being stored. For `P` parameters and `n` samples a step
/// takes `6 n P` operations and moves `32 P` bytes to and from the memory. While a weight moves, which waits for the memory,
/// the gradients go on to the layer before it.
pub struct LinearTrainer {
    flow: Flow,
    adam: Adam,
    state: AdamState,
    work: Work,
}

struct Work {
    panels: Panels,
    /// Gradient of the hidden layer.
    hidden: Vec<f32>,
    /// Gradient of a block's input, in the order of its channels.
    input: Vec<f32>,
    /// The subnet's input and hidden layer, transposed.
    input_turned: Turned,
    hidden_turned: Turned,
    /// Rounded activations.
    words: Vec<u32>,
}

/// Parameters of flows that are trained side by side, in all.
const TOGETHER: usize = 24_000_000;

/// Parameters of a block, in the order of [`blemish_grad::Module::visit`].
const PARAMS: usize = 6;

impl LinearTrainer {
    /// # Errors
    /// [`FlowError::Params`] if a block is not linear, or for settings of Adam out of range.
    pub fn new(flow: Flow, adam: Adam) -> Result<LinearTrainer> {
        LinearTrainer::with_products(flow, adam, Products::F32)
    }

    /// As [`new`](Self::new), with products in `products`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_products(flow: Flow, adam: Adam, products: Products) -> Result<LinearTrainer> {
        super::check_adam(&adam)?;
        let products = products.possible();
        let panels = Panels::new(Sizes::of(&flow)?, flow.blocks().len(), products);
        let [hidden, input] = std::array::from_fn(|_| Vec::new());
        let [input_turned, hidden_turned] = std::array::from_fn(|_| Turned::new(products));
        let work = Work { panels, hidden, input, input_turned, hidden_turned, words: Vec::new() };
        Ok(LinearTrainer { state: super::fresh_moments(&flow), flow, adam, work })
    }

    /// What the products are computed in on this processor.
    pub fn products(&self) -> Products {
        self.work.panels.products
    }

    /// The flow as it is now.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Whether several flows are better trained side by side than one after the other: together they have few enough
    /// parameters not to drive each other out of the cache. The results are the same either way.
    pub fn side_by_side<'a>(trainers: impl IntoIterator<Item = &'a LinearTrainer>) -> bool {
        trainers.into_iter().map(|trainer| trainer.flow.count()).sum::<usize>() < TOGETHER
    }

    /// The flow, moved out.
    pub fn into_flow(self) -> Flow {
        self.flow
    }

    /// The optimiser's memory, for checkpoints.
    pub fn state(&self) -> &AdamState {
        &self.state
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// [`GradError::State`] if it is that of another flow.
    pub fn resume(&mut self, flow: Flow, state: AdamState) -> Result<()> {
        if Sizes::of(&flow)? != self.work.panels.sizes || flow.blocks().len() != self.flow.blocks().len() {
            let (wanted, got) = (format!("{:?}", self.work.panels.sizes), "another".to_owned());
            return Err(FlowError::Shape { what: "flow", wanted, got });
        }
        super::check_moments(&flow, &state)?;
        (self.flow, self.state) = (flow, state);
        Ok(())
    }

    /// A step with learning rate `lr` on samples `x` `[n, c]` with conditions `[n, k]`; returns the loss before it.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the lengths do not fit; [`GradError::NotFinite`] if the loss is no number, nothing is changed
    /// then.
    pub fn step(&mut self, x: &[f32], condition: &[f32], lr: f32) -> Result<f32> {
        let loss = self.work.forward(&self.flow, x, condition)?;
        let mut apply = Step { adam: &self.adam, state: &mut self.state, lr };
        self.work.backward(&mut self.flow, &mut apply)?;
        Ok(loss)
    }

    /// The loss and the gradients, without a step.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn gradients(&mut self, x: &[f32], condition: &[f32]) -> Result<Recomputed> {
        let loss = self.work.forward(&self.flow, x, condition)?;
        let mut collect = Collect(vec![None; PARAMS * self.flow.blocks().len()]);
        self.work.backward(&mut self.flow, &mut collect)?;
        Ok(Recomputed { loss, gradients: collect.0 })
    }
}

/// Samples of one task of [`Flow::log_likelihoods`].
const TASK: usize = 4 * PANEL;

impl Flow {
    /// The log-likelihood of each sample of `x` `[n, c]`, with conditions `[n, k]`, over the number of channels: `[n]`. A
    /// sample's value does not depend on the others. For linear flows.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the lengths do not fit, [`FlowError::Params`] if a block is not linear.
    pub fn log_likelihoods(&self, x: &[f32], condition: &[f32]) -> Result<Vec<f32>> {
        let sizes = Sizes::of(self)?;
        let n = x.len() / sizes.channels;
        if x.len() != n * sizes.channels || condition.len() != n * sizes.condition {
            let wanted = format!("[n, {}] and [n, {}]", sizes.channels, sizes.condition);
            let got = format!("{} and {} values", x.len(), condition.len());
            return Err(FlowError::Shape { what: "samples", wanted, got });
        }
        let part = |task: usize, width: usize| task * TASK * width..n.min((task + 1) * TASK) * width;
        let parts: Vec<Vec<f32>> = (0..n.div_ceil(TASK))
            .into_par_iter()
            .map_init(
                || Panels::new(sizes, self.blocks().len().min(2), Products::F32),
                |panels, task| {
                    panels.load(&x[part(task, sizes.channels)], &condition[part(task, sizes.condition)])?;
                    panels.forward(self)?;
                    Ok(panels.likelihoods())
                },
            )
            .collect::<Result<_>>()?;
        Ok(parts.concat())
    }
}

/// What happens to a gradient.
trait Apply: Send {
    /// `g * x^T` for a weight `[outputs, inputs]`.
    fn weight(&mut self, index: usize, param: &mut Param, dim: (usize, usize), g: &[f32], x: &Turned) -> Result<()>;
    /// A gradient at hand.
    fn vector(&mut self, index: usize, param: &mut Param, gradient: Vec<f32>) -> Result<()>;
}

struct Step<'a> {
    adam: &'a Adam,
    state: &'a mut AdamState,
    lr: f32,
}

impl Step<'_> {
    /// The numbers of this parameter's next step.
    fn next(&mut self, index: usize) -> AdamStep {
        self.state.steps[index] += 1;
        let Adam { betas, eps, weight_decay, decay, .. } = *self.adam;
        AdamStep::new(self.lr, betas, eps, weight_decay, decay == Decay::Decoupled, self.state.steps[index])
    }
}

impl Apply for Step<'_> {
    fn weight(&mut self, index: usize, param: &mut Param, dim: (usize, usize), g: &[f32], x: &Turned) -> Result<()> {
        let step = self.next(index);
        let moments = Moments { first: &mut self.state.exp_avg[index], second: &mut self.state.exp_avg_sq[index] };
        x.update(param.data_mut(), dim, moments, &step, g)
    }

    fn vector(&mut self, index: usize, param: &mut Param, gradient: Vec<f32>) -> Result<()> {
        let step = self.next(index);
        let (first, second) = (&mut self.state.exp_avg[index], &mut self.state.exp_avg_sq[index]);
        adam(&step, param.data_mut(), first, second, &gradient, Par::Serial).kernel()
    }
}

struct Collect(Vec<Option<Vec<f32>>>);

impl Apply for Collect {
    fn weight(&mut self, index: usize, _: &mut Param, dim: (usize, usize), g: &[f32], x: &Turned) -> Result<()> {
        let mut gradient = vec![0.0; dim.0 * dim.1];
        x.gradient(&mut gradient, dim, g)?;
        self.0[index] = Some(gradient);
        Ok(())
    }

    fn vector(&mut self, index: usize, _: &mut Param, gradient: Vec<f32>) -> Result<()> {
        self.0[index] = Some(gradient);
        Ok(())
    }
}

impl Work {
    /// Fills the slots, turns `z` and `log_det` into their gradients, and returns the loss.
    fn forward(&mut self, flow: &Flow, x: &[f32], condition: &[f32]) -> Result<f32> {
        let work = &mut self.panels;
        work.load(x, condition)?;
        work.forward(flow)?;
        let likelihoods = work.likelihoods();
        // -ln(sigmoid(l)), stable at both ends, and its slope -sigmoid(-l).
        let loss = likelihoods.iter().map(|l| f64::from((-l).max(0.0) + (-l.abs()).exp().ln_1p())).sum::<f64>();
        let loss = (loss / work.samples as f64) as f32;
        if !loss.is_finite() || likelihoods.iter().any(|l| l.is_nan()) {
            return Err(GradError::NotFinite { what: "the loss".to_owned() }.into());
        }
        let c = work.sizes.channels;
        let share = 1.0 / (work.samples * c) as f64;
        let panels = work.z.chunks_exact_mut(c * PANEL).zip(work.log_det.chunks_exact_mut(PANEL));
        for (p, (z, log_det)) in panels.enumerate() {
            let mut slope = [0.0f32; PANEL];
            for (slope, l) in slope.iter_mut().zip(likelihoods.iter().skip(p * PANEL)) {
                *slope = (share / (1.0 + f64::from(*l).exp())) as f32;
            }
            for row in z.chunks_exact_mut(PANEL) {
                row.iter_mut().zip(&slope).for_each(|(z, s)| *z *= s);
            }
            log_det.iter_mut().zip(&slope).for_each(|(d, s)| *d = -s);
        }
        Ok(loss)
    }

    /// From the gradients in `z` and `log_det` to those of all parameters, block by block from the last one.
    fn backward(&mut self, flow: &mut Flow, apply: &mut dyn Apply) -> Result<()> {
        let Work { panels: work, hidden: g, input, input_turned, hidden_turned, words } = self;
        let Sizes { channels, hidden, .. } = work.sizes;
        let (first, second, inputs) = (work.sizes.first(), work.sizes.second(), work.sizes.inputs());
        let (x_rows, products) = (inputs + second, work.products);
        g.resize(work.panels * hidden * PANEL, 0.0);
        input.resize(work.panels * channels * PANEL, 0.0);
        let last = flow.blocks().len();
        let blocks = flow.blocks_mut();
        let Some(end) = blocks.last() else { return Ok(()) };
        let mut outer = through_coupling(work, input, last - 1, end)?;
        for b in (0..last).rev() {
            let (before, rest) = blocks.split_at_mut(b);
            let Some(block) = rest.first_mut() else { break };
            let Slot { x, hidden: h, .. } = &work.slots[b];
            let at = PARAMS * b;
            let [w0, b0, w2, b2] = block.subnet.params_mut();

            // The gradients of a layer's inputs need the weights as they were.
            let inner = Weight::new(w2.data(), 2 * second, hidden).kernel()?;
            let a: &[f32] = &work.a;
            let (back, turned) = rayon::join(
                || products.backward(inner, hidden, (a, 2 * second), (g, hidden), false, words),
                || hidden_turned.take(h, hidden, hidden, hidden),
            );
            back.and(turned)?;
            let (moved, back) = rayon::join(
                || apply.weight(at + 4, w2, (2 * second, hidden), a, hidden_turned),
                || {
                    g.iter_mut().zip(h).for_each(|(g, h)| *g = if *h > 0.0 { *g } else { 0.0 });
                    if b > 0 {
                        let weight = Weight::new(w0.data(), hidden, inputs).kernel()?;
                        products.backward(weight, first, (g, hidden), (input, channels), true, words)?;
                    }
                    // The condition is the same for all blocks.
                    let used = if b + 1 == last { inputs } else { first };
                    input_turned.take(x, x_rows, used, inputs)?;
                    Ok((row_sums(a, 2 * second), row_sums(g, hidden)))
                },
            );
            let (d_b2, d_b0) = moved.and(back)?;
            apply.vector(at + 5, b2, d_b2)?;
            apply.vector(at + 3, b0, d_b0)?;
            std::mem::swap(input, &mut work.z);
            let (moved, next) = rayon::join(
                || apply.weight(at + 2, w0, (hidden, inputs), g, input_turned),
                || before.last().map_or(Ok(Affine::default()), |block| through_coupling(work, input, b - 1, block)),
            );
            moved?;
            let Affine { scale, offset } = std::mem::replace(&mut outer, next?);
            apply.vector(at, &mut block.global_scale, scale)?;
            apply.vector(at + 1, &mut block.global_offset, offset)?;
        }
        Ok(())
    }
}

/// Gradients of a block's global scale and offset.
#[derive(Default)]
struct Affine {
    scale: Vec<f32>,
    offset: Vec<f32>,
}

/// Through mixing, global affine and coupling of block `b`: from the gradient of its output in `z` to that of its subnet's output
/// in `a` and, but for what comes through the subnet, of its input.
fn through_coupling(work: &mut Panels, input: &mut [f32], b: usize, block: &Block) -> Result<Affine> {
    let channels = work.sizes.channels;
    let (first, second, inputs) = (work.sizes.first(), work.sizes.second(), work.sizes.inputs());
    let x_rows = inputs + second;
    let Slot { x, s, y2, .. } = &work.slots[b];
    let before: &[f32] = match block.mixing() {
        Mixing::Hard(_) => &work.z,
        Mixing::Soft(matrix) => {
            let matrix = Weight::new(matrix.as_slice().unwrap_or(&[]), channels, channels).kernel()?;
            panel::backward(matrix, channels, &work.z, channels, &mut work.mixed, channels, false, Par::Rayon)
                .kernel()?;
            &work.mixed
        }
    };
    let scales: Vec<f32> = block.global_scale.data().iter().map(|t| global_scale(*t)).collect();
    let log_dets: f32 = work.log_det.iter().sum();
    let mut scale: Vec<f32> = scales.iter().map(|g| log_dets / g).collect();
    let mut offset = vec![0.0; channels];
    for p in 0..work.panels {
        let x = &x[p * x_rows * PANEL..][..x_rows * PANEL];
        let y2 = &y2[p * second * PANEL..][..second * PANEL];
        let to = &mut input[p * channels * PANEL..][..channels * PANEL];
        for (i, g) in before[p * channels * PANEL..][..channels * PANEL].chunks_exact(PANEL).enumerate() {
            let j = block.mixing().source(i);
            let y = if j < first { &x[j * PANEL..][..PANEL] } else { &y2[(j - first) * PANEL..][..PANEL] };
            offset[j] += sum(g);
            scale[j] += dot(g, y);
            to[j * PANEL..][..PANEL].iter_mut().zip(g).for_each(|(t, g)| *t = g * scales[j]);
        }
        let (x2, s) = (&x[inputs * PANEL..], &s[p * second * PANEL..][..second * PANEL]);
        let (g, a) = (&mut to[first * PANEL..], &mut work.a[p * 2 * second * PANEL..][..2 * second * PANEL]);
        let log_det = &work.log_det[p * PANEL..][..PANEL];
        coupling::backward(Layout::panel(second, PANEL), block.clamp, x2, s, log_det, g, a).kernel()?;
    }
    for (d, theta) in scale.iter_mut().zip(block.global_scale.data()) {
        *d *= global_scale_slope(*theta);
    }
    Ok(Affine { scale, offset })
}
