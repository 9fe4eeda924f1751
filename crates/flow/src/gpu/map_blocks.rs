//! Convolutional blocks on a GPU: weights as the convolutions read them, and the way forward.

use blemish_kernels::conv::cuda::{After, Layer};
use blemish_kernels::coupling::cuda::{Mix, Vectors, forward};
use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::element::wide;
use blemish_kernels::cuda::norm::{Norm, Pictures, halves};
use blemish_kernels::cuda::rows::Half;
use blemish_tensor::cuda::{Buffer, Cuda};

use super::map_work::{Shape, Work};
use crate::{Block, FlowError, Kernel, MapFlow, Mixing, Result};

/// A block's parameters.
#[derive(Debug)]
pub(super) struct MapBlock {
    pub(super) clamp: f32,
    pub(super) hidden: usize,
    pub(super) outer: Layer,
    pub(super) inner: Layer,
    pub(super) outer_weight: Buffer<f32>,
    pub(super) inner_weight: Buffer<f32>,
    pub(super) vectors: Vectors,
    pub(super) mix: Mix,
}

impl MapBlock {
    fn new(cuda: &Cuda, block: &Block, shape: &Shape) -> Result<MapBlock> {
        let (Kernel::Conv(kernel), Mixing::Hard(order)) = (block.subnet.kernel(), block.mixing()) else {
            let why = "convolutional blocks with permutations are possible here".to_owned();
            return Err(FlowError::Params { name: "flow", why });
        };
        let [w0, b0, w2, b2] = block.subnet.params().each_ref().map(|p| p.data());
        let ([first, second], hidden) = (shape.halves(), b0.len());
        let outer = Layer::new(cuda, first, hidden, kernel)?;
        let inner = Layer::new(cuda, hidden, 2 * second, kernel)?;
        let (theta, offset) = (block.global_scale.data(), block.global_offset.data());
        let order: Vec<u32> = order.iter().map(|i| *i as u32).collect();
        Ok(MapBlock {
            clamp: block.clamp,
            hidden,
            outer_weight: upload(cuda, &outer.pack(w0)?)?,
            inner_weight: upload(cuda, &inner.pack(w2)?)?,
            outer,
            inner,
            vectors: Vectors::new(cuda, theta, offset, b0, b2, [wide::<f32>(hidden), shape.output()])?,
            mix: Mix::new(cuda, &order)?,
        })
    }
}

/// Weight and bias of the layer norm.
#[derive(Debug)]
pub(super) struct NormWeights {
    pub(super) weight: Buffer<f32>,
    pub(super) bias: Buffer<f32>,
}

/// All parameters of a [`MapFlow`].
#[derive(Debug)]
pub(super) struct MapBlocks {
    pub(super) shape: Shape,
    pub(super) norm: Option<NormWeights>,
    pub(super) blocks: Vec<MapBlock>,
}

impl MapBlocks {
    pub(super) fn new(cuda: &Cuda, model: &MapFlow) -> Result<MapBlocks> {
        let (h, w, channels) = model.dim();
        let widths = model.flow().blocks().iter().map(|b| b.subnet.params()[1].data().len());
        let shape = Shape { size: [h, w], channels, hidden: widths.max().unwrap_or(1) };
        let norm = match &model.norm {
            None => None,
            Some(norm) => {
                Some(NormWeights { weight: upload(cuda, norm.weight.data())?, bias: upload(cuda, norm.bias.data())? })
            }
        };
        let blocks = model.flow().blocks().iter().map(|b| MapBlock::new(cuda, b, &shape)).collect::<Result<_>>()?;
        Ok(MapBlocks { shape, norm, blocks })
    }

    /// From pictures to latents, through the slots of `work`; returns the number of the slot they are in.
    pub(super) fn forward(
        &self,
        cuda: &Cuda,
        pictures: Pictures<'_>,
        norm: &mut Norm,
        work: &mut Work,
    ) -> CudaResult<usize> {
        let Work { slots, kept, a, log_det, .. } = work;
        let (count, images) = (slots.len(), pictures.count);
        let (rows, [h, w]) = (images * self.shape.pixels(), self.shape.size);
        let Some(start) = slots.first_mut() else { return Ok(0) };
        match &self.norm {
            Some(weights) => norm.apply(pictures, &weights.weight, &weights.bias, start.halves_mut())?,
            None => halves(cuda, pictures, start.halves_mut())?,
        }
        let every = kept.len();
        for (b, block) in self.blocks.iter().enumerate() {
            // Two slots are apart, whether they take turns or not.
            let (from, to) = (b % count, (b + 1) % count);
            let (low, high) = slots.split_at_mut(from.max(to));
            let (Some(low), Some(high)) = (low.get_mut(from.min(to)), high.first_mut()) else { continue };
            let (x, z) = if from < to { (low, high) } else { (high, low) };
            let Some(kept) = kept.get_mut(b % every) else { continue };
            let size = [images, h, w];
            let (outer, inner) = (block.vectors.outer_bias(), block.vectors.inner_bias());
            let [x1, _] = &x.both;
            block.outer.forward(x1, size, (&block.outer_weight, outer), After::Relu, &mut kept.hidden)?;
            block.inner.forward(&kept.hidden, size, (&block.inner_weight, inner), After::Nothing, a)?;
            let a = Half { buffer: a, pitch: self.shape.output() };
            let (s, z) = (&mut kept.s, z.halves_mut());
            forward(block.clamp, rows, a, x.halves(), &block.vectors, &block.mix, z, s, log_det, b > 0)?;
        }
        Ok(self.blocks.len() % count)
    }
}

/// Numbers on their way to a GPU.
pub(super) fn upload(cuda: &Cuda, values: &[f32]) -> CudaResult<Buffer<f32>> {
    Ok(cuda.upload(values)?)
}
