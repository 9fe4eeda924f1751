//! Products on a GPU, in `f32`. What fails there is `None`.

use blemish_kernels::conv::cuda::{After, Layer};
use blemish_kernels::cuda::CudaResult;
use blemish_kernels::cuda::element::{pack, unpack, wide};
use blemish_kernels::cuda::rows::{Half, HalfMut};
use blemish_kernels::product::cuda::{Back, Input, Weight};
use blemish_tensor::cuda::{Buffer, Cuda};

use super::{Products, Rows, Same};

impl Products {
    /// The GPU, for a product of so many multiply-adds.
    fn gpu(&self, sizes: &[usize]) -> Option<&Cuda> {
        let work = sizes.iter().fold(1usize, |work, n| work.saturating_mul(*n));
        self.device.as_cuda().filter(|_| work > 0 && work >= self.least)
    }

    fn rows(&self, Rows { rows, inputs, outputs }: Rows) -> Option<&Cuda> {
        self.gpu(&[rows, inputs, outputs])
    }

    fn same(&self, s: Same) -> Option<&Cuda> {
        let [n, h, w] = s.size;
        self.gpu(&[n, h, w, s.inputs, s.outputs, s.kernel, s.kernel])
    }

    /// `x W^T + bias`, `[rows, outputs]`.
    pub(crate) fn linear(&self, at: Rows, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Option<Vec<f32>> {
        let cuda = self.rows(at)?;
        let Rows { rows, inputs, outputs } = at;
        let product = || -> CudaResult<Vec<f32>> {
            let (weight, x) = (Weight::new(cuda, weight, [outputs, inputs], false)?, cuda.upload(x)?);
            let bias = match bias {
                Some(bias) => cuda.upload(bias)?,
                None => cuda.zeros(outputs)?,
            };
            let mut out = cuda.scratch(rows * outputs)?;
            let input = Input::one(Half { buffer: &x, pitch: inputs }, inputs);
            weight.forward_f32(rows, input, &bias, false, HalfMut { buffer: &mut out, pitch: outputs })?;
            Ok(out.read()?)
        };
        product().ok()
    }

    /// `g W`, `[rows, inputs]`.
    pub(crate) fn linear_input(&self, at: Rows, g: &[f32], weight: &[f32]) -> Option<Vec<f32>> {
        let cuda = self.rows(at)?;
        let Rows { rows, inputs, outputs } = at;
        let product = || -> CudaResult<Vec<f32>> {
            let (weight, g) = (Weight::new(cuda, weight, [outputs, inputs], false)?, cuda.upload(g)?);
            let mut out = cuda.scratch(rows * inputs)?;
            let to = HalfMut { buffer: &mut out, pitch: inputs };
            weight.backward(rows, inputs, Half { buffer: &g, pitch: outputs }, Back::default(), to)?;
            Ok(out.read()?)
        };
        product().ok()
    }

    /// `g^T x`, `[outputs, inputs]`, for this weight.
    pub(crate) fn linear_weight(&self, at: Rows, g: &[f32], x: &[f32], weight: &[f32]) -> Option<Vec<f32>> {
        let cuda = self.rows(at)?;
        let Rows { rows, inputs, outputs } = at;
        let product = || -> CudaResult<Vec<f32>> {
            let (x, g) = (cuda.upload(x)?, cuda.upload(g)?);
            let mut weight = Weight::new(cuda, weight, [outputs, inputs], false)?;
            let mut out = cuda.scratch(outputs * inputs)?;
            let input = Input::one(Half { buffer: &x, pitch: inputs }, inputs);
            weight.gradient(rows, Half { buffer: &g, pitch: outputs }, input, &mut out)?;
            Ok(out.read()?)
        };
        product().ok()
    }

    /// The output `[n, h, w, outputs]` for a map `x` and a weight `[outputs, inputs, k, k]`.
    pub(crate) fn conv(&self, at: Same, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Option<Vec<f32>> {
        let cuda = self.same(at)?;
        let product = || -> CudaResult<Vec<f32>> {
            let layer = Layer::new(cuda, at.inputs, at.outputs, at.kernel)?;
            let weight = cuda.upload(&layer.pack(weight)?)?;
            let mut padded = bias.map_or_else(|| vec![0.0; at.outputs], <[f32]>::to_vec);
            padded.resize(wide::<f32>(at.outputs), 0.0);
            let (x, bias) = (map(cuda, x, at.inputs)?, cuda.upload(&padded)?);
            let mut out = room(cuda, at, at.outputs)?;
            layer.forward(&x, at.size, (&weight, &bias), After::Nothing, &mut out)?;
            values(cuda, &out, at, at.outputs)
        };
        product().ok()
    }

    /// The gradient of the map `[n, h, w, inputs]` from that of the output.
    pub(crate) fn conv_input(&self, at: Same, g: &[f32], weight: &[f32]) -> Option<Vec<f32>> {
        let cuda = self.same(at)?;
        let product = || -> CudaResult<Vec<f32>> {
            let layer = Layer::new(cuda, at.inputs, at.outputs, at.kernel)?;
            let weight = cuda.upload(&layer.pack(weight)?)?;
            let mut turned = cuda.scratch(weight.len())?;
            layer.turn(&weight, &mut turned)?;
            let (g, bias) = (map(cuda, g, at.outputs)?, cuda.zeros(wide::<f32>(at.inputs))?);
            let mut out = room(cuda, at, at.inputs)?;
            layer.back().forward(&g, at.size, (&turned, &bias), After::Nothing, &mut out)?;
            values(cuda, &out, at, at.inputs)
        };
        product().ok()
    }

    /// The gradient of the weight `[outputs, inputs, k, k]` from that of the output and the map.
    pub(crate) fn conv_weight(&self, at: Same, g: &[f32], x: &[f32]) -> Option<Vec<f32>> {
        let cuda = self.same(at)?;
        let product = || -> CudaResult<Vec<f32>> {
            let layer = Layer::new(cuda, at.inputs, at.outputs, at.kernel)?;
            let (x, g) = (map(cuda, x, at.inputs)?, map(cuda, g, at.outputs)?);
            let (mut work, mut out) = (cuda.scratch(layer.workspace(at.size))?, cuda.scratch(layer.numbers())?);
            layer.gradient(at.size, &x, &g, &mut work, &mut out, false)?;
            layer.unpack(&out.read()?)
        };
        product().ok()
    }
}

/// `[pixels, c]` as a map on the GPU.
fn map(cuda: &Cuda, values: &[f32], c: usize) -> CudaResult<Buffer<f32>> {
    let values = cuda.upload(values)?;
    if wide::<f32>(c) == c {
        return Ok(values);
    }
    let pixels = values.len() / c;
    let mut map = cuda.scratch(pixels.saturating_mul(wide::<f32>(c)))?;
    pack(cuda, &values, [pixels, c], &mut map)?;
    Ok(map)
}

/// Room for a map of `c` channels.
fn room(cuda: &Cuda, at: Same, c: usize) -> CudaResult<Buffer<f32>> {
    let pixels = at.size.iter().fold(1usize, |pixels, n| pixels.saturating_mul(*n));
    Ok(cuda.scratch(pixels.saturating_mul(wide::<f32>(c)))?)
}

/// The numbers `[n, h, w, c]` of a map.
fn values(cuda: &Cuda, map: &Buffer<f32>, at: Same, c: usize) -> CudaResult<Vec<f32>> {
    if wide::<f32>(c) == c {
        return Ok(map.read()?);
    }
    Ok(unpack(cuda, map, [at.size.iter().product(), c])?.read()?)
}
