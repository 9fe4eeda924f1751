#![allow(unsafe_code)]
//! Convolutions whose weights training changes.

use blemish_tensor::cuda::{Buffer, Cuda};

use super::cuda::{Dense, dense, pack};
use super::{Activation, ConvSpec};
use crate::KernelError;
use crate::cuda::element::{room, wide};
use crate::cuda::{CudaResult, THREADS, WINDOW, grid};
use crate::error::shape_error;

const OP: &str = "convolution in training";

/// Pixels of a part of the sum over all pixels: at least, so that the parts are few, and at most, so that a sum stays exact.
const PART: (usize, usize) = (512, 4096);
/// Parts begin after a multiple of this many pixels.
const STEP: usize = 16;

/// A convolution of stride 1 with as many output as input pixels, in f32, whose weight and bias are whatever buffers it is given;
/// with the gradient of its weight and the way back to its input.
///
/// Maps are `[n, h, w, wide(c)]`, weights `[k k, wide(inputs), wide(outputs)]`, biases `[wide(outputs)]`, see
/// [`element`](crate::cuda::element); what is beyond the channels is zero and stays so.
#[derive(Clone, Debug)]
pub struct Layer {
    cuda: Cuda,
    spec: ConvSpec,
}

/// What becomes of the outputs of a [`Layer`], after the bias. Maps are those of the outputs.
#[derive(Clone, Copy, Debug)]
pub enum After<'a> {
    /// Nothing.
    Nothing,
    /// A ReLU.
    Relu,
    /// This map is added.
    Add(&'a Buffer<f32>),
    /// They become zero where this map is not above zero: back through the ReLU whose output it is.
    Mask(&'a Buffer<f32>),
}

impl Layer {
    /// A layer from `inputs` to `outputs` channels with a square kernel of side `kernel`, odd.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] for sizes out of range.
    pub fn new(cuda: &Cuda, inputs: usize, outputs: usize, kernel: usize) -> CudaResult<Layer> {
        let side = kernel / 2;
        let (kernel, padding) = ([kernel; 2], [side; 4]);
        let spec = ConvSpec { in_channels: inputs, out_channels: outputs, kernel, stride: [1; 2], padding, groups: 1 };
        spec.validate()?;
        if kernel[0].is_multiple_of(2) {
            return Err(KernelError::Parameter { op: OP, what: format!("an odd kernel, not {}", kernel[0]) }.into());
        }
        let layer = Layer { cuda: cuda.clone(), spec };
        room::<f32>(OP, layer.shape(), usize::MAX)?;
        Ok(layer)
    }

    /// The layer that carries gradients from its outputs to its inputs, with the weight that [`turn`](Self::turn) makes.
    pub fn back(&self) -> Layer {
        let spec = ConvSpec { in_channels: self.spec.out_channels, out_channels: self.spec.in_channels, ..self.spec };
        Layer { cuda: self.cuda.clone(), spec }
    }

    /// Channels of the inputs and the outputs as stored.
    fn channels(&self) -> [usize; 2] {
        [wide::<f32>(self.spec.in_channels), wide::<f32>(self.spec.out_channels)]
    }

    fn side(&self) -> usize {
        self.spec.kernel[0]
    }

    fn shape(&self) -> [usize; 4] {
        let [inputs, outputs] = self.channels();
        [self.side(), self.side(), inputs, outputs]
    }

    /// Numbers of a weight as stored.
    pub fn numbers(&self) -> usize {
        self.shape().iter().product()
    }

    /// A weight `[outputs, inputs, k, k]` as stored.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for another length.
    pub fn pack(&self, weight: &[f32]) -> CudaResult<Vec<f32>> {
        if weight.len() != self.spec.weight_len() {
            return Err(shape_error(OP, format!("{} weights", self.spec.weight_len()), weight.len()).into());
        }
        Ok(pack::<f32>(&self.spec, weight).1)
    }

    /// The weight `[outputs, inputs, k, k]` of what is stored.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for another length.
    pub fn unpack(&self, packed: &[f32]) -> CudaResult<Vec<f32>> {
        if packed.len() != self.numbers() {
            return Err(shape_error(OP, format!("{} weights", self.numbers()), packed.len()).into());
        }
        let ([c, o], taps) = (self.channels(), self.side() * self.side());
        let mut weight = vec![0.0; self.spec.weight_len()];
        for (out, filter) in weight.chunks_exact_mut(self.spec.in_channels * taps).enumerate() {
            for (channel, row) in filter.chunks_exact_mut(taps).enumerate() {
                row.iter_mut().enumerate().for_each(|(tap, v)| *v = packed[(tap * c + channel) * o + out]);
            }
        }
        Ok(weight)
    }

    fn check(&self, what: &'static str, weight: usize) -> Result<(), KernelError> {
        if weight == self.numbers() {
            Ok(())
        } else {
            Err(shape_error(what, format!("{} weights", self.numbers()), weight))
        }
    }

    /// The outputs `[n, h, w, outputs]` of a map `[n, h, w, inputs]`; maps may be longer than that.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a buffer of another length; the device's.
    pub fn forward(
        &self,
        input: &Buffer<f32>,
        size: [usize; 3],
        (weight, bias): (&Buffer<f32>, &Buffer<f32>),
        after: After<'_>,
        output: &mut Buffer<f32>,
    ) -> CudaResult<()> {
        self.check(OP, weight.len())?;
        let [c, o] = self.channels();
        if bias.len() != o {
            return Err(shape_error(OP, format!("{o} biases"), bias.len()).into());
        }
        let (code, residual) = match after {
            After::Nothing => (super::cuda::code(Activation::None), None),
            After::Relu => (super::cuda::code(Activation::Relu), None),
            After::Add(map) => (super::cuda::code(Activation::None), Some(map)),
            After::Mask(map) => (super::cuda::MASK, Some(map)),
        };
        let depth = self.side() * self.side() * c;
        dense(&self.cuda, &self.spec, &Dense { weight, depth, bias, code }, input, size, residual, output)
    }

    /// The kernel of the tile that pays, and its side.
    fn tile(&self) -> (&'static str, usize) {
        let [_, side, c, o] = self.shape();
        if o > 64 && side * side * c > 64 { ("window_128", 128) } else { ("window_64", 64) }
    }

    /// Tiles of that side that cover the weight.
    fn tiles(&self, tile: usize) -> usize {
        let [_, side, c, o] = self.shape();
        (side * side * c).div_ceil(tile) * o.div_ceil(tile)
    }

    /// Parts of the sum that keep the GPU busy: two blocks run side by side on a multiprocessor, twice as many even out.
    fn wanted(&self, tile: usize) -> usize {
        (4 * self.cuda.info().multiprocessors as usize).div_ceil(self.tiles(tile)).max(1)
    }

    /// Pixels of a part of the sum.
    fn each(&self, rows: usize) -> usize {
        rows.div_ceil(self.wanted(self.tile().1)).clamp(PART.0, PART.1).next_multiple_of(STEP)
    }

    fn parts(&self, rows: usize) -> usize {
        rows.div_ceil(self.each(rows))
    }

    /// Numbers of working memory that [`gradient`](Self::gradient) needs for up to `n` maps of `h` by `w`.
    pub fn workspace(&self, [n, h, w]: [usize; 3]) -> usize {
        let rows = n.saturating_mul(h).saturating_mul(w);
        // Fewer pixels may make more parts, but no more than wanted and no shorter ones than possible.
        let most = self.wanted(self.tile().1).min(rows.div_ceil(PART.0));
        self.parts(rows).max(most).saturating_mul(self.numbers())
    }

    /// The gradient of the weight into `out`, from the input `x` `[n, h, w, inputs]` and the outputs' gradient `g` `[n, h, w, outputs]`;
    /// with `add` it is added to what is there. In parts of the pixels, added up in order: the same bits on the same chip.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a buffer without room; the device's.
    pub fn gradient(
        &self,
        [n, h, w]: [usize; 3],
        x: &Buffer<f32>,
        g: &Buffer<f32>,
        work: &mut Buffer<f32>,
        out: &mut Buffer<f32>,
        add: bool,
    ) -> CudaResult<()> {
        const OP: &str = "gradient of a convolution";
        let [c, o] = self.channels();
        room::<f32>(OP, [n, h, w, c], x.len())?;
        room::<f32>(OP, [n, h, w, o], g.len())?;
        self.check(OP, out.len())?;
        let rows = n * h * w;
        let (parts, (kernel, tile)) = (self.parts(rows), self.tile());
        room::<f32>(OP, [1, 1, parts, self.numbers()], work.len())?;
        let launch = self.cuda.launch(WINDOW, kernel)?.input(x).input(g).output(work);
        let launch = launch.int(rows).int(h).int(w).int(c).int(o).int(self.side()).int(self.each(rows));
        // SAFETY: both maps have n h w pixels, of which `parts` times `each` are all; windows are read inside their map alone; there
        // is room for a weight for each part.
        unsafe { launch.run((grid(self.tiles(tile), 1), grid(parts, 1)), THREADS, 16_384) }?;
        let launch = self.cuda.launch(WINDOW, "window_sum")?.input(work).output(out).int(self.numbers()).int(parts);
        // SAFETY: `parts` weights were written; one thread for each number of `out`.
        unsafe { launch.int(usize::from(add)).run((grid(self.numbers(), THREADS as usize), 1), THREADS, 0) }?;
        Ok(())
    }

    /// The weight of [`back`](Self::back) from its own: turned by half a circle, inputs and outputs exchanged.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a buffer of another length; the device's.
    pub fn turn(&self, weight: &Buffer<f32>, out: &mut Buffer<f32>) -> CudaResult<()> {
        self.check(OP, weight.len())?;
        self.check(OP, out.len())?;
        let ([c, o], taps) = (self.channels(), self.side() * self.side());
        let launch = self.cuda.launch(WINDOW, "window_turn")?.input(weight).output(out).int(taps).int(c).int(o);
        // SAFETY: both are `taps` matrices of c o numbers, which blocks of 32 x 32 cover.
        unsafe { launch.run((grid(c.div_ceil(32) * o.div_ceil(32), 1), grid(taps, 1)), THREADS, 4224) }?;
        Ok(())
    }
}
