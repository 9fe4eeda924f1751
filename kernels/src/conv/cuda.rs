#![allow(unsafe_code)]
//! Convolutions on the GPU: dense ones as matrix products, and depthwise ones; in training, those of a [`Layer`].

use blemish_tensor::cuda::{Buffer, Cuda, Launch, Module};

pub use super::cuda_layer::{After, Layer};
use super::{Activation, ConvSpec};
use crate::KernelError;
use crate::cuda::element::{Element, room, wide};
use crate::cuda::{CONV, CONV_80, CudaResult, DEPTHWISE, THREADS, grid};
use crate::error::shape_error;

const OP: &str = "conv on a GPU";
/// Blocks of the elementwise kernels that walk over more rows than a grid has.
pub(crate) const ROWS: usize = 65_535;

/// A convolution with frozen weights, bias and activation whose maps and weights are on the GPU.
///
/// With `f32` the sums are single chains of fused multiply-adds; with fp16 (`u16`) tensor cores add up in `f32` and results
/// are rounded once, which wants compute capability 8.0. Dense (one group) and depthwise convolutions are possible. Maps are
/// `[n, h, w, wide(c)]`, see [`element`](crate::cuda::element).
pub struct Conv<T: Element> {
    cuda: Cuda,
    spec: ConvSpec,
    activation: Activation,
    bias: Buffer<f32>,
    weights: Weights<T>,
}

enum Weights<T: Element> {
    /// `[kh kw c, o]` in `f32`, or fp16 `[o, depth]`, `depth` being kh kw c padded to [`DEPTH`].
    Dense { weight: Buffer<T>, depth: usize },
    /// `[kh kw, c]`.
    Depthwise(Buffer<f32>),
}

/// Steps of the depth of the tensor cores' tile.
const DEPTH: usize = 32;

/// A tile of outputs that a block makes.
struct Tile {
    kernel: &'static str,
    /// Pixels and channels of a block.
    rows: usize,
    columns: usize,
    threads: u32,
    shared: u32,
}

impl<T: Element> std::fmt::Debug for Conv<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conv").field("spec", &self.spec).field("activation", &self.activation).finish_non_exhaustive()
    }
}

impl<T: Element> Conv<T> {
    /// Packs `weight` `[out, in / groups, kernel height, kernel width]` and `bias` `[out]`, and copies them to the GPU.
    ///
    /// # Errors
    /// [`KernelError::Shape`] or [`KernelError::Parameter`] where the spec contradicts itself, a length does not fit it, or its
    /// groups are neither 1 nor one for each channel; [`KernelError::Parameter`] for fp16 on a chip before 8.0; the device's.
    pub fn new(cuda: &Cuda, spec: ConvSpec, weight: &[f32], bias: &[f32], activation: Activation) -> CudaResult<Self> {
        spec.validate()?;
        if weight.len() != spec.weight_len() || bias.len() != spec.out_channels {
            let wanted = format!("{} weights and {} biases", spec.weight_len(), spec.out_channels);
            return Err(shape_error(OP, wanted, (weight.len(), bias.len())).into());
        }
        let refuse = |what: String| Err(KernelError::Parameter { op: OP, what }.into());
        let depthwise = spec.groups == spec.in_channels && spec.groups == spec.out_channels;
        if spec.groups != 1 && !depthwise {
            return refuse(format!("1 group, or one for each channel: {spec:?}"));
        }
        if T::LANES == 8 && cuda.info().capability < (8, 0) {
            return refuse(format!("fp16 needs compute capability 8.0; this is {}", cuda.info()));
        }
        let (c, o) = (wide::<T>(spec.group_inputs()), wide::<T>(spec.out_channels));
        room::<T>(OP, [spec.kernel[0], spec.kernel[1] + DEPTH, c, o], usize::MAX)?;
        let weights = if depthwise && spec.groups > 1 {
            let each = spec.kernel[0] * spec.kernel[1];
            let mut packed = vec![0.0; each * o];
            for (channel, taps) in weight.chunks_exact(each).enumerate() {
                taps.iter().enumerate().for_each(|(tap, v)| packed[tap * o + channel] = *v);
            }
            Weights::Depthwise(cuda.upload(&packed)?)
        } else {
            let (depth, packed) = pack::<T>(&spec, weight);
            Weights::Dense { weight: cuda.upload(&packed)?, depth }
        };
        let mut wide_bias = bias.to_vec();
        wide_bias.resize(o, 0.0);
        Ok(Conv { cuda: cuda.clone(), spec, activation, bias: cuda.upload(&wide_bias)?, weights })
    }

    /// The shape it was built with.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Height and width of the output for maps of `h` by `w`.
    ///
    /// # Errors
    /// Where the padded map is smaller than the kernel.
    pub fn output_size(&self, h: usize, w: usize) -> Result<(usize, usize), KernelError> {
        self.spec.output_size(h, w)
    }

    /// `output[n, oh, ow, out] = activation(conv(input[n, h, w, in]) + bias + residual[n, oh, ow, out])`; buffers may be longer
    /// than their maps.
    ///
    /// # Errors
    /// [`KernelError::Shape`] where a buffer is too short or a map has 2^31 numbers; the device's.
    pub fn forward(
        &self,
        input: &Buffer<T>,
        [n, h, w]: [usize; 3],
        residual: Option<&Buffer<T>>,
        output: &mut Buffer<T>,
    ) -> CudaResult<()> {
        let (cuda, spec) = (&self.cuda, &self.spec);
        let weight = match &self.weights {
            Weights::Dense { weight, depth } => {
                let own = Dense { weight, depth: *depth, bias: &self.bias, code: code(self.activation) };
                return dense(cuda, spec, &own, input, [n, h, w], residual, output);
            }
            Weights::Depthwise(weight) => weight,
        };
        let [c, oh, ow, _] = sizes(spec, input, [n, h, w], residual, output)?;
        let launch = cuda.launch(DEPTHWISE, T::NAMES.depthwise)?.input(input).input(weight).input(&self.bias);
        let launch = match residual {
            Some(map) => launch.input(map),
            None => launch.null(),
        };
        let launch = launch.output(output).int(n).int(h).int(w).int(c).int(oh).int(ow);
        let launch = window(spec, launch).int(code(self.activation));
        // Pixels side by side of a thread, as in `depthwise.cu`.
        let beside = match (spec.kernel[1], spec.stride[1]) {
            (3, 1) => 4,
            (3 | 5, 1 | 2) => 2,
            _ => 1,
        };
        let blocks = (grid(ow.div_ceil(beside) * (c / T::LANES), THREADS as usize), (n * oh).min(ROWS) as u32);
        // SAFETY: windows read inside the map of n h w c; weights are kh kw c, bias c; one thread for each piece of a row of
        // the output, which has n oh of them.
        unsafe { launch.run(blocks, THREADS, 0) }?;
        Ok(())
    }
}

/// What a dense convolution does: packed weights, their depth, the bias, and the number of the activation.
pub(super) struct Dense<'a, T: Element> {
    pub(super) weight: &'a Buffer<T>,
    pub(super) depth: usize,
    pub(super) bias: &'a Buffer<f32>,
    pub(super) code: usize,
}

/// Channels in, height, width and channels of the output, if there is room for all of it.
fn sizes<T: Element>(
    spec: &ConvSpec,
    input: &Buffer<T>,
    [n, h, w]: [usize; 3],
    residual: Option<&Buffer<T>>,
    output: &Buffer<T>,
) -> CudaResult<[usize; 4]> {
    let (oh, ow) = spec.output_size(h, w)?;
    let (c, o) = (wide::<T>(spec.in_channels), wide::<T>(spec.out_channels));
    room::<T>(OP, [n, h, w, c], input.len())?;
    // Kernels count from where a window begins, which may be in the border.
    room::<T>(OP, [n, h + spec.kernel[0], w + spec.kernel[1], c], usize::MAX)?;
    for len in [Some(output.len()), residual.map(Buffer::len)].into_iter().flatten() {
        room::<T>(OP, [n, oh, ow, o], len)?;
    }
    Ok([c, oh, ow, o])
}

/// A dense convolution; the weights have the packed length of `spec`, the bias its stored channels, as the caller sees to.
pub(super) fn dense<T: Element>(
    cuda: &Cuda,
    spec: &ConvSpec,
    own: &Dense<'_, T>,
    input: &Buffer<T>,
    [n, h, w]: [usize; 3],
    residual: Option<&Buffer<T>>,
    output: &mut Buffer<T>,
) -> CudaResult<()> {
    let [c, oh, ow, o] = sizes(spec, input, [n, h, w], residual, output)?;
    let m = n * oh * ow;
    let module = if T::LANES == 8 { CONV_80 } else { CONV };
    let tile = tile::<T>(cuda, spec, module, m, o)?;
    let launch = cuda.launch(module, tile.kernel)?.input(input).input(own.weight).input(own.bias);
    let launch = match residual {
        Some(map) => launch.input(map),
        None => launch.null(),
    };
    let launch = launch.output(output).int(m).int(h).int(w).int(c).int(oh).int(ow).int(o);
    let launch = window(spec, launch);
    let launch = if T::LANES == 8 { launch.int(own.depth) } else { launch };
    let blocks = (grid(m, tile.rows), grid(o, tile.columns));
    // SAFETY: pixels and channels beyond m and o are neither read nor written; windows read inside the map of
    // n h w c; the packed weights have kh kw c (or `depth`, a multiple of 32) times o numbers.
    unsafe { launch.int(own.code).run(blocks, tile.threads, tile.shared) }?;
    Ok(())
}

fn window<'a>(spec: &ConvSpec, launch: Launch<'a>) -> Launch<'a> {
    let ConvSpec { kernel, stride, padding, .. } = spec;
    launch.int(kernel[0]).int(kernel[1]).int(stride[0]).int(stride[1]).int(padding[0]).int(padding[1])
}

/// The large tile where it gives every multiprocessor a block.
fn tile<T: Element>(cuda: &Cuda, spec: &ConvSpec, module: Module, m: usize, o: usize) -> CudaResult<Tile> {
    let point = spec.kernel == [1, 1] && spec.stride == [1, 1];
    let blocks = m.div_ceil(128) * o.div_ceil(128);
    let large = o > 64 && blocks >= cuda.info().multiprocessors as usize;
    if T::LANES != 8 {
        let (kernel, side) = if large { ("conv_f32_128", 128) } else { ("conv_f32_64", 64) };
        return Ok(Tile { kernel, rows: side, columns: side, threads: 256, shared: 16_896 });
    }
    let name = if large { "CONV_LARGE" } else { "CONV_SMALL" };
    let [down, across, high, wide] = cuda.parameter(module, name)?;
    let [stages] = cuda.parameter(module, "CONV_STAGES")?;
    let (rows, columns) = (down * high * 16, across * wide * 8);
    let kernel = match (point, large) {
        (true, true) => "conv_f16_point_128",
        (true, false) => "conv_f16_point_64",
        (false, true) => "conv_f16_128",
        (false, false) => "conv_f16_64",
    };
    let (threads, shared) = ((down * across * 32) as u32, (stages * (rows + columns) * 2 * DEPTH) as u32);
    Ok(Tile { kernel, rows, columns, threads, shared })
}

/// Weights `[o, c, kh, kw]` in the order of a dense kernel, channels padded with zeros, and the depth.
pub(super) fn pack<T: Element>(spec: &ConvSpec, weight: &[f32]) -> (usize, Vec<T>) {
    let (c, o) = (wide::<T>(spec.in_channels), wide::<T>(spec.out_channels));
    let taps = spec.kernel[0] * spec.kernel[1];
    let transposed = T::LANES == 8;
    let depth = if transposed { (taps * c).next_multiple_of(DEPTH) } else { taps * c };
    let mut packed = vec![T::default(); depth * o];
    for (out, filter) in weight.chunks_exact(spec.in_channels * taps).enumerate() {
        for (channel, row) in filter.chunks_exact(taps).enumerate() {
            for (tap, &value) in row.iter().enumerate() {
                let k = tap * c + channel;
                packed[if transposed { out * depth + k } else { k * o + out }] = T::from_f32(value);
            }
        }
    }
    (depth, packed)
}

/// The number of the activation that makes of the residual a mask.
pub(super) const MASK: usize = 7;

/// The number kernels know an activation by.
pub(crate) fn code(activation: Activation) -> usize {
    match activation {
        Activation::None => 0,
        Activation::Relu => 1,
        Activation::Relu6 => 2,
        Activation::HardSwish => 3,
        Activation::Silu => 4,
    }
}
