//! The blocks of a linear flow on a GPU.

use blemish_grad::optim::AdamState;
use blemish_kernels::adam::cuda::{Moments, Steps};
use blemish_kernels::coupling::cuda::{self as coupling, Loss, Mix, Sums, Vectors};
use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::rows::Half;
use blemish_kernels::product::cuda::{Back, Input, Weight};
use blemish_tensor::cuda::{Buffer, Cuda};

use super::room::{Pair, Room, Rows, Slot};
use crate::train::panels::Sizes;
use crate::{Block, Flow, FlowError, Mixing, Result};

/// Parameters of a block, in the order of [`blemish_grad::Module::visit`].
pub(super) const PARAMS: usize = 6;

/// A flow's weights on a GPU.
pub(super) struct Blocks {
    pub(super) sizes: Sizes,
    pub(super) blocks: Vec<GpuBlock>,
}

pub(super) struct GpuBlock {
    clamp: f32,
    outer: Weight,
    inner: Weight,
    vectors: Vectors,
    mix: Mix,
}

/// Adam's moments of the weights; the vectors have their own.
pub(super) struct WeightMoments {
    outer: Moments,
    inner: Moments,
}

/// The gradients of a block's weights.
pub(super) struct Collected {
    outer: Buffer<f32>,
    inner: Buffer<f32>,
}

/// What the way back works with besides the activations.
pub(super) struct Way {
    /// Gradients of a block's output and input.
    pub(super) g: [Pair; 2],
    /// Gradient of the hidden layer.
    hidden: Rows,
    /// Gradient of each row's log-determinant.
    pub(super) slope: Buffer<f32>,
    sums: Sums,
}

impl Way {
    pub(super) fn new(cuda: &Cuda, rows: usize, sizes: Sizes) -> CudaResult<Way> {
        Ok(Way {
            g: [Pair::new(cuda, rows, sizes)?, Pair::new(cuda, rows, sizes)?],
            hidden: Rows::new(cuda, rows, sizes.hidden)?,
            slope: cuda.scratch(rows)?,
            sums: Sums::new(cuda, sizes.channels, sizes.hidden)?,
        })
    }
}

impl WeightMoments {
    pub(super) fn new(cuda: &Cuda, sizes: Sizes) -> CudaResult<WeightMoments> {
        let [outer, inner] = lengths(sizes);
        Ok(WeightMoments { outer: Moments::new(cuda, outer)?, inner: Moments::new(cuda, inner)? })
    }
}

/// Numbers of a block's two weights.
fn lengths(sizes: Sizes) -> [usize; 2] {
    [sizes.inputs(), 2 * sizes.second()].map(|width| width.saturating_mul(sizes.hidden))
}

impl Blocks {
    /// Copies a flow's weights; with `bf16` their products round to bf16.
    pub(super) fn new(cuda: &Cuda, flow: &Flow, bf16: bool) -> Result<Blocks> {
        let sizes = Sizes::of(flow)?;
        if sizes.condition == 0 {
            let why = "none; flows on a GPU have one for each sample".to_owned();
            return Err(FlowError::Params { name: "condition", why });
        }
        let blocks = flow.blocks().iter().map(|block| GpuBlock::new(cuda, block, sizes, bf16));
        Ok(Blocks { sizes, blocks: blocks.collect::<Result<_>>()? })
    }

    /// Through all blocks from the first slot's input: fills the slots, `z` and `log_det`. With `exact` all products are `f32`.
    pub(super) fn forward(&self, room: &mut Room, n: usize, exact: bool) -> CudaResult<()> {
        let Room { slots, z, condition, a, log_det, .. } = room;
        let kept = slots.len() == self.blocks.len();
        for (b, block) in self.blocks.iter().enumerate() {
            let (before, after) = slots.split_at_mut(if kept { b + 1 } else { 1 });
            let Some(slot) = before.last_mut() else { break };
            let out = match after.first_mut() {
                Some(next) => &mut next.x,
                None => &mut *z,
            };
            block.forward(self.sizes, n, slot, condition, a, out, log_det, (b > 0, exact))?;
            if !kept && b + 1 < self.blocks.len() {
                std::mem::swap(&mut slot.x, z);
            }
        }
        Ok(())
    }

    /// Values of the rows that went forward: log-likelihoods over the number of channels.
    pub(super) fn likelihoods(&self, room: &mut Room, n: usize) -> CudaResult<()> {
        let halves = [self.sizes.first(), self.sizes.second()];
        coupling::output(Loss::Likelihood, n, halves, room.z.halves(), &room.log_det, &mut room.value, None)
    }

    /// From the gradients in `way` to those of all parameters, block by block from the last one; `apply` gets a block's number, the
    /// block, the gradients of its two layers' outputs and the layers' inputs.
    pub(super) fn backward(
        &mut self,
        room: &mut Room,
        way: &mut Way,
        n: usize,
        steps: Option<&Steps>,
        weights: &mut Weights<'_>,
    ) -> CudaResult<()> {
        let Room { slots, z, condition, a, .. } = room;
        let Way { g: [g, gx], hidden, slope, sums } = way;
        let sizes = self.sizes;
        for (b, block) in self.blocks.iter_mut().enumerate().rev() {
            let (before, after) = slots.split_at_mut(b + 1);
            let Some(slot) = before.last() else { break };
            let out = after.first().map_or(&*z, |next| &next.x);
            let x2 = slot.x.halves()[1];
            let vectors = &block.vectors;
            let (to, halves) = (gx.halves_mut(), g.halves());
            coupling::backward(block.clamp, n, halves, vectors, &block.mix, x2, &slot.s, slope, to, a.half_mut())?;
            // The gradients of a layer's input need the weight as it was.
            let back = Back { add: false, mask: Some(slot.hidden.half()) };
            block.inner.backward(n, sizes.hidden, a.half(), back, hidden.half_mut())?;
            if b > 0 {
                let [first, _] = gx.halves_mut();
                block.outer.backward(n, sizes.first(), hidden.half(), Back { add: true, mask: None }, first)?;
            }
            let input = Input {
                x: slot.x.halves()[0],
                condition: Some(condition.half()),
                widths: [sizes.first(), sizes.condition],
            };
            let layer = Input::one(slot.hidden.half(), sizes.hidden);
            weights.take(b, block, n, [(hidden.half(), input), (a.half(), layer)], steps)?;
            block.vectors.sums(n, a.half(), hidden.half(), g.halves(), out.halves(), slope, sums)?;
            block.vectors.finish(n, sums, &block.mix, steps)?;
            std::mem::swap(g, gx);
        }
        Ok(())
    }

    /// Brings the parameters into `flow`, whose blocks are of the same sizes.
    pub(super) fn read(&self, flow: &mut Flow) -> CudaResult<()> {
        for (block, own) in flow.blocks_mut().iter_mut().zip(&self.blocks) {
            let [theta, offset, outer, inner] = own.vectors.values()?;
            block.global_scale.data_mut().copy_from_slice(&theta);
            block.global_offset.data_mut().copy_from_slice(&offset);
            let [w0, b0, w2, b2] = block.subnet.params_mut();
            own.outer.values().read_at(0, w0.data_mut())?;
            own.inner.values().read_at(0, w2.data_mut())?;
            b0.data_mut().copy_from_slice(&outer);
            b2.data_mut().copy_from_slice(&inner);
        }
        Ok(())
    }

    /// Brings Adam's moments.
    pub(super) fn read_moments(&self, weights: &[WeightMoments]) -> CudaResult<[Vec<Vec<f32>>; 2]> {
        let mut all = [Vec::new(), Vec::new()];
        for (block, own) in self.blocks.iter().zip(weights) {
            let vectors = block.vectors.moments()?;
            let weights = [[&own.outer.first, &own.inner.first], [&own.outer.second, &own.inner.second]];
            for ((to, [theta, offset, outer, inner]), [w0, w2]) in all.iter_mut().zip(vectors).zip(weights) {
                to.extend([theta, offset, w0.read()?, outer, w2.read()?, inner]);
            }
        }
        Ok(all)
    }

    /// Puts Adam's moments in place, which are of the right sizes.
    pub(super) fn write_moments(&mut self, weights: &mut [WeightMoments], state: &AdamState) -> CudaResult<()> {
        let parts = state.exp_avg.chunks_exact(PARAMS).zip(state.exp_avg_sq.chunks_exact(PARAMS));
        for ((block, own), (first, second)) in self.blocks.iter_mut().zip(weights).zip(parts) {
            let vectors = |all: &'_ [Vec<f32>]| [0, 1, 3, 5].map(|i| all[i].clone());
            let (f, s) = (vectors(first), vectors(second));
            block.vectors.set_moments(f.each_ref().map(Vec::as_slice), s.each_ref().map(Vec::as_slice))?;
            own.outer.first.write_at(0, &first[2])?;
            own.inner.first.write_at(0, &first[4])?;
            own.outer.second.write_at(0, &second[2])?;
            own.inner.second.write_at(0, &second[4])?;
        }
        Ok(())
    }
}

/// What happens to the gradients of weights.
pub(super) enum Weights<'a> {
    /// Adam's next step.
    Step(&'a mut [WeightMoments]),
    /// They are kept.
    Collect(&'a mut Vec<(usize, Collected)>),
}

impl Weights<'_> {
    fn take(
        &mut self,
        b: usize,
        block: &mut GpuBlock,
        n: usize,
        [(g0, x0), (g2, x2)]: [(Half<'_>, Input<'_>); 2],
        steps: Option<&Steps>,
    ) -> CudaResult<()> {
        match self {
            Weights::Step(moments) => {
                let (Some(own), Some(steps)) = (moments.get_mut(b), steps) else { return Ok(()) };
                block.inner.update(n, g2, x2, steps, &mut own.inner)?;
                block.outer.update(n, g0, x0, steps, &mut own.outer)
            }
            Weights::Collect(all) => {
                let room = |weight: &Weight| weight.values().cuda().scratch(weight.values().len());
                let mut found = Collected { outer: room(&block.outer)?, inner: room(&block.inner)? };
                block.inner.gradient(n, g2, x2, &mut found.inner)?;
                block.outer.gradient(n, g0, x0, &mut found.outer)?;
                all.push((b, found));
                Ok(())
            }
        }
    }
}

impl Collected {
    /// All gradients of a block, in the order of its parameters.
    pub(super) fn with(&self, block: &GpuBlock) -> CudaResult<[Vec<f32>; PARAMS]> {
        let [theta, offset, outer, inner] = block.vectors.gradients()?;
        Ok([theta, offset, self.outer.read()?, outer, self.inner.read()?, inner])
    }
}

impl GpuBlock {
    fn new(cuda: &Cuda, block: &Block, sizes: Sizes, bf16: bool) -> Result<GpuBlock> {
        let Mixing::Hard(order) = block.mixing() else {
            let why = "a rotation; on a GPU flows have permutations".to_owned();
            return Err(FlowError::Params { name: "soft_mixing", why });
        };
        let order: Vec<u32> = order.iter().map(|i| *i as u32).collect();
        let [w0, b0, w2, b2] = block.subnet.params().each_ref().map(|p| p.data());
        let (theta, offset) = (block.global_scale.data(), block.global_offset.data());
        let out = 2 * sizes.second();
        Ok(GpuBlock {
            clamp: block.clamp,
            outer: Weight::new(cuda, w0, [sizes.hidden, sizes.inputs()], bf16)?,
            inner: Weight::new(cuda, w2, [out, sizes.hidden], bf16)?,
            vectors: Vectors::new(cuda, theta, offset, b0, b2, [sizes.hidden, out])?,
            mix: Mix::new(cuda, &order)?,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a room, borrowed one by one")]
    fn forward(
        &self,
        sizes: Sizes,
        n: usize,
        slot: &mut Slot,
        condition: &Rows,
        a: &mut Rows,
        out: &mut Pair,
        log_det: &mut Buffer<f32>,
        (add, exact): (bool, bool),
    ) -> CudaResult<()> {
        let Slot { x, hidden, s } = slot;
        let input =
            Input { x: x.halves()[0], condition: Some(condition.half()), widths: [sizes.first(), sizes.condition] };
        let layer = if exact { Weight::forward_f32 } else { Weight::forward };
        layer(&self.outer, n, input, self.vectors.outer_bias(), true, hidden.half_mut())?;
        let input = Input::one(hidden.half(), sizes.hidden);
        layer(&self.inner, n, input, self.vectors.inner_bias(), false, a.half_mut())?;
        let (x, z) = (x.halves(), out.halves_mut());
        coupling::forward(self.clamp, n, a.half(), x, &self.vectors, &self.mix, z, s, log_det, add)
    }
}
