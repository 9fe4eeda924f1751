//! The working memory of a linear flow: activations in panels of 64 samples.

use blemish_kernels::Par;
use blemish_kernels::coupling::{self, Layout};
use blemish_kernels::product::panel::{self, PANEL, Weight};

use rayon::prelude::*;

use super::OfKernel;
use super::products::Products;
use crate::block::global_scale;
use crate::likelihood::HALF_LOG_TWO_PI;
use crate::{Block, Flow, FlowError, Kernel, Mixing, Result};

/// What a block keeps for the way back, in panels `[panels, rows, 64]`.
#[derive(Default)]
pub(super) struct Slot {
    /// `x1`, condition, `x2`: what the subnet reads lies together.
    pub(super) x: Vec<f32>,
    /// The subnet's hidden layer.
    pub(super) hidden: Vec<f32>,
    /// Log-scales.
    pub(super) s: Vec<f32>,
    /// The second half after the coupling.
    pub(super) y2: Vec<f32>,
}

/// Sizes of a flow whose blocks are all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) channels: usize,
    pub(crate) condition: usize,
    pub(crate) hidden: usize,
}

impl Sizes {
    /// # Errors
    /// [`FlowError::Params`] for a flow without blocks, or with one whose subnet is not linear.
    pub(crate) fn of(flow: &Flow) -> Result<Sizes> {
        let linear = flow.blocks().iter().all(|block| block.subnet.kernel() == Kernel::Linear);
        let Some(first) = flow.blocks().first().filter(|_| linear) else {
            let why = "linear blocks, at least one, are trained this way".to_owned();
            return Err(FlowError::Params { name: "kernels", why });
        };
        let hidden = first.subnet.params()[1].data().len();
        Ok(Sizes { channels: flow.channels, condition: flow.condition, hidden })
    }

    pub(crate) fn second(&self) -> usize {
        self.channels / 2
    }

    pub(crate) fn first(&self) -> usize {
        self.channels - self.second()
    }

    /// Columns of the subnet's first weight.
    pub(crate) fn inputs(&self) -> usize {
        self.first() + self.condition
    }
}

/// Activations of a batch. With as many slots as blocks, every one keeps its own; two are enough to go forward only.
pub(super) struct Panels {
    pub(super) sizes: Sizes,
    pub(super) products: Products,
    pub(super) samples: usize,
    pub(super) panels: usize,
    pub(super) slots: Vec<Slot>,
    /// The subnet's output, later its gradient.
    pub(super) a: Vec<f32>,
    /// The last block's output `[panels, c, 64]`, later its gradient.
    pub(super) z: Vec<f32>,
    /// Before the mixing.
    pub(super) mixed: Vec<f32>,
    /// Of each sample.
    pub(super) log_det: Vec<f32>,
    /// Of all blocks' global scales.
    pub(super) log_scale: f64,
    /// Rounded activations.
    words: Vec<u32>,
}

impl Panels {
    pub(super) fn new(sizes: Sizes, slots: usize, products: Products) -> Panels {
        Panels {
            sizes,
            products,
            samples: 0,
            panels: 0,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            a: Vec::new(),
            z: Vec::new(),
            mixed: Vec::new(),
            log_det: Vec::new(),
            log_scale: 0.0,
            words: Vec::new(),
        }
    }

    /// Takes samples `x` `[n, c]` with conditions `[n, k]`. Columns beyond the last sample are zeros.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for no samples, or lengths that do not fit.
    pub(super) fn load(&mut self, x: &[f32], condition: &[f32]) -> Result<()> {
        let Sizes { channels, condition: width, hidden } = self.sizes;
        let n = x.len() / channels;
        if n == 0 || x.len() != n * channels || condition.len() != n * width {
            let wanted = format!("[n, {channels}] and [n, {width}]");
            let got = format!("{} and {} values", x.len(), condition.len());
            return Err(FlowError::Shape { what: "samples", wanted, got });
        }
        let (first, second, inputs) = (self.sizes.first(), self.sizes.second(), self.sizes.inputs());
        let panels = n.div_ceil(PANEL);
        (self.samples, self.panels) = (n, panels);
        let size = |v: &mut Vec<f32>, rows: usize| v.resize(panels * rows * PANEL, 0.0);
        for slot in &mut self.slots {
            size(&mut slot.x, inputs + second);
            size(&mut slot.hidden, hidden);
            size(&mut slot.s, second);
            size(&mut slot.y2, second);
        }
        size(&mut self.a, 2 * second);
        size(&mut self.z, channels);
        size(&mut self.mixed, channels);
        for (p, panel) in self.slots[0].x.chunks_exact_mut((inputs + second) * PANEL).enumerate() {
            let samples = &x[p * PANEL * channels..n.min((p + 1) * PANEL) * channels];
            fill(&mut panel[..first * PANEL], samples, channels, 0);
            fill(&mut panel[inputs * PANEL..], samples, channels, first);
            let codes = &condition[p * PANEL * width..n.min((p + 1) * PANEL) * width];
            fill(&mut panel[first * PANEL..inputs * PANEL], codes, width, 0);
        }
        let codes = first * PANEL..inputs * PANEL;
        if let Some((source, others)) = self.slots.split_first_mut() {
            for slot in others {
                let panels = (inputs + second) * PANEL;
                for (to, from) in slot.x.chunks_exact_mut(panels).zip(source.x.chunks_exact(panels)) {
                    to[codes.clone()].copy_from_slice(&from[codes.clone()]);
                }
            }
        }
        Ok(())
    }

    /// Through all blocks: fills the slots, `z`, `log_det` and `log_scale`.
    pub(super) fn forward(&mut self, flow: &Flow) -> Result<()> {
        self.log_det.clear();
        self.log_det.resize(self.panels * PANEL, 0.0);
        self.log_scale = 0.0;
        let count = self.slots.len();
        for (b, block) in flow.blocks().iter().enumerate() {
            self.block(b % count, block)?;
            if b + 1 < flow.blocks().len() {
                self.hand_on((b + 1) % count);
            }
        }
        Ok(())
    }

    fn block(&mut self, slot: usize, block: &Block) -> Result<()> {
        let Sizes { channels, hidden, .. } = self.sizes;
        let (first, second, inputs) = (self.sizes.first(), self.sizes.second(), self.sizes.inputs());
        let Slot { x, hidden: h, s, y2 } = &mut self.slots[slot];
        let [w0, b0, w2, b2] = block.subnet.params();
        let x_rows = inputs + second;
        let (outer, inner) =
            (Weight::new(w0.data(), hidden, inputs).kernel()?, Weight::new(w2.data(), 2 * second, hidden).kernel()?);
        let (products, words) = (self.products, &mut self.words);
        products.forward(outer, b0.data(), true, (x, x_rows), (h, hidden), words)?;
        products.forward(inner, b2.data(), false, (h, hidden), (&mut self.a, 2 * second), words)?;
        let scales: Vec<f32> = block.global_scale.data().iter().map(|t| global_scale(*t)).collect();
        self.log_scale += scales.iter().map(|g| f64::from(*g).ln()).sum::<f64>();
        let offsets = block.global_offset.data();
        let out = if matches!(block.mixing(), Mixing::Hard(_)) { &mut self.z } else { &mut self.mixed };
        let panels = x
            .par_chunks_exact(x_rows * PANEL)
            .zip(y2.par_chunks_exact_mut(second * PANEL))
            .zip(s.par_chunks_exact_mut(second * PANEL))
            .zip(self.a.par_chunks_exact(2 * second * PANEL))
            .zip(self.log_det.par_chunks_exact_mut(PANEL))
            .zip(out.par_chunks_exact_mut(channels * PANEL));
        panels.try_for_each(|(((((x, y2), s), a), log_det), out)| {
            y2.copy_from_slice(&x[inputs * PANEL..]);
            coupling::forward(Layout::panel(second, PANEL), block.clamp, a, y2, s, log_det).kernel()?;
            let row = |j: usize| if j < first { &x[j * PANEL..][..PANEL] } else { &y2[(j - first) * PANEL..][..PANEL] };
            for (i, out) in out.chunks_exact_mut(PANEL).enumerate() {
                let j = block.mixing().source(i);
                let (scale, offset) = (scales[j], offsets[j]);
                out.iter_mut().zip(row(j)).for_each(|(o, v)| *o = v * scale + offset);
            }
            Ok::<(), FlowError>(())
        })?;
        if let Mixing::Soft(matrix) = block.mixing() {
            let matrix = Weight::new(matrix.as_slice().unwrap_or(&[]), channels, channels).kernel()?;
            panel::forward(matrix, None, false, &self.mixed, channels, &mut self.z, channels, Par::Rayon).kernel()?;
        }
        Ok(())
    }

    /// Makes `z` the input of a slot.
    fn hand_on(&mut self, slot: usize) {
        let (first, second, inputs) = (self.sizes.first(), self.sizes.second(), self.sizes.inputs());
        let to = self.slots[slot].x.chunks_exact_mut((inputs + second) * PANEL);
        for (to, z) in to.zip(self.z.chunks_exact((first + second) * PANEL)) {
            to[..first * PANEL].copy_from_slice(&z[..first * PANEL]);
            to[inputs * PANEL..].copy_from_slice(&z[first * PANEL..]);
        }
    }

    /// Log-likelihood over the number of channels, of each sample.
    pub(super) fn likelihoods(&self) -> Vec<f32> {
        let c = self.sizes.channels;
        let mut out = Vec::with_capacity(self.panels * PANEL);
        for (z, log_det) in self.z.chunks_exact(c * PANEL).zip(self.log_det.chunks_exact(PANEL)) {
            let mut squares = [0.0f64; PANEL];
            for row in z.chunks_exact(PANEL) {
                squares.iter_mut().zip(row).for_each(|(s, z)| *s += f64::from(z * z));
            }
            for (square, log_det) in squares.iter().zip(log_det) {
                let density = -0.5 * square - c as f64 * f64::from(HALF_LOG_TWO_PI);
                out.push(((density + f64::from(*log_det) + self.log_scale) / c as f64) as f32);
            }
        }
        out.truncate(self.samples);
        out
    }
}

/// Columns of a panel `[rows, 64]` from samples `[n <= 64, width]`, of each the values from `at` on; zeros beyond them.
fn fill(panel: &mut [f32], samples: &[f32], width: usize, at: usize) {
    let n = samples.len() / width.max(1);
    for (row, out) in panel.chunks_exact_mut(PANEL).enumerate() {
        let (used, rest) = out.split_at_mut(n);
        used.iter_mut().enumerate().for_each(|(f, v)| *v = samples[f * width + at + row]);
        rest.fill(0.0);
    }
}
