//! The pass through the network on a GPU: weights resident, buffers planned once for an input shape, launches recorded as one
//! graph.

use std::sync::{Mutex, PoisonError};

use blemish_kernels::conv::{Activation, ConvSpec, cuda::Conv};
use blemish_kernels::cuda::element::{Element, pack, unpack, wide};
use blemish_kernels::pool::cuda::{self as pool, SqueezeExcite, Work};
use blemish_tensor::cuda::{Buffer, Cuda, Recording};
use ndarray::Array4;

use crate::spec::{Gate, Graph, Op};
use crate::{BackboneError, Result};

use super::fold::{self, GateWeights, Maker, Step};
use super::plan::{Place, Plan};
use super::{Backbone, GpuPrecision};

/// A feature map `[n, h, w, c]` in a GPU's memory.
#[derive(Debug)]
pub struct GpuMap {
    values: Buffer<f32>,
    shape: [usize; 4],
}

impl GpuMap {
    /// The numbers, in the order of [`shape`](Self::shape).
    pub fn values(&self) -> &Buffer<f32> {
        &self.values
    }

    /// Pictures, height, width, channels.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// A copy in the CPU's memory, once the work before is done.
    ///
    /// # Errors
    /// [`BackboneError::Tensor`] for what went wrong on the GPU.
    pub fn download(&self) -> Result<Array4<f32>> {
        let mut map = Array4::zeros(self.shape);
        self.values.read_at(0, map.as_slice_mut().unwrap_or_default())?;
        Ok(map)
    }
}

impl Backbone {
    /// As [`features`](Backbone::features) for pictures that are on the GPU, `[n, h, w, 3]`; the maps stay there. Nothing waits
    /// for the GPU.
    ///
    /// # Errors
    /// As [`features`](Backbone::features), also without pictures; [`BackboneError::NoGpu`] if the network is not on a GPU;
    /// [`BackboneError::Gpu`] for a buffer of another length or on another GPU, or a map of 2^31 numbers or more.
    pub fn features_on_gpu(&self, pixels: &Buffer<f32>, [n, h, w]: [usize; 3]) -> Result<Vec<GpuMap>> {
        let sizes = self.sizes([n, h, w, 3])?;
        let Some(gpu) = &self.gpu else { return Err(BackboneError::NoGpu { net: self.net.id }) };
        if n == 0 {
            return Err(BackboneError::Input { net: self.net.id, wanted: "pictures".to_owned(), got: [n, h, w, 3] });
        }
        match gpu {
            Gpu::Single(network) => network.features(self, pixels, [n, h, w], &sizes),
            Gpu::Half(network) => network.features(self, pixels, [n, h, w], &sizes),
        }
    }
}

/// A network in a GPU's memory.
pub(super) enum Gpu {
    Single(Network<f32>),
    Half(Network<u16>),
}

impl Gpu {
    pub(super) fn new(backbone: &Backbone, cuda: &Cuda, precision: GpuPrecision) -> Result<Self> {
        Ok(match precision {
            GpuPrecision::Single => Gpu::Single(Network::new(backbone, cuda)?),
            GpuPrecision::Half => Gpu::Half(Network::new(backbone, cuda)?),
        })
    }

    pub(super) fn cuda(&self) -> &Cuda {
        match self {
            Gpu::Single(network) => &network.cuda,
            Gpu::Half(network) => &network.cuda,
        }
    }

    /// Fills `maps`, one for each layer, from `pixels` `[n, h, w, 3]`.
    pub(super) fn download(
        &self,
        backbone: &Backbone,
        pixels: &[f32],
        n: usize,
        [h, w]: [usize; 2],
        maps: &mut [&mut [f32]],
    ) -> Result<()> {
        for first in (0..n).step_by(PIECE) {
            let some = PIECE.min(n - first);
            let image = pixels.len() / n;
            let piece = self.cuda().upload(&pixels[first * image..][..some * image])?;
            for (map, found) in maps.iter_mut().zip(backbone.features_on_gpu(&piece, [some, h, w])?) {
                let each = map.len() / n;
                found.values.read_at(0, &mut map[first * each..][..some * each])?;
            }
        }
        Ok(())
    }
}

/// Most pictures of a host's batch that go through the network together.
const PIECE: usize = 32;
/// Input shapes whose buffers and recorded launches are kept.
const SHAPES: usize = 4;

pub(super) struct Network<T: Element> {
    cuda: Cuda,
    steps: Vec<Step<Conv<T>, SqueezeExcite<T>>>,
    /// The one used last at the end.
    passes: Mutex<Vec<Pass<T>>>,
}

/// Copies weights to the GPU.
struct Upload<'a, T>(&'a Cuda, std::marker::PhantomData<T>);

impl<T: Element> Maker for Upload<'_, T> {
    type Conv = Conv<T>;
    type Gate = SqueezeExcite<T>;

    fn conv(&self, _: usize, spec: ConvSpec, weight: &[f32], bias: &[f32], activation: Activation) -> Result<Conv<T>> {
        Ok(Conv::new(self.0, spec, weight, bias, activation)?)
    }

    fn gate(&self, weights: GateWeights<'_>) -> Result<SqueezeExcite<T>> {
        let gate = match weights.gate {
            Gate::SiluSigmoid => pool::Gate::SiluSigmoid,
            Gate::ReluHardSigmoid => pool::Gate::ReluHardSigmoid,
        };
        let size = [weights.channels, weights.reduced];
        Ok(SqueezeExcite::new(self.0, size, weights.reduce, weights.expand, gate)?)
    }
}

impl<T: Element> Network<T> {
    fn new(backbone: &Backbone, cuda: &Cuda) -> Result<Self> {
        let maker = Upload::<T>(cuda, std::marker::PhantomData);
        let steps = fold::steps(backbone.net.id, &backbone.graph, &backbone.weights, &maker)?;
        Ok(Network { cuda: cuda.clone(), steps, passes: Mutex::default() })
    }

    fn features(
        &self,
        backbone: &Backbone,
        pixels: &Buffer<f32>,
        [n, h, w]: [usize; 3],
        sizes: &[[usize; 2]],
    ) -> Result<Vec<GpuMap>> {
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = passes.iter().position(|pass| pass.plan.n == n && pass.plan.sizes.first() == Some(&[h, w]));
        let mut pass = match known {
            Some(at) => passes.remove(at),
            None => {
                if passes.len() >= SHAPES {
                    passes.remove(0);
                }
                Pass::new(&self.cuda, &backbone.graph, &backbone.taps, n, [h, w])?
            }
        };
        pack(&self.cuda, pixels, [n * h * w, 3], &mut pass.input)?;
        match &pass.recording {
            Some(recording) => recording.replay()?,
            None => {
                // As they are, so that every kernel is loaded; then once more for the recording.
                pass.run(&self.steps)?;
                pass.recording = Some(self.cuda.record(|| pass.run(&self.steps))?);
            }
        }
        let mut maps = Vec::with_capacity(backbone.taps.len());
        for ((&node, layer), output) in backbone.taps.iter().zip(&backbone.layers).zip(pass.outputs.iter().flatten()) {
            let [h, w] = sizes[node];
            let values = unpack(&self.cuda, output, [n * h * w, layer.channels])?;
            maps.push(GpuMap { values, shape: [n, h, w, layer.channels] });
        }
        passes.push(pass);
        Ok(maps)
    }
}

/// Buffers for one input shape. Each is `None` only while something is written into it.
struct Pass<T: Element> {
    plan: Plan,
    input: Buffer<T>,
    slots: Vec<Option<Buffer<T>>>,
    outputs: Vec<Option<Buffer<T>>>,
    work: Work,
    recording: Option<Recording>,
}

impl<T: Element> Pass<T> {
    fn new(cuda: &Cuda, graph: &Graph, taps: &[usize], n: usize, size: [usize; 2]) -> Result<Self> {
        let plan = Plan::new(graph, taps, n, size, T::LANES, |_, _| 0)?;
        let floats = |id: usize| n * plan.sizes[id][0] * plan.sizes[id][1] * wide::<T>(plan.channels[id]);
        let some = |numbers: usize| -> Result<Option<Buffer<T>>> { Ok(Some(cuda.scratch(numbers)?)) };
        let slots = plan.slots.iter().map(|&numbers| some(numbers)).collect::<Result<_>>()?;
        let outputs = taps.iter().map(|&tap| some(floats(tap))).collect::<Result<_>>()?;
        let (mut channels, mut most) = (1, 1);
        for node in &graph.nodes {
            if let Op::SqueezeExcite { reduced, .. } = node.op {
                (channels, most) = (node.channels.max(channels), reduced.max(most));
            }
        }
        let work = Work::new(cuda, n, channels, most)?;
        Ok(Pass { input: cuda.scratch(floats(0))?, plan, slots, outputs, work, recording: None })
    }

    /// Launches every step, from `input` to `outputs`.
    fn run(&mut self, steps: &[Step<Conv<T>, SqueezeExcite<T>>]) -> Result<()> {
        let Pass { plan, input: first, slots, outputs, work, .. } = self;
        let n = plan.n;
        for (id, step) in steps.iter().enumerate() {
            let (input, place) = (plan.inputs[id], plan.places[id]);
            let [h, w] = plan.sizes[input];
            // The target leaves its list, so that the others can be read meanwhile.
            let mut target = match place {
                Place::Input => continue,
                Place::Slot(s) => slots[s].take(),
                Place::Output(o) => outputs[o].take(),
            };
            let map = |id: usize| match plan.places[id] {
                Place::Input => Some(&*first),
                Place::Slot(s) => slots[s].as_ref(),
                Place::Output(o) => outputs[o].as_ref(),
            };
            let done = match (&mut target, map(input), step) {
                (_, _, Step::Input) => Ok(()),
                (Some(target), Some(from), Step::Conv { conv, residual }) => {
                    conv.forward(from, [n, h, w], residual.and_then(map), target)
                }
                (Some(target), Some(from), Step::MaxPool(spec)) => {
                    pool::max_pool(first.cuda(), from, [n, h, w, plan.channels[input]], spec, target)
                }
                // Its input is the target itself, or another map.
                (Some(target), from, Step::SqueezeExcite(se)) => se.apply(from, target, [n, h * w], work),
                _ => Ok(()),
            };
            match place {
                Place::Input => {}
                Place::Slot(s) => slots[s] = target,
                Place::Output(o) => outputs[o] = target,
            }
            done?;
        }
        Ok(())
    }
}
