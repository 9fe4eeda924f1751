use super::cost::winograd_pays;
use super::cpu_depthwise::Depthwise;
use super::cpu_winograd::Winograd;
use super::dense::{Dense, Fill};
use super::direct::{self, DirectWeights};
use super::quantise::Levels;
use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::error::{KernelError, Result, shape_error};
use crate::gemm::{Brain, Byte, Element, Isa, Single, same, same_mut};

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
    /// Winograd F(2x2, 3x3): a smaller saving, and less error than the plain sum has.
    WinogradSmall,
    /// A matrix product over pieces of the input.
    Pieces,
    /// The plain loop.
    Direct,
    /// As `Pieces`, on weights and maps in bf16, summed in `f32`.
    PiecesBf16,
    /// As `Pieces`, on weights and maps rounded to bytes, summed in whole numbers.
    PiecesInt8,
}

#[derive(Debug, Clone)]
enum Weights {
    Depthwise(Depthwise),
    Winograd(Winograd),
    Pieces(Dense<Single>),
    Direct(DirectWeights),
    Bf16(Dense<Brain>),
    Int8(Dense<Byte>),
}

/// What a convolution reads and writes.
pub struct Maps<'a, E> {
    pub(crate) input: &'a [E],
    /// Maps, and height and width of each.
    pub(crate) size: [usize; 3],
    pub(crate) residual: Option<&'a [E]>,
    pub(crate) output: &'a mut [E],
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
        } else if winograd_pays(&spec, 1.0) {
            Algorithm::Winograd
        } else {
            Algorithm::Pieces
        };
        Conv2d::with_algorithm(spec, weight, bias, activation, algorithm, Isa::best())
    }

    /// A convolution for maps in bf16, which [`forward_in`](Self::forward_in) takes; `None` where the processor lacks the
    /// instructions. Sums are in `f32` throughout.
    ///
    /// Dense convolutions round their weights to bf16, but for those with a 3x3 kernel at stride 1 for which Winograd in
    /// `f32` is faster; depthwise ones keep `f32`.
    ///
    /// # Errors
    /// As [`new`](Self::new), and where there are groups of several channels.
    pub fn bf16(spec: ConvSpec, weight: &[f32], bias: &[f32], activation: Activation) -> Result<Option<Self>> {
        spec.validate()?;
        let Some(isa) = Isa::bf16() else { return Ok(None) };
        let algorithm = if spec.groups == spec.in_channels && spec.groups == spec.out_channels {
            Algorithm::Depthwise
        } else if winograd_pays(&spec, 1.5) {
            Algorithm::Winograd
        } else {
            Algorithm::PiecesBf16
        };
        Conv2d::with_algorithm(spec, weight, bias, activation, algorithm, isa).map(Some)
    }

    /// A convolution in whole numbers, on maps in `f32` that are rounded to `levels` on the way in. The weights of each output
    /// channel are rounded to 255 levels of their own; sums are exact. The result is the same on every processor.
    ///
    /// # Errors
    /// As [`new`](Self::new), for other convolutions than dense ones, and where sums could pass 32 bits (above 66,000 inputs).
    pub fn int8(
        spec: ConvSpec,
        weight: &[f32],
        bias: &[f32],
        activation: Activation,
        levels: Levels,
        isa: Isa,
    ) -> Result<Self> {
        check(&spec, weight, bias)?;
        let available = isa.is_available() && matches!(isa, Isa::Portable | Isa::Avx2 | Isa::Avx512Vnni);
        if spec.groups != 1 || spec.weight_len() / spec.out_channels > 66_000 || !available {
            let what = format!("{:?} with {isa:?} for {spec:?}", Algorithm::PiecesInt8);
            return Err(KernelError::Parameter { op: "conv", what });
        }
        let weights = Weights::Int8(Dense::<Byte>::new(isa, &spec, weight, levels));
        Ok(Self { spec, bias: bias.to_vec(), activation, weights })
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
        check(&spec, weight, bias)?;
        let depthwise = spec.groups == spec.in_channels && spec.groups == spec.out_channels;
        let possible = match algorithm {
            Algorithm::Depthwise => depthwise,
            Algorithm::Winograd | Algorithm::WinogradSmall => Winograd::fits(&spec),
            Algorithm::Pieces => spec.groups == 1,
            Algorithm::Direct => true,
            Algorithm::PiecesBf16 => spec.groups == 1 && matches!(isa, Isa::Portable | Isa::Avx512Bf16),
            Algorithm::PiecesInt8 => false,
        };
        if !possible || !isa.is_available() {
            return Err(KernelError::Parameter {
                op: "conv",
                what: format!("{algorithm:?} with {isa:?} for {spec:?}"),
            });
        }
        let weights = match algorithm {
            Algorithm::Depthwise => Weights::Depthwise(Depthwise::new(isa, &spec, weight)),
            Algorithm::Winograd => Weights::Winograd(Winograd::new(isa, 4, &spec, weight)),
            Algorithm::WinogradSmall => Weights::Winograd(Winograd::new(isa, 2, &spec, weight)),
            Algorithm::Pieces => Weights::Pieces(Dense::<Single>::new(isa, &spec, weight)),
            Algorithm::PiecesBf16 => Weights::Bf16(Dense::<Brain>::new(isa, &spec, weight)),
            Algorithm::Direct | Algorithm::PiecesInt8 => Weights::Direct(DirectWeights::new(&spec, weight)),
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
            Weights::Winograd(ref winograd) if winograd.side() == 2 => Algorithm::WinogradSmall,
            Weights::Winograd(_) => Algorithm::Winograd,
            Weights::Pieces(_) => Algorithm::Pieces,
            Weights::Direct(_) => Algorithm::Direct,
            Weights::Bf16(_) => Algorithm::PiecesBf16,
            Weights::Int8(_) => Algorithm::PiecesInt8,
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
            Weights::Pieces(weights) => weights.workspace(self.spec.in_channels, (h, w)),
            Weights::Bf16(weights) => weights.workspace(self.spec.in_channels, (h, w)),
            Weights::Int8(weights) => weights.workspace(self.spec.in_channels, (h, w)),
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
    /// Where a length does not fit, or for a convolution on maps in bf16.
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
        self.forward_in(input, n, h, w, residual, output, workspace, par)
    }

    /// As [`forward`](Self::forward), on maps of `f32` or bf16. Depthwise convolutions, the plain loop and Winograd take
    /// either; `Pieces` and `PiecesInt8` take `f32`, `PiecesBf16` takes bf16.
    ///
    /// # Errors
    /// Where a length does not fit, or the maps are of the other kind.
    pub fn forward_in<E: Element>(
        &self,
        input: &[E],
        n: usize,
        h: usize,
        w: usize,
        residual: Option<&[E]>,
        output: &mut [E],
        workspace: &mut [f32],
        par: Par,
    ) -> Result<()> {
        E::convolve(self, Maps { input, size: [n, h, w], residual, output }, workspace, par)
    }

    pub(crate) fn run<E: Element>(&self, maps: Maps<'_, E>, workspace: &mut [f32], par: Par) -> Result<()> {
        let Maps { input, size: [n, h, w], residual, output } = maps;
        let (oh, ow) = self.output_size(h, w)?;
        let image = h * w * self.spec.in_channels;
        let out = oh * ow * self.spec.out_channels;
        if Some(input.len()) != n.checked_mul(image) || image >= LARGEST {
            return Err(shape_error("conv", format!("input of {n} x {image}, below {LARGEST} an image"), input.len()));
        }
        for (what, len) in [("output", Some(output.len())), ("residual", residual.map(<[E]>::len))] {
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
                Weights::Direct(d) => direct::image(spec, d, bias, activation, input, size, ow, residual, output, par),
                Weights::Pieces(d) => dense(d, self, input, size, to, residual, output, workspace, par)?,
                Weights::Bf16(d) => dense(d, self, input, size, to, residual, output, workspace, par)?,
                Weights::Int8(d) => dense(d, self, input, size, to, residual, output, workspace, par)?,
            }
        }
        Ok(())
    }
}

fn check(spec: &ConvSpec, weight: &[f32], bias: &[f32]) -> Result<()> {
    spec.validate()?;
    if weight.len() != spec.weight_len() {
        return Err(shape_error("conv", format!("{} weights", spec.weight_len()), weight.len()));
    }
    if bias.len() != spec.out_channels {
        return Err(shape_error("conv", format!("{} biases", spec.out_channels), bias.len()));
    }
    Ok(())
}

/// One image through a dense convolution, if the maps are those it takes.
fn dense<P: Fill, E: Element>(
    weights: &Dense<P>,
    conv: &Conv2d,
    input: &[E],
    size: (usize, usize),
    to: (usize, usize),
    residual: Option<&[E]>,
    output: &mut [E],
    workspace: &mut [f32],
    par: Par,
) -> Result<()> {
    let (Some(input), Some(output)) = (same::<E, P::Map>(input), same_mut::<E, P::Map>(output)) else {
        let what = format!("maps of the other kind for {:?}", conv.algorithm());
        return Err(KernelError::Parameter { op: "conv", what });
    };
    let residual = residual.and_then(same::<E, P::Map>);
    let (channels, bias) = (conv.spec.in_channels, conv.bias.as_slice());
    weights.forward(channels, bias, conv.activation, input, size, to, residual, output, workspace, par);
    Ok(())
}
