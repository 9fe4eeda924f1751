//! A convolutional flow made ready for feature maps of one size: weights packed, one image at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use blemish_kernels::Par;
use blemish_kernels::conv::{Activation, Conv2d, ConvSpec};
use blemish_kernels::coupling::{self, Layout};

use super::OfKernel;
use super::sums::sum;
use crate::block::global_scale;
use crate::map_flow::moments;
use crate::{Block, FlowError, Kernel, MapFlow, Mixing, Result};

/// Rows of a coupling whose log-scales are added up in f32.
const ROWS: usize = 64;

/// A block's packed weights and the numbers of its global affine, in the order of its output channels.
pub(super) struct Plan {
    pub(super) kernel: usize,
    pub(super) hidden: usize,
    pub(super) clamp: f32,
    outer: Conv2d,
    inner: Conv2d,
    order: Vec<u32>,
    scale: Vec<f32>,
    offset: Vec<f32>,
    /// Sum of the logarithms of the scales.
    log_scale: f64,
    pub(super) back: Option<Back>,
}

/// What the way back needs besides.
pub(super) struct Back {
    /// The convolutions that carry gradients from outputs to inputs.
    pub(super) outer: Conv2d,
    pub(super) inner: Conv2d,
    /// The inverse of `order`.
    pub(super) order: Vec<u32>,
    /// The scale of each channel before the mixing.
    pub(super) scale: Vec<f32>,
}

fn spec(inputs: usize, outputs: usize, kernel: usize) -> ConvSpec {
    ConvSpec {
        in_channels: inputs,
        out_channels: outputs,
        kernel: [kernel; 2],
        stride: [1; 2],
        padding: [kernel / 2; 4],
        groups: 1,
    }
}

/// The weight `[out, in, k, k]` of the convolution that carries gradients back: `[in, out, k, k]`, turned by half a circle.
fn turned(weight: &[f32], outputs: usize, inputs: usize, taps: usize) -> Vec<f32> {
    let mut to = vec![0.0; weight.len()];
    for (o, filters) in weight.chunks_exact(inputs * taps).enumerate() {
        for (i, filter) in filters.chunks_exact(taps).enumerate() {
            let to = &mut to[(i * outputs + o) * taps..][..taps];
            to.iter_mut().zip(filter.iter().rev()).for_each(|(t, f)| *t = *f);
        }
    }
    to
}

impl Plan {
    fn new(block: &Block, channels: usize, back: bool) -> Result<Plan> {
        let (Kernel::Conv(kernel), Mixing::Hard(order)) = (block.subnet.kernel(), block.mixing()) else {
            let why = "convolutional blocks with permutations are possible here".to_owned();
            return Err(FlowError::Params { name: "flow", why });
        };
        let (first, second, taps) = (channels - channels / 2, channels / 2, kernel * kernel);
        let [w0, b0, w2, b2] = block.subnet.params().each_ref().map(|p| p.data());
        let hidden = b0.len();
        let scales: Vec<f32> = block.global_scale.data().iter().map(|t| global_scale(*t)).collect();
        let conv = |inputs, outputs, weight: &[f32], bias: &[f32], activation| {
            Conv2d::new(spec(inputs, outputs, kernel), weight, bias, activation).kernel()
        };
        let back = match back {
            false => None,
            true => {
                let mut inverse = vec![0; channels];
                order.iter().enumerate().for_each(|(i, &from)| inverse[from] = i as u32);
                let (outer, inner) = (turned(w0, hidden, first, taps), turned(w2, 2 * second, hidden, taps));
                Some(Back {
                    outer: conv(hidden, first, &outer, &vec![0.0; first], Activation::None)?,
                    inner: conv(2 * second, hidden, &inner, &vec![0.0; hidden], Activation::None)?,
                    order: inverse,
                    scale: scales.clone(),
                })
            }
        };
        Ok(Plan {
            kernel,
            hidden,
            clamp: block.clamp,
            outer: conv(first, hidden, w0, b0, Activation::Relu)?,
            inner: conv(hidden, 2 * second, w2, b2, Activation::None)?,
            scale: order.iter().map(|&i| scales[i]).collect(),
            offset: order.iter().map(|&i| block.global_offset.data()[i]).collect(),
            order: order.iter().map(|&i| i as u32).collect(),
            log_scale: scales.iter().map(|g| f64::from(*g).ln()).sum(),
            back,
        })
    }

    fn workspace(&self, (h, w): (usize, usize)) -> usize {
        let back = self.back.iter().flat_map(|b| [&b.outer, &b.inner]);
        [&self.outer, &self.inner].into_iter().chain(back).map(|c| c.workspace(1, h, w)).max().unwrap_or(0)
    }
}

/// A flow ready for images of its size.
pub(super) struct Plans {
    pub(super) size: (usize, usize),
    pub(super) channels: usize,
    pub(super) blocks: Vec<Plan>,
}

/// What a block keeps of an image for the way back.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) x1: Vec<f32>,
    pub(super) x2: Vec<f32>,
    pub(super) hidden: Vec<f32>,
    pub(super) s: Vec<f32>,
}

/// The working memory of one image.
#[derive(Default)]
pub(super) struct Image {
    /// One for each block and one for the latent, or two that take turns.
    pub(super) slots: Vec<Slot>,
    /// The subnet's output, later its gradient.
    pub(super) a: Vec<f32>,
    y2: Vec<f32>,
    pub(super) scratch: Vec<f32>,
}

impl Plans {
    pub(super) fn new(model: &MapFlow, back: bool) -> Result<Plans> {
        let channels = model.flow.channels;
        let blocks = model.flow.blocks().iter().map(|b| Plan::new(b, channels, back)).collect::<Result<_>>()?;
        Ok(Plans { size: model.size, channels, blocks })
    }

    pub(super) fn halves(&self) -> (usize, usize) {
        (self.channels - self.channels / 2, self.channels / 2)
    }

    pub(super) fn pixels(&self) -> usize {
        self.size.0 * self.size.1
    }

    /// Brings `x` `[h, w, c]` into the first slot, normalised, and makes the others ready; returns mean and inverse deviation.
    pub(super) fn load(&self, model: &MapFlow, x: &[f32], image: &mut Image, keep: bool) -> Result<(f64, f64)> {
        let (pixels, (first, second)) = (self.pixels(), self.halves());
        if x.len() != pixels * self.channels {
            let wanted = format!("[{}, {}, {}]", self.size.0, self.size.1, self.channels);
            return Err(FlowError::Shape { what: "feature map", wanted, got: format!("{} values", x.len()) });
        }
        let slots = if keep { self.blocks.len() + 1 } else { 2 };
        image.slots.resize_with(slots, Slot::default);
        for slot in &mut image.slots {
            slot.x1.resize(pixels * first, 0.0);
            slot.x2.resize(pixels * second, 0.0);
            slot.s.resize(pixels * second, 0.0);
        }
        image.a.resize(pixels * 2 * second, 0.0);
        image.y2.resize(pixels * second, 0.0);
        let scratch = self.blocks.iter().map(|b| b.workspace(self.size)).max().unwrap_or(0);
        image.scratch.resize(image.scratch.len().max(scratch), 0.0);
        let Slot { x1, x2, .. } = &mut image.slots[0];
        let to = x1.chunks_exact_mut(first).zip(x2.chunks_exact_mut(second)).map(|(x1, x2)| x1.iter_mut().chain(x2));
        let rows = x.chunks_exact(self.channels).zip(to);
        let Some(norm) = &model.norm else {
            rows.for_each(|(x, to)| to.zip(x).for_each(|(to, x)| *to = *x));
            return Ok((0.0, 1.0));
        };
        let (mean, inverse) = moments(x);
        let affine = norm.weight.data().chunks_exact(self.channels).zip(norm.bias.data().chunks_exact(self.channels));
        for ((x, to), (w, b)) in rows.zip(affine) {
            for ((to, x), (w, b)) in to.zip(x).zip(w.iter().zip(b)) {
                *to = ((f64::from(*x) - mean) * inverse) as f32 * w + b;
            }
        }
        Ok((mean, inverse))
    }

    /// Through all blocks; the latent is in the slot whose number is returned, with the log-determinant. Where `each` has a number for
    /// each pixel, that grows by the pixel's share.
    pub(super) fn forward(&self, image: &mut Image, each: &mut [f32]) -> Result<(usize, f64)> {
        let count = image.slots.len();
        let mut log_det = 0.0;
        for (b, plan) in self.blocks.iter().enumerate() {
            let (from, to) = (b % count, (b + 1) % count);
            log_det += self.block(plan, from, to, image, each)?;
        }
        Ok((self.blocks.len() % count, log_det))
    }

    fn block(&self, plan: &Plan, from: usize, to: usize, image: &mut Image, each: &mut [f32]) -> Result<f64> {
        let ((h, w), pixels, (_, second)) = (self.size, self.pixels(), self.halves());
        let Image { slots, a, y2, scratch } = image;
        let mut next = std::mem::take(&mut slots[to]);
        let slot = &mut slots[from];
        slot.hidden.resize(pixels * plan.hidden, 0.0);
        plan.outer.forward(&slot.x1, 1, h, w, None, &mut slot.hidden, scratch, Par::Rayon).kernel()?;
        plan.inner.forward(&slot.hidden, 1, h, w, None, a, scratch, Par::Rayon).kernel()?;
        y2.copy_from_slice(&slot.x2);
        let mut log_det = pixels as f64 * plan.log_scale;
        let mut sums = vec![0.0; second];
        let bands = a.chunks(ROWS * 2 * second).zip(y2.chunks_mut(ROWS * second)).zip(slot.s.chunks_mut(ROWS * second));
        for ((a, y2), s) in bands {
            sums.fill(0.0);
            coupling::forward(Layout::rows(a.len() / (2 * second), second), plan.clamp, a, y2, s, &mut sums)
                .kernel()?;
            log_det += sums.iter().map(|s| f64::from(*s)).sum::<f64>();
        }
        for (own, s) in each.iter_mut().zip(slot.s.chunks_exact(second)) {
            *own += plan.log_scale as f32 + sum(s);
        }
        let done = coupling::mix(&plan.order, &plan.scale, &plan.offset, (&slot.x1, y2), (&mut next.x1, &mut next.x2));
        slots[to] = next;
        done.kernel()?;
        Ok(log_det)
    }
}

/// A [`MapFlow`] ready for prediction: weights packed once.
pub struct PackedFlow {
    plans: Plans,
    model: MapFlow,
    /// Working memory of images that are done: new memory costs more than it takes to fill.
    idle: Mutex<Vec<Image>>,
}

/// Images whose working memory is kept.
const IDLE: usize = 16;

/// The latent of an image.
#[derive(Clone, Debug)]
pub struct Latent {
    /// `mean_c z^2` at each pixel, `[h, w]` in C order.
    pub energy: Vec<f32>,
    /// The log-determinant of each pixel, `[h, w]`: of what becomes of its channels, given those of the pixels around.
    pub log_dets: Vec<f32>,
    /// The log-determinant, their sum.
    pub log_det: f64,
    /// Half the sum of squares of the latent minus the log-determinant: FastFlow's loss of the image.
    pub loss: f64,
}

impl PackedFlow {
    /// # Errors
    /// As [`MapFlow::new`].
    pub fn new(model: MapFlow) -> Result<PackedFlow> {
        Ok(PackedFlow { plans: Plans::new(&model, false)?, model, idle: Mutex::default() })
    }

    /// The model.
    pub fn model(&self) -> &MapFlow {
        &self.model
    }

    /// The latent of one feature map `[h, w, c]`.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for a map of another size.
    pub fn latent(&self, x: &[f32]) -> Result<Latent> {
        let mut image = self.idle().pop().unwrap_or_default();
        let latent = self.latent_in(x, &mut image);
        let mut idle = self.idle();
        if idle.len() < IDLE {
            idle.push(image);
        }
        latent
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Image>> {
        // A panic elsewhere leaves the list whole.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latent_in(&self, x: &[f32], image: &mut Image) -> Result<Latent> {
        self.plans.load(&self.model, x, image, false)?;
        let mut log_dets = vec![0.0; self.plans.pixels()];
        let (last, log_det) = self.plans.forward(image, &mut log_dets)?;
        let (first, second) = self.plans.halves();
        let Slot { x1, x2, .. } = &image.slots[last];
        let rows = x1.chunks_exact(first).zip(x2.chunks_exact(second));
        let squares = |row: &[f32]| row.iter().map(|z| f64::from(z * z)).sum::<f64>();
        let each: Vec<f64> = rows.map(|(z1, z2)| squares(z1) + squares(z2)).collect();
        let energy = each.iter().map(|e| (e / self.plans.channels as f64) as f32).collect();
        Ok(Latent { energy, log_dets, log_det, loss: 0.5 * each.iter().sum::<f64>() - log_det })
    }
}
