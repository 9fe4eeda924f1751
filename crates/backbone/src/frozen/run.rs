//! The pass through the network.

use blemish_kernels::{Par, pool};

use crate::Result;
use crate::spec::{Gate, Graph};

use super::fold::{SqueezeExcite, Step};
use super::plan::{Place, Plan};

/// Buffers for one pass at a time.
#[derive(Default)]
pub(super) struct Arena {
    plan: Plan,
    slots: Vec<Vec<f32>>,
    scratch: Vec<f32>,
}

impl Arena {
    /// Makes the buffers fit `n` pictures of `size`; nothing to do if they did so last time.
    pub(super) fn prepare(
        &mut self,
        graph: &Graph,
        steps: &[Step],
        taps: &[usize],
        n: usize,
        size: [usize; 2],
    ) -> Result<()> {
        if self.plan.n == n && self.plan.sizes.first() == Some(&size) {
            return Ok(());
        }
        self.plan = Plan::new(graph, steps, taps, n, size)?;
        self.slots.resize_with(self.plan.slots.len(), Vec::new);
        for (slot, &floats) in self.slots.iter_mut().zip(&self.plan.slots) {
            slot.resize(floats.max(slot.len()), 0.0);
        }
        self.scratch.resize(self.plan.scratch.max(self.scratch.len()), 0.0);
        Ok(())
    }

    /// Fills `outputs`, one for each layer, from `pixels`.
    pub(super) fn run(&mut self, steps: &[Step], pixels: &[f32], outputs: &mut [&mut [f32]], par: Par) -> Result<()> {
        let Arena { plan, slots, scratch } = self;
        let n = plan.n;
        for (id, step) in steps.iter().enumerate() {
            let (input, place) = (plan.inputs[id], plan.places[id]);
            let floats = |id: usize| {
                let [h, w] = plan.sizes[id];
                n * h * w * plan.channels[id]
            };
            let [h, w] = plan.sizes[input];
            // The target leaves its list, so that the others can be read meanwhile.
            let (mut slot, mut output): (Vec<f32>, &mut [f32]) = (Vec::new(), &mut []);
            match place {
                Place::Input => continue,
                Place::Slot(s) => slot = std::mem::take(&mut slots[s]),
                Place::Output(o) => output = std::mem::take(&mut outputs[o]),
            }
            let target: &mut [f32] = match place {
                Place::Slot(_) => &mut slot[..floats(id)],
                _ => &mut *output,
            };
            let map = |id: usize| -> &[f32] {
                match plan.places[id] {
                    Place::Input => pixels,
                    Place::Slot(s) => &slots[s][..floats(id)],
                    Place::Output(o) => &*outputs[o],
                }
            };
            let done = match step {
                Step::Input => Ok(()),
                Step::Conv { conv, residual } => {
                    conv.forward(map(input), n, h, w, residual.map(map), target, scratch, par)
                }
                Step::MaxPool(spec) => pool::max_pool(map(input), [n, h, w, plan.channels[input]], spec, target, par),
                Step::SqueezeExcite(se) => {
                    if plan.places[input] != place {
                        target.copy_from_slice(map(input));
                    }
                    se.apply(target, n, h * w, scratch, par)
                }
            };
            match place {
                Place::Input => {}
                Place::Slot(s) => slots[s] = slot,
                Place::Output(o) => outputs[o] = output,
            }
            done?;
        }
        Ok(())
    }
}

impl SqueezeExcite {
    /// Gates `map`, `[n, positions, channels]`, in place.
    fn apply(
        &self,
        map: &mut [f32],
        n: usize,
        positions: usize,
        scratch: &mut [f32],
        par: Par,
    ) -> blemish_kernels::Result<()> {
        let c = self.channels;
        let (mean, rest) = scratch.split_at_mut(n * c);
        let (gate, rest) = rest.split_at_mut(n * c);
        let hidden = &mut rest[..self.reduced];
        pool::global_avg(map, n, positions, c, mean, par)?;
        for (mean, gate) in mean.chunks_exact(c).zip(gate.chunks_exact_mut(c)) {
            for (h, (row, &bias)) in hidden.iter_mut().zip(self.reduce.chunks_exact(c).zip(&self.reduce_bias)) {
                *h = bias + dot(row, mean);
            }
            match self.gate {
                Gate::SiluSigmoid => pool::silu(hidden),
                Gate::ReluHardSigmoid => pool::relu(hidden),
            }
            gate.copy_from_slice(&self.expand_bias);
            for (&h, row) in hidden.iter().zip(self.expand.chunks_exact(c)) {
                gate.iter_mut().zip(row).for_each(|(g, &w)| *g += h * w);
            }
            match self.gate {
                Gate::SiluSigmoid => pool::sigmoid(gate),
                Gate::ReluHardSigmoid => pool::hard_sigmoid(gate),
            }
        }
        pool::scale_channels(map, n, positions, c, gate, par)
    }
}

/// The scalar product in 16 interleaved sums, which the compiler keeps in registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a16, a_rest) = a.as_chunks::<16>();
    let (b16, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for (a, b) in a16.iter().zip(b16) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
