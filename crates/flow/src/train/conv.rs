use blemish_grad::GradError;
use blemish_grad::optim::{Adam, AdamState};
use blemish_kernels::Par;
use blemish_kernels::coupling::{self, Layout};
use blemish_kernels::product::window::{self, Window};
use rayon::prelude::*;

use super::OfKernel;
use super::images::{Back, Image, Plan, Plans, Slot};
use crate::block::global_scale_slope;
use crate::{FlowError, MapFlow, Recomputed, Result};

/// Trains a [`MapFlow`] under FastFlow's loss: the mean over the images of half the latent's squares minus the
/// log-determinant.
///
/// Images go through one by one, forwards and back, in [`GROUPS`](Self::GROUPS) groups side by side: what is kept for the way
/// back is that of one image for each group, besides a gradient of the parameters for each.
pub struct ConvTrainer {
    model: MapFlow,
    adam: Adam,
    state: AdamState,
}

/// Gradients of one block, convolutions tap by tap: `[k * k, in, out]`.
struct BlockSums {
    outer: Vec<f32>,
    outer_bias: Vec<f64>,
    inner: Vec<f32>,
    inner_bias: Vec<f64>,
    /// Sums of `g` and of `g * z` for each output channel.
    offset: Vec<f64>,
    scale: Vec<f64>,
}

struct Sums {
    loss: f64,
    /// Weight and bias of the norm.
    norm: Option<(Vec<f32>, Vec<f32>)>,
    blocks: Vec<BlockSums>,
}

/// An image and its gradients on the way back.
#[derive(Default)]
struct Work {
    image: Image,
    g1: Vec<f32>,
    g2: Vec<f32>,
    b1: Vec<f32>,
    b2: Vec<f32>,
    hidden: Vec<f32>,
}

impl ConvTrainer {
    /// Groups of a batch; fixed, so that nothing depends on the number of threads.
    pub const GROUPS: usize = 4;

    /// # Errors
    /// [`FlowError::Params`] for settings of Adam out of range.
    pub fn new(model: MapFlow, adam: Adam) -> Result<ConvTrainer> {
        super::check_adam(&adam)?;
        Ok(ConvTrainer { state: super::fresh_moments(&model), model, adam })
    }

    /// The model as it is now.
    pub fn model(&self) -> &MapFlow {
        &self.model
    }

    /// The model, moved out.
    pub fn into_model(self) -> MapFlow {
        self.model
    }

    /// The optimiser's memory, for checkpoints.
    pub fn state(&self) -> &AdamState {
        &self.state
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// [`GradError::State`] if it is that of another model.
    pub fn resume(&mut self, model: MapFlow, state: AdamState) -> Result<()> {
        if model.dim() != self.model.dim() {
            let (wanted, got) = (format!("{:?}", self.model.dim()), format!("{:?}", model.dim()));
            return Err(FlowError::Shape { what: "flow", wanted, got });
        }
        super::check_moments(&model, &state)?;
        (self.model, self.state) = (model, state);
        Ok(())
    }

    /// A step with learning rate `lr` on feature maps `[h, w, c]`; returns the loss before it.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for no maps or one of another size; [`GradError::NotFinite`] if the loss is no number, nothing is
    /// changed then.
    pub fn step(&mut self, images: &[&[f32]], lr: f32) -> Result<f32> {
        let Recomputed { loss, gradients } = self.gradients(images)?;
        self.adam.step(&mut self.model, &mut self.state, &gradients, lr)?;
        Ok(loss)
    }

    /// The loss and the gradients, without a step.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn gradients(&self, images: &[&[f32]]) -> Result<Recomputed> {
        if images.is_empty() {
            let (wanted, got) = ("at least one".to_owned(), "none".to_owned());
            return Err(FlowError::Shape { what: "feature maps", wanted, got });
        }
        let plans = Plans::new(&self.model, true)?;
        let share = images.len().div_ceil(Self::GROUPS);
        let slope = 1.0 / images.len() as f32;
        let groups: Vec<Sums> = images
            .par_chunks(share)
            .map(|images| {
                let (mut sums, mut work) = (Sums::new(&plans, self.model.norm.is_some()), Work::default());
                for x in images {
                    self.image(&plans, x, slope, &mut work, &mut sums)?;
                }
                Ok(sums)
            })
            .collect::<Result<_>>()?;
        let mut groups = groups.into_iter();
        let Some(mut total) = groups.next() else { return Ok(Recomputed { loss: 0.0, gradients: Vec::new() }) };
        groups.for_each(|group| total.add(&group));
        let loss = (total.loss / images.len() as f64) as f32;
        if !loss.is_finite() {
            return Err(GradError::NotFinite { what: "the loss".to_owned() }.into());
        }
        Ok(Recomputed { loss, gradients: self.finish(&plans, total) })
    }

    /// Adds an image's loss and, times `slope`, its gradients.
    fn image(&self, plans: &Plans, x: &[f32], slope: f32, work: &mut Work, sums: &mut Sums) -> Result<()> {
        let (mean, inverse) = plans.load(&self.model, x, &mut work.image, true)?;
        let (last, log_det) = plans.forward(&mut work.image, &mut [])?;
        let latent = &work.image.slots[last];
        sums.loss += 0.5 * (squares(&latent.x1) + squares(&latent.x2)) - log_det;
        let (pixels, (first, second)) = (plans.pixels(), plans.halves());
        work.g1.clear();
        work.g1.extend(latent.x1.iter().map(|z| slope * z));
        work.g2.clear();
        work.g2.extend(latent.x2.iter().map(|z| slope * z));
        work.b1.resize(pixels * first, 0.0);
        work.b2.resize(pixels * second, 0.0);
        for (b, plan) in plans.blocks.iter().enumerate().rev() {
            let Some(back) = &plan.back else { continue };
            block(plans, plan, back, b, slope, work, &mut sums.blocks[b])?;
        }
        // The layer norm; features are frozen, so that this is the end.
        let Some((weight, bias)) = &mut sums.norm else { return Ok(()) };
        let rows = x.chunks_exact(plans.channels).zip(work.g1.chunks_exact(first).zip(work.g2.chunks_exact(second)));
        let to = weight.chunks_exact_mut(plans.channels).zip(bias.chunks_exact_mut(plans.channels));
        for ((x, (g1, g2)), (weight, bias)) in rows.zip(to) {
            for (((x, g), weight), bias) in x.iter().zip(g1.iter().chain(g2)).zip(weight).zip(bias) {
                *weight += g * ((f64::from(*x) - mean) * inverse) as f32;
                *bias += g;
            }
        }
        Ok(())
    }

    /// Sums to gradients in the order of [`Module::visit`](blemish_grad::Module::visit).
    fn finish(&self, plans: &Plans, total: Sums) -> Vec<Option<Vec<f32>>> {
        let narrow = |sums: &[f64]| Some(sums.iter().map(|s| *s as f32).collect());
        let mut all: Vec<_> = total.norm.into_iter().flat_map(|(weight, bias)| [Some(weight), Some(bias)]).collect();
        for ((block, plan), sums) in self.model.flow.blocks().iter().zip(&plans.blocks).zip(total.blocks) {
            let Some(back) = &plan.back else { continue };
            let (theta, offset) = (block.global_scale.data(), block.global_offset.data());
            let pixels = plans.pixels() as f64;
            // From the sums of `g * z`, where `z = y * scale + offset`, and the log-determinant's part.
            let scale = |j: usize| {
                let (i, g) = (back.order[j] as usize, f64::from(back.scale[j]));
                let through = (sums.scale[i] - f64::from(offset[j]) * sums.offset[i]) / g;
                ((through - pixels / g) * f64::from(global_scale_slope(theta[j]))) as f32
            };
            all.push(Some((0..plans.channels).map(scale).collect()));
            all.push(Some(back.order.iter().map(|&i| sums.offset[i as usize] as f32).collect()));
            all.push(Some(outputs_first(&sums.outer, plan.hidden, plan.kernel)));
            all.push(narrow(&sums.outer_bias));
            all.push(Some(outputs_first(&sums.inner, 2 * plans.halves().1, plan.kernel)));
            all.push(narrow(&sums.inner_bias));
        }
        all
    }
}

/// Gradients of block `b` from those of its output in `g1` and `g2`, which become those of its input.
fn block(
    plans: &Plans,
    plan: &Plan,
    back: &Back,
    b: usize,
    slope: f32,
    work: &mut Work,
    sums: &mut BlockSums,
) -> Result<()> {
    let ((h, w), pixels, (first, second)) = (plans.size, plans.pixels(), plans.halves());
    let Work { image, g1, g2, b1, b2, hidden } = work;
    let Image { slots, a, scratch, .. } = image;
    let (slots, next) = slots.split_at(b + 1);
    let (Some(slot), Some(next)) = (slots.last(), next.first()) else { return Ok(()) };
    let Slot { x1, x2, hidden: h1, s } = slot;
    let (offset, scale) = (sums.offset.split_at_mut(first), sums.scale.split_at_mut(first));
    coupling::channel_sums(g1, &next.x1, offset.0, scale.0).kernel()?;
    coupling::channel_sums(g2, &next.x2, offset.1, scale.1).kernel()?;
    coupling::mix(&back.order, &back.scale, &vec![0.0; plans.channels], (g1, g2), (b1, b2)).kernel()?;
    // The log-determinant enters the loss with a minus.
    let log_det = vec![-slope; second];
    coupling::backward(Layout::rows(pixels, second), plan.clamp, x2, s, &log_det, b2, a).kernel()?;
    hidden.resize(pixels * plan.hidden, 0.0);
    back.inner.forward(a, 1, h, w, None, hidden, scratch, Par::Rayon).kernel()?;
    hidden.iter_mut().zip(h1).for_each(|(g, h)| *g = if *h > 0.0 { *g } else { 0.0 });
    let windows = |inputs, outputs| Window { height: h, width: w, inputs, outputs, kernel: plan.kernel };
    window::gradient(windows(plan.hidden, 2 * second), h1, a, &mut sums.inner, Par::Rayon).kernel()?;
    window::gradient(windows(first, plan.hidden), x1, hidden, &mut sums.outer, Par::Rayon).kernel()?;
    column_sums(a, &mut sums.inner_bias);
    column_sums(hidden, &mut sums.outer_bias);
    back.outer.forward(hidden, 1, h, w, Some(b1), g1, scratch, Par::Rayon).kernel()?;
    std::mem::swap(g2, b2);
    Ok(())
}

/// The sum of squares: 64 values in f32, then in f64.
fn squares(z: &[f32]) -> f64 {
    z.chunks(64).map(|block| f64::from(block.iter().map(|z| z * z).sum::<f32>())).sum()
}

/// Adds the sums of the columns: 64 rows in f32, then in f64.
fn column_sums(values: &[f32], sums: &mut [f64]) {
    let c = sums.len();
    let mut part = vec![0.0f32; c];
    for rows in values.chunks(64 * c) {
        part.fill(0.0);
        rows.chunks_exact(c).for_each(|row| part.iter_mut().zip(row).for_each(|(p, v)| *p += v));
        sums.iter_mut().zip(&part).for_each(|(s, p)| *s += f64::from(*p));
    }
}

/// `[k * k, in, out]` to PyTorch's `[out, in, k, k]`.
fn outputs_first(sums: &[f32], outputs: usize, kernel: usize) -> Vec<f32> {
    let taps = kernel * kernel;
    let inputs = sums.len() / (taps * outputs).max(1);
    let mut to = vec![0.0; sums.len()];
    to.par_chunks_mut((inputs * taps).max(1)).enumerate().for_each(|(o, filters)| {
        for (i, filter) in filters.chunks_exact_mut(taps).enumerate() {
            filter.iter_mut().enumerate().for_each(|(t, f)| *f = sums[(t * inputs + i) * outputs + o]);
        }
    });
    to
}

impl Sums {
    fn new(plans: &Plans, norm: bool) -> Sums {
        let (c, (first, second)) = (plans.channels, plans.halves());
        let blocks = plans.blocks.iter().map(|plan| {
            let taps = plan.kernel * plan.kernel;
            BlockSums {
                outer: vec![0.0; taps * first * plan.hidden],
                outer_bias: vec![0.0; plan.hidden],
                inner: vec![0.0; taps * plan.hidden * 2 * second],
                inner_bias: vec![0.0; 2 * second],
                offset: vec![0.0; c],
                scale: vec![0.0; c],
            }
        });
        let map = plans.pixels() * c;
        Sums { loss: 0.0, norm: norm.then(|| (vec![0.0; map], vec![0.0; map])), blocks: blocks.collect() }
    }

    fn add(&mut self, other: &Sums) {
        fn plus<T: Copy + std::ops::AddAssign + Send + Sync>(to: &mut [T], from: &[T]) {
            to.par_chunks_mut(1 << 14).zip(from.par_chunks(1 << 14)).for_each(|(to, from)| {
                to.iter_mut().zip(from).for_each(|(t, f)| *t += *f);
            });
        }
        self.loss += other.loss;
        if let (Some(to), Some(from)) = (&mut self.norm, &other.norm) {
            plus(&mut to.0, &from.0);
            plus(&mut to.1, &from.1);
        }
        for (to, from) in self.blocks.iter_mut().zip(&other.blocks) {
            plus(&mut to.outer, &from.outer);
            plus(&mut to.inner, &from.inner);
            plus(&mut to.outer_bias, &from.outer_bias);
            plus(&mut to.inner_bias, &from.inner_bias);
            plus(&mut to.offset, &from.offset);
            plus(&mut to.scale, &from.scale);
        }
    }
}
