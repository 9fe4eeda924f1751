//! The pass through the network.

use blemish_kernels::gemm::{Element, convert};
use blemish_kernels::{Par, pool};

use crate::Result;
use crate::spec::{Gate, Graph};

use super::fold::{SqueezeExcite, Step};
use super::plan::{Place, Plan};

/// Buffers for one pass at a time, for maps of `E`.
pub(super) struct Arena<E> {
    plan: Plan,
    /// The pictures, where maps are not `f32`.
    pixels: Vec<E>,
    slots: Vec<Vec<E>>,
    scratch: Vec<f32>,
}

impl<E> Default for Arena<E> {
    fn default() -> Self {
        Arena { plan: Plan::default(), pixels: Vec::new(), slots: Vec::new(), scratch: Vec::new() }
    }
}

/// Sees each node's map right after it was made.
pub(super) type Witness<'a> = &'a mut dyn FnMut(usize, &[f32]);

impl<E: Element> Arena<E> {
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
        // Maps in `f32` are made in the outputs themselves; others go there through a buffer.
        let taps = if size_of::<E>() == size_of::<f32>() { taps } else { &[] };
        self.plan = Plan::new(graph, taps, n, size, 1, |id, [h, w]| match steps.get(id) {
            Some(Step::Conv { conv, .. }) => conv.workspace(n, h, w),
            Some(Step::SqueezeExcite(se)) => n * (2 * se.channels + se.reduced),
            _ => 0,
        })?;
        self.slots.resize_with(self.plan.slots.len(), Vec::new);
        for (slot, &numbers) in self.slots.iter_mut().zip(&self.plan.slots) {
            slot.resize(numbers.max(slot.len()), E::default());
        }
        self.scratch.resize(self.plan.scratch.max(self.scratch.len()), 0.0);
        Ok(())
    }

    /// Fills `outputs`, the maps of the nodes `taps`, from `pixels`.
    pub(super) fn run(
        &mut self,
        steps: &[Step],
        taps: &[usize],
        pixels: &[f32],
        outputs: &mut [&mut [f32]],
        par: Par,
        mut witness: Option<Witness<'_>>,
    ) -> Result<()> {
        let Arena { plan, pixels: own, slots, scratch } = self;
        let single = size_of::<E>() == size_of::<f32>();
        if !single {
            own.resize(pixels.len(), E::default());
            convert(pixels, own, par);
        }
        let pixels: &[E] = if single { bytemuck::cast_slice(pixels) } else { own };
        let n = plan.n;
        for (id, step) in steps.iter().enumerate() {
            let (input, place) = (plan.inputs[id], plan.places[id]);
            let numbers = |id: usize| {
                let [h, w] = plan.sizes[id];
                n * h * w * plan.channels[id]
            };
            let [h, w] = plan.sizes[input];
            // The target leaves its list, so that the others can be read meanwhile.
            let (mut slot, mut output): (Vec<E>, &mut [f32]) = (Vec::new(), &mut []);
            match place {
                Place::Input => {
                    if let Some(see) = &mut witness {
                        see(id, bytemuck::cast_slice(pixels));
                    }
                    continue;
                }
                Place::Slot(s) => slot = std::mem::take(&mut slots[s]),
                Place::Output(o) => output = std::mem::take(&mut outputs[o]),
            }
            let target: &mut [E] = match place {
                Place::Slot(_) => &mut slot[..numbers(id)],
                _ => bytemuck::cast_slice_mut(&mut *output),
            };
            let map = |id: usize| -> &[E] {
                match plan.places[id] {
                    Place::Input => pixels,
                    Place::Slot(s) => &slots[s][..numbers(id)],
                    Place::Output(o) => bytemuck::cast_slice(&*outputs[o]),
                }
            };
            let done = match step {
                Step::Input => Ok(()),
                Step::Conv { conv, residual } => {
                    conv.forward_in(map(input), n, h, w, residual.map(map), target, scratch, par)
                }
                Step::MaxPool(spec) => pool::max_pool(map(input), [n, h, w, plan.channels[input]], spec, target, par),
                Step::SqueezeExcite(se) => {
                    if plan.places[input] != place {
                        target.copy_from_slice(map(input));
                    }
                    se.apply(target, n, h * w, scratch, par)
                }
            };
            if let Some(see) = &mut witness {
                see(id, bytemuck::cast_slice(target));
            }
            if let Some(tap) = taps.iter().position(|&tap| tap == id).filter(|_| !single) {
                convert(target, outputs[tap], par);
            }
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
    fn apply<E: Element>(
        &self,
        map: &mut [E],
        n: usize,
        positions: usize,
        scratch: &mut [f32],
        par: Par,
    ) -> blemish_kernels::Result<()> {
        let c = self.channels;
        let (mean, rest) = scratch.split_at_mut(n * c);
        let (gate, rest) = rest.split_at_mut(n * c);
        let hidden = &mut rest[..n * self.reduced];
        pool::global_avg(map, n, positions, c, mean, par)?;
        self.reduce.forward(mean, n, 1, 1, None, hidden, &mut [], par)?;
        self.expand.forward(hidden, n, 1, 1, None, gate, &mut [], par)?;
        match self.gate {
            Gate::SiluSigmoid => pool::sigmoid(gate),
            Gate::ReluHardSigmoid => pool::hard_sigmoid(gate),
        }
        pool::scale_channels(map, n, positions, c, gate, par)
    }
}
