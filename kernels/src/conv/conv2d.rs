use super::cpu_depthwise::Depthwise;
use super::cpu_winograd::Winograd;
use super::dense::Dense;
use super::direct::{self, DirectWeights};
use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::error::{KernelError, Result, shape_error};
use crate::gemm::Isa;

/// Most values of an image: offsets into it, padding included, are 32 bits wide.
const LARGEST: usize = 1 << 30;

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// One channel a group.
    Depthwise,
    /// Winograd F(4x4, 3x3).
    Winograd,
    /// A matrix product over pieces of the input.
    Pieces,
    /// The plain loop.
    Direct,
}

#[derive(Debug, Clone)]
enum Weights {
    Depthwise(Depthwise),
    Winograd(Winograd),
    Pieces(Dense),
    Direct(DirectWeights),
}

/// A convolution with frozen weights, bias and activation, on maps `[n, h, w, c]`.
#[derive(Debug, Clone)]
pub struct Conv2d {
    spec: ConvSpec,
    bias: Vec<f32>,
    activation: Activation,
    weights: Weights,
}

impl Conv2d {
    /// Packs `weight`, `[out, in / groups, kernel height, kernel width]`, and `bias`, `[out]`.
    ///
    /// # Errors
    /// Where the spec contradicts itself or a length does not fit it.
    pub fn new(spec: ConvSpec, weight: &[f32], bias: &[f32], activation: Activation) -> Result<Self> {
        spec.validate()?;
        let depthwise = spec.groups == spec.in_channels && spec.groups == spec.out_channels;
        let algorithm = if depthwise {
            Algorithm::Depthwise
        } else if spec.groups != 1 {
            Algorithm::Direct
        } else if Winograd::fits(&spec) && spec.in_channels >= 16 && spec.out_channels >= 16 {
            Algorithm::Winograd
        } else {
            Algorithm::Pieces
        };
        Conv2d::with_algorithm(spec, weight, bias, activation, algorithm, Isa::best())
    }

    /// As [`new`](Self::new), with a chosen algorithm and instruction set.
    ///
    /// # Errors
    /// As [`new`](Self::new), or an algorithm that cannot do this convolution, or instructions this processor lacks.
    pub fn with_algorithm(
        spec: ConvSpec,
        weight: &[f32],
        bias: &[f32],
        activation: Activation,
        algorithm: Algorithm,
        isa: Isa,
    ) -> Result<Self> {
        spec.validate()?;
        if weight.len() != spec.weight_len() {
            return Err(shape_error("conv", format!("{} weights", spec.weight_len()), weight.len()));
        }
        if bias.len() != spec.out_channels {
            return Err(shape_error("conv", format!("{} biases", spec.out_channels), bias.len()));
        }
        let depthwise = spec.groups == spec.in_channels && spec.groups == spec.out_channels;
        let possible = match algorithm {
            Algorithm::Depthwise => depthwise,
            Algorithm::Winograd => Winograd::fits(&spec),
            Algorithm::Pieces => spec.groups == 1,
            Algorithm::Direct => true,
        };
        if !possible || !Isa::available().contains(&isa) {
            return Err(KernelError::Parameter {
                op: "conv",
                what: format!("{algorithm:?} with {isa:?} for {spec:?}"),
            });
        }
        let weights = match algorithm {
            Algorithm::Depthwise => Weights::Depthwise(Depthwise::new(isa, &spec, weight)),
            Algorithm::Winograd => Weights::Winograd(Winograd::new(isa, &spec, weight)),
            Algorithm::Pieces => Weights::Pieces(Dense::new(isa, &spec, weight)),
            Algorithm::Direct => Weights::Direct(DirectWeights::new(&spec, weight)),
        };
        Ok(Self { spec, bias: bias.to_vec(), activation, weights })
    }

    /// The shape it was built with.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// How it is computed.
    pub fn algorithm(&self) -> Algorithm {
        match self.weights {
            Weights::Depthwise(_) => Algorithm::Depthwise,
            Weights::Winograd(_) => Algorithm::Winograd,
            Weights::Pieces(_) => Algorithm::Pieces,
            Weights::Direct(_) => Algorithm::Direct,
        }
    }

    /// Height and width of the output for maps of `h` by `w`.
    ///
    /// # Errors
    /// Where the padded map is smaller than the kernel.
    pub fn output_size(&self, h: usize, w: usize) -> Result<(usize, usize)> {
        self.spec.output_size(h, w)
    }

    /// Length of the scratch, in `f32`, that [`forward`](Self::forward) wants for `n` maps of `h` by `w` in the current
    /// rayon pool. In a larger pool the same scratch will do, but not all threads may have a part of it.
    pub fn workspace(&self, n: usize, h: usize, w: usize) -> usize {
        let Some(out) = self.output_size(h, w).ok().filter(|_| n > 0) else { return 0 };
        match &self.weights {
            Weights::Winograd(weights) => weights.workspace(&self.spec, n, out),
            Weights::Pieces(weights) => weights.workspace(&self.spec, (h, w)),
            Weights::Depthwise(_) | Weights::Direct(_) => 0,
        }
    }

    /// The least scratch, with which one thread can work.
    fn least_workspace(&self, n: usize, h: usize, w: usize) -> usize {
        match (&self.weights, self.output_size(h, w)) {
            (Weights::Winograd(weights), Ok(out)) if n > 0 => weights.least(&self.spec, n, out),
            _ => self.workspace(n, h, w),
        }
    }

    /// `output[n, oh, ow, out] = activation(conv(input[n, h, w, in]) + bias + residual[n, oh, ow, out])`.
    ///
    /// # Errors
    /// Where a length does not fit.
    pub fn forward(
        &self,
        input: &[f32],
        n: usize,
        h: usize,
        w: usize,
        residual: Option<&[f32]>,
        output: &mut [f32],
        workspace: &mut [f32],
        par: Par,
    ) -> Result<()> {
        let (oh, ow) = self.output_size(h, w)?;
        let image = h * w * self.spec.in_channels;
        let out = oh * ow * self.spec.out_channels;
        if Some(input.len()) != n.checked_mul(image) || image >= LARGEST {
            return Err(shape_error("conv", format!("input of {n} x {image}, below {LARGEST} an image"), input.len()));
        }
        for (what, len) in [("output", Some(output.len())), ("residual", residual.map(<[f32]>::len))] {
            if len.is_some_and(|len| Some(len) != n.checked_mul(out)) {
                return Err(shape_error("conv", format!("{what} of {n} x {out}"), len));
            }
        }
        let least = self.least_workspace(n, h, w);
        if workspace.len() < least {
            return Err(shape_error("conv", format!("workspace of {least}"), workspace.len()));
        }
        if n == 0 {
            return Ok(());
        }
        if let Weights::Winograd(x) = &self.weights {
            let (spec, bias, size) = (&self.spec, self.bias.as_slice(), (h, w));
            let (to, activation) = ((oh, ow), self.activation);
            x.forward(spec, bias, activation, input, n, size, to, residual, output, workspace, par);
            return Ok(());
        }
        let images = input.chunks_exact(image).zip(output.chunks_exact_mut(out)).enumerate();
        for (i, (input, output)) in images {
            let residual = residual.map(|r| &r[i * out..][..out]);
            let (spec, bias, activation) = (&self.spec, self.bias.as_slice(), self.activation);
            let (size, to) = ((h, w), (oh, ow));
            match &self.weights {
                Weights::Depthwise(d) => d.forward(spec, bias, activation, input, size, to, residual, output, par),
                Weights::Winograd(_) => {}
                Weights::Pieces(d) => {
                    d.forward(spec, bias, activation, input, size, to, residual, output, workspace, par);
                }
                Weights::Direct(d) => direct::image(spec, d, bias, activation, input, size, ow, residual, output, par),
            }
        }
        Ok(())
    }
}
