//! Gradients and moments of a convolutional flow on a GPU, and the launches of a step.

use blemish_grad::optim::AdamState;
use blemish_kernels::adam::cuda::{Moments, Steps, adam};
use blemish_kernels::conv::cuda::{After, Layer};
use blemish_kernels::coupling::cuda::{Loss, Sums, Training, backward, next, output};
use blemish_kernels::cuda::element::wide;
use blemish_kernels::cuda::norm::{Norm, Pictures};
use blemish_kernels::cuda::rows::{Half, HalfMut};
use blemish_kernels::cuda::{CudaError, CudaResult};
use blemish_tensor::cuda::{Buffer, Cuda};

use super::map_blocks::{MapBlock, MapBlocks};
use super::map_work::{Kept, Shape, Way, Work};
use crate::Result;

/// A parameter's gradient and moments.
#[derive(Debug)]
struct Slope {
    gradient: Buffer<f32>,
    moments: Moments,
}

impl Slope {
    fn new(cuda: &Cuda, len: usize) -> CudaResult<Slope> {
        Ok(Slope { gradient: cuda.zeros(len)?, moments: Moments::new(cuda, len)? })
    }

    fn take(&mut self, first: &[f32], second: &[f32]) -> CudaResult<()> {
        self.moments.first.write_at(0, first)?;
        Ok(self.moments.second.write_at(0, second)?)
    }

    /// Adam's step.
    fn step(&mut self, steps: &Steps, values: &mut Buffer<f32>) -> CudaResult<()> {
        adam(steps, values, &mut self.moments, &self.gradient)
    }
}

/// What a block has in training besides its parameters.
#[derive(Debug)]
struct Side {
    outer: Slope,
    inner: Slope,
    /// The convolutions that carry gradients back, and their weights.
    outer_back: (Layer, Buffer<f32>),
    inner_back: (Layer, Buffer<f32>),
    /// Sums for the gradients of the vectors.
    sums: Sums,
}

impl Side {
    fn new(cuda: &Cuda, block: &MapBlock, shape: &Shape) -> CudaResult<Side> {
        let (outer, inner) = (&block.outer, &block.inner);
        let mut side = Side {
            outer: Slope::new(cuda, outer.numbers())?,
            inner: Slope::new(cuda, inner.numbers())?,
            outer_back: (outer.back(), cuda.zeros(outer.numbers())?),
            inner_back: (inner.back(), cuda.zeros(inner.numbers())?),
            sums: Sums::new(cuda, shape.channels, block.hidden)?,
        };
        side.turn(block)?;
        Ok(side)
    }

    /// The weights of the way back.
    fn turn(&mut self, block: &MapBlock) -> CudaResult<()> {
        block.outer.turn(&block.outer_weight, &mut self.outer_back.1)?;
        block.inner.turn(&block.inner_weight, &mut self.inner_back.1)
    }
}

/// Everything a training has besides the parameters.
#[derive(Debug)]
pub(super) struct Learning {
    norm: Norm,
    affine: Option<[Slope; 2]>,
    sides: Vec<Side>,
    work: Work,
    way: Way,
    /// Parts of the gradients of weights.
    parts: Buffer<f32>,
    /// The biases of the way back.
    zeros: [Buffer<f32>; 2],
}

/// Values of parameters, one after the other, in the order of [`Module::visit`](blemish_grad::Module::visit).
pub(super) type Values = Vec<Vec<f32>>;

impl Learning {
    /// Bytes of working memory of a picture.
    pub(super) fn bytes(blocks: &MapBlocks) -> usize {
        let (shape, count) = (&blocks.shape, blocks.blocks.len());
        let ([p1, p2], [_, c2]) = (shape.pitches(), shape.halves());
        let hidden = wide::<f32>(shape.hidden);
        let pixel = (count + 3) * (p1 + p2) + count * (hidden + c2) + shape.output() + hidden + shape.channels + 6;
        pixel.saturating_mul(shape.pixels()).saturating_mul(4)
    }

    /// For groups of `group` pictures, with moments of zero.
    pub(super) fn new(cuda: &Cuda, blocks: &MapBlocks, group: usize) -> CudaResult<Learning> {
        let (shape, [h, w]) = (&blocks.shape, blocks.shape.size);
        let parts = blocks.blocks.iter().flat_map(|b| [&b.outer, &b.inner]).map(|l| l.workspace([group, h, w]));
        let affine = match &blocks.norm {
            None => None,
            Some(_) => Some([Slope::new(cuda, shape.values())?, Slope::new(cuda, shape.values())?]),
        };
        // Blocks of one flow have hidden layers of one width.
        let [first, _] = shape.pitches();
        Ok(Learning {
            norm: Norm::new(cuda, group, shape.pixels(), shape.channels)?,
            affine,
            sides: blocks.blocks.iter().map(|b| Side::new(cuda, b, shape)).collect::<CudaResult<_>>()?,
            work: Work::new(cuda, shape, group, Some(blocks.blocks.len()))?,
            way: Way::new(cuda, shape, group)?,
            parts: cuda.scratch(parts.max().unwrap_or(0))?,
            zeros: [cuda.zeros(first)?, cuda.zeros(wide::<f32>(shape.hidden))?],
        })
    }

    /// A group forward and back; its gradients of weights and sums for those of vectors are written or, with `add`, added to what is
    /// there. `images` is the number of pictures of the whole batch.
    pub(super) fn group(
        &mut self,
        cuda: &Cuda,
        blocks: &MapBlocks,
        pictures: Pictures<'_>,
        images: usize,
        add: bool,
    ) -> CudaResult<()> {
        let Learning { norm, affine, sides, work, way, parts, zeros } = self;
        let shape = &blocks.shape;
        let last = blocks.forward(cuda, pictures, norm, work)?;
        let (rows, [h, w]) = (pictures.count * shape.pixels(), shape.size);
        let (size, [_, p2]) = ([pictures.count, h, w], shape.pitches());
        let Work { slots, kept, a, log_det, energy } = work;
        let Some(latent) = slots.get(last) else { return Ok(()) };
        let training =
            Training { loss: &mut way.loss, g: way.g.halves_mut(), slope: &mut way.slope, share: 1.0 / images as f32 };
        output(Loss::Energy, rows, shape.halves(), latent.halves(), log_det, energy, Some(training))?;
        let all = blocks.blocks.iter().zip(sides.iter_mut()).zip(kept.iter()).zip(slots.windows(2));
        for (b, (((block, side), kept), slots)) in all.enumerate().rev() {
            let ([x, z], Kept { hidden, s }) = (slots, kept) else { continue };
            let Way { g, next, hidden: gh, slope, .. } = &mut *way;
            let ga = HalfMut { buffer: a, pitch: shape.output() };
            let x2 = Half { buffer: &x.both[1], pitch: p2 };
            let gx = next.halves_mut();
            backward(block.clamp, rows, g.halves(), &block.vectors, &block.mix, x2, s, slope, gx, ga)?;
            let (back, turned) = &side.inner_back;
            back.forward(a, size, (turned, &zeros[1]), After::Mask(hidden), gh)?;
            block.inner.gradient(size, hidden, a, parts, &mut side.inner.gradient, add)?;
            block.outer.gradient(size, &x.both[0], gh, parts, &mut side.outer.gradient, add)?;
            let (ga, ph) = (Half { buffer: a, pitch: shape.output() }, wide::<f32>(block.hidden));
            side.sums.adding(add);
            let own = Half { buffer: gh, pitch: ph };
            block.vectors.sums(rows, ga, own, g.halves(), z.halves(), slope, &mut side.sums)?;
            // Features are frozen: without a norm before it the first block is the end.
            if b > 0 || affine.is_some() {
                let (back, turned) = &side.outer_back;
                let [through, _] = &next.both;
                back.forward(gh, size, (turned, &zeros[0]), After::Add(through), &mut g.both[0])?;
                std::mem::swap(&mut g.both[1], &mut next.both[1]);
            }
        }
        if let Some([weight, bias]) = affine {
            norm.gradient(pictures, way.g.halves(), &mut weight.gradient, &mut bias.gradient, add)?;
        }
        Ok(())
    }

    /// The end of a group of `rows` pixels: its losses are added up, and the next turn begins.
    pub(super) fn end(&self, steps: &mut Steps, rows: usize) -> CudaResult<()> {
        next(steps, &self.way.loss, rows, 1)
    }

    /// Adam's step on everything, after a batch whose first group has `count` pictures.
    pub(super) fn update(&mut self, blocks: &mut MapBlocks, count: usize, steps: &Steps) -> CudaResult<()> {
        let rows = count * blocks.shape.pixels();
        for (block, side) in blocks.blocks.iter_mut().zip(&mut self.sides) {
            block.vectors.finish(rows, &side.sums, &block.mix, Some(steps))?;
            side.outer.step(steps, &mut block.outer_weight)?;
            side.inner.step(steps, &mut block.inner_weight)?;
            side.turn(block)?;
        }
        if let (Some([weight, bias]), Some(norm)) = (&mut self.affine, &mut blocks.norm) {
            weight.step(steps, &mut norm.weight)?;
            bias.step(steps, &mut norm.bias)?;
        }
        Ok(())
    }

    /// The gradients, brought back.
    pub(super) fn gradients(&self, blocks: &mut MapBlocks, count: usize) -> Result<Values> {
        let rows = count * blocks.shape.pixels();
        let mut all = Vec::new();
        for slope in self.affine.iter().flatten() {
            all.push(read(&slope.gradient)?);
        }
        for (block, side) in blocks.blocks.iter_mut().zip(&self.sides) {
            block.vectors.finish(rows, &side.sums, &block.mix, None)?;
            let weights = [&side.outer.gradient, &side.inner.gradient];
            all.extend(together(block, block.vectors.gradients()?, weights)?);
        }
        Ok(all)
    }

    /// The values of all parameters, brought back.
    pub(super) fn values(&self, blocks: &MapBlocks) -> Result<Values> {
        let mut all = Vec::new();
        for values in blocks.norm.iter().flat_map(|norm| [&norm.weight, &norm.bias]) {
            all.push(read(values)?);
        }
        for block in &blocks.blocks {
            let weights = [&block.outer_weight, &block.inner_weight];
            all.extend(together(block, block.vectors.values()?, weights)?);
        }
        Ok(all)
    }

    /// Both moments of all parameters, brought back.
    pub(super) fn moments(&self, blocks: &MapBlocks) -> Result<[Values; 2]> {
        let mut all = [Vec::new(), Vec::new()];
        let two = |slope: &Slope| [read(&slope.moments.first), read(&slope.moments.second)];
        for slope in self.affine.iter().flatten() {
            for (to, from) in all.iter_mut().zip(two(slope)) {
                to.push(from?);
            }
        }
        for (block, side) in blocks.blocks.iter().zip(&self.sides) {
            let [first, second] = block.vectors.moments()?;
            let (outer, inner) = (&side.outer.moments, &side.inner.moments);
            let weights = [[&outer.first, &inner.first], [&outer.second, &inner.second]];
            for ((to, vectors), weights) in all.iter_mut().zip([first, second]).zip(weights) {
                to.extend(together(block, vectors, weights)?);
            }
        }
        Ok(all)
    }

    /// Takes the moments of a checkpoint, which were checked, and the parameters of `blocks`, which have the same shape.
    pub(super) fn take(&mut self, blocks: &mut MapBlocks, state: &AdamState) -> Result<()> {
        let mut moments = state.exp_avg.iter().zip(&state.exp_avg_sq);
        let mut next = || moments.next().map_or((&[][..], &[][..]), |(m, v)| (m.as_slice(), v.as_slice()));
        for slope in self.affine.iter_mut().flatten() {
            let (m, v) = next();
            slope.take(m, v)?;
        }
        for (block, side) in blocks.blocks.iter_mut().zip(&mut self.sides) {
            let [theta, offset, w0, b0, w2, b2] = [next(), next(), next(), next(), next(), next()];
            side.outer.take(&block.outer.pack(w0.0)?, &block.outer.pack(w0.1)?)?;
            side.inner.take(&block.inner.pack(w2.0)?, &block.inner.pack(w2.1)?)?;
            block.vectors.set_moments([theta.0, offset.0, b0.0, b2.0], [theta.1, offset.1, b0.1, b2.1])?;
            side.turn(block)?;
        }
        Ok(())
    }
}

/// What belongs to a block's parameters, in their order, from that of its vectors and of the weights of its subnet.
fn together(
    block: &MapBlock,
    [theta, offset, outer_bias, inner_bias]: [Vec<f32>; 4],
    [outer, inner]: [&Buffer<f32>; 2],
) -> Result<[Vec<f32>; 6]> {
    let (outer, inner) = (block.outer.unpack(&read(outer)?)?, block.inner.unpack(&read(inner)?)?);
    Ok([theta, offset, outer, outer_bias, inner, inner_bias])
}

fn read(buffer: &Buffer<f32>) -> Result<Vec<f32>> {
    Ok(buffer.read().map_err(CudaError::from)?)
}
