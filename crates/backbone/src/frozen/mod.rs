//! A network ready to run: batch norm folded, activations fused, buffers planned.
//!
//! | file | what it holds |
//! |---|---|
//! | `device.rs` | which device computes |
//! | `fold.rs` | convolutions and gates with the batch norm folded in |
//! | `gpu.rs` | the pass through the network on a GPU (feature `cuda`) |
//! | `precision.rs` | what it computes in |
//! | `plan.rs` | sizes of all maps for one input size, and which buffer each lies in |
//! | `run.rs` | the pass through the network |
//! | `stages.rs` | a network with maps in bf16, but for its first layers |

mod device;
mod fold;
#[cfg(feature = "cuda")]
mod gpu;
mod plan;
mod precision;
mod run;
mod stages;

use std::sync::{Mutex, OnceLock, PoisonError};

use blemish_kernels::Par;
use blemish_kernels::conv::Algorithm;
use blemish_tensor::Tensor;
use ndarray::{Array4, ArrayView4, Axis};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::catalogue::Net;
use crate::spec::Graph;
use crate::weights::WeightSet;
use crate::{BackboneError, Result};

pub use device::GpuPrecision;
#[cfg(feature = "cuda")]
pub use gpu::GpuMap;
pub use precision::{Precision, Ranges};

use fold::{Cpu, Kind, Step};
use run::{Arena, Witness};
use stages::Halves;

/// One layer of a [`Backbone`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// timm's name.
    pub name: String,
    /// Channels of its map.
    pub channels: usize,
    /// Pixels of the input that one step in its map spans.
    pub stride: usize,
}

/// A frozen network that stops after the deepest layer asked for.
///
/// Batch norms are folded into the convolutions in `f64`. Buffers are kept between calls, one set for each thread that
/// was ever inside [`features`](Self::features) at the same time, so that a call allocates no maps but its outputs, and with
/// [`features_into`](Self::features_into) none at all.
pub struct Backbone {
    net: &'static Net,
    graph: Graph,
    layers: Vec<LayerInfo>,
    /// The node of each layer, and the largest stride up to it.
    taps: Vec<usize>,
    smallest: usize,
    engine: Engine,
    weights: Vec<(String, Tensor)>,
    fingerprint: OnceLock<String>,
    precision: Precision,
    calibration: Option<Ranges>,
    #[cfg(feature = "cuda")]
    gpu: Option<gpu::Gpu>,
}

/// Steps, and buffers that are not in use, by what maps are kept in.
enum Engine {
    Single { steps: Vec<Step>, arenas: Mutex<Vec<Arena<f32>>> },
    Half(Box<Halves>),
}

impl Backbone {
    /// The network `id` up to the deepest of `layers`, in single precision.
    ///
    /// # Errors
    /// [`BackboneError::UnknownNet`] or [`BackboneError::Layers`] for names that are not in the
    /// [catalogue](crate::catalogue), and [`BackboneError::Weights`] naming every tensor that does not fit.
    pub fn new(id: &str, layers: &[String], weights: &WeightSet) -> Result<Self> {
        let net = Net::find(id)?;
        let bad = |what: String| {
            let choices = net.layers.iter().map(|layer| layer.name).collect();
            BackboneError::Layers { net: net.id, what, choices }
        };
        let mut graph = (net.graph)();
        let mut infos: Vec<LayerInfo> = Vec::new();
        let mut taps = Vec::new();
        for name in layers {
            let tap = graph.taps.iter().find(|tap| tap.name == *name);
            let node = tap.ok_or_else(|| bad(format!("there is no layer '{name}'")))?.node;
            if taps.contains(&node) {
                return Err(bad(format!("layer '{name}' is given twice")));
            }
            let (channels, stride) = (graph.nodes[node].channels, graph.nodes[node].stride);
            infos.push(LayerInfo { name: name.clone(), channels, stride });
            taps.push(node);
        }
        let deepest = taps.iter().copied().max().ok_or_else(|| bad("no layer is given".to_owned()))?;
        let weights = weights.select(net, &graph, deepest)?;
        graph.nodes.truncate(deepest + 1);
        let steps = fold::steps(net.id, &graph, &weights, &Cpu { net: net.id, kind: Kind::F32 })?;
        let smallest = infos.iter().map(|layer| layer.stride).max().unwrap_or(1);
        Ok(Backbone {
            net,
            graph,
            layers: infos,
            taps,
            smallest,
            engine: Engine::Single { steps, arenas: Mutex::default() },
            weights,
            fingerprint: OnceLock::new(),
            precision: Precision::F32,
            calibration: None,
            #[cfg(feature = "cuda")]
            gpu: None,
        })
    }

    /// The network's name.
    pub fn id(&self) -> &str {
        self.net.id
    }

    /// The layers, in the order they were asked for.
    pub fn layers(&self) -> &[LayerInfo] {
        &self.layers
    }

    /// The feature maps `[n, h, w, c]` of normalised pictures `[n, height, width, 3]`, one for each of
    /// [`layers`](Self::layers).
    ///
    /// Runs on the network's [`device`](Self::device), on the CPU in the current rayon pool. Values that are not finite go
    /// through without a panic.
    ///
    /// # Errors
    /// [`BackboneError::Input`] unless there are 3 channels and each side is at least the deepest stride.
    pub fn features(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Array4<f32>>> {
        let mut maps = Vec::new();
        self.features_into(input, &mut maps)?;
        Ok(maps)
    }

    /// As [`features`](Self::features), into the `maps` of an earlier call where they fit: for small networks, getting memory
    /// from the system takes longer than some of the layers.
    ///
    /// # Errors
    /// As [`features`](Self::features); `maps` then holds nothing of use.
    pub fn features_into(&self, input: ArrayView4<'_, f32>, maps: &mut Vec<Array4<f32>>) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = self.gpu.as_ref().filter(|_| !input.is_empty()) {
            self.outputs(input, maps)?;
            let standard = input.as_standard_layout();
            let (n, h, w, _) = standard.dim();
            let mut maps: Vec<&mut [f32]> = maps.iter_mut().map(|map| map.as_slice_mut().unwrap_or_default()).collect();
            return gpu.download(self, standard.as_slice().unwrap_or_default(), n, [h, w], &mut maps);
        }
        self.on_cpu(input, maps)
    }

    fn on_cpu(&self, input: ArrayView4<'_, f32>, maps: &mut Vec<Array4<f32>>) -> Result<()> {
        self.outputs(input, maps)?;
        if input.is_empty() {
            return Ok(());
        }
        let standard = input.as_standard_layout();
        let (n, h, w, _) = standard.dim();
        let maps: Vec<&mut [f32]> = maps.iter_mut().map(|map| map.as_slice_mut().unwrap_or_default()).collect();
        self.batch(standard.as_slice().unwrap_or_default(), n, [h, w], maps)
    }

    /// Runs pictures through steps in single precision, one by one, and shows every map.
    fn witness(&self, input: ArrayView4<'_, f32>, steps: &[Step], see: Witness<'_>) -> Result<()> {
        let mut arena: Arena<f32> = Arena::default();
        let mut outputs = Vec::new();
        for picture in input.axis_chunks_iter(Axis(0), 1) {
            self.outputs(picture, &mut outputs)?;
            let mut maps: Vec<&mut [f32]> =
                outputs.iter_mut().map(|output| output.as_slice_mut().unwrap_or_default()).collect();
            let (standard, (_, h, w, _)) = (picture.as_standard_layout(), picture.dim());
            arena.prepare(&self.graph, steps, &self.taps, 1, [h, w])?;
            let pixels = standard.as_slice().unwrap_or_default();
            arena.run(steps, &self.taps, pixels, &mut maps, Par::Rayon, Some(&mut *see))?;
        }
        Ok(())
    }

    /// Makes `maps` those of a legal input, whatever their values.
    fn outputs(&self, input: ArrayView4<'_, f32>, maps: &mut Vec<Array4<f32>>) -> Result<()> {
        let n = input.dim().0;
        let sizes = self.sizes(input.dim().into())?;
        maps.resize_with(self.taps.len(), || Array4::zeros((0, 0, 0, 0)));
        for ((&node, layer), map) in self.taps.iter().zip(&self.layers).zip(maps) {
            let wanted = (n, sizes[node][0], sizes[node][1], layer.channels);
            if map.dim() != wanted || !map.is_standard_layout() {
                *map = Array4::zeros(wanted);
            }
        }
        Ok(())
    }

    /// Height and width of each node's map, if an input of this shape can be taken.
    fn sizes(&self, [n, h, w, channels]: [usize; 4]) -> Result<Vec<[usize; 2]>> {
        let refuse = |wanted: String| BackboneError::Input { net: self.net.id, wanted, got: [n, h, w, channels] };
        if channels != 3 {
            return Err(refuse("3 channels, [n, h, w, 3]".to_owned()));
        }
        if h < self.smallest || w < self.smallest {
            return Err(refuse(format!("at least {0} x {0} pixels for these layers", self.smallest)));
        }
        let sizes = plan::sizes(&self.graph, h, w)?;
        // The largest map bounds all others.
        let floats = sizes.iter().zip(&self.graph.nodes).try_fold(0usize, |most, (&[h, w], node)| {
            Some(most.max(h.checked_mul(w)?.checked_mul(node.channels)?.checked_mul(n.max(1))?))
        });
        if floats.is_none_or(|floats| floats > isize::MAX as usize / 8) {
            return Err(refuse("an input whose maps fit the memory".to_owned()));
        }
        Ok(sizes)
    }

    /// Cuts the batch into one piece for each thread, or runs it whole with the threads inside each step.
    ///
    /// Neither changes a bit: no step mixes pictures or orders its sums by thread.
    fn batch(&self, pixels: &[f32], n: usize, size: [usize; 2], maps: Vec<&mut [f32]>) -> Result<()> {
        let threads = rayon::current_num_threads();
        if threads == 1 || n < threads {
            let par = if threads == 1 { Par::Serial } else { Par::Rayon };
            let run = || {
                self.pieces(pixels, n, size, maps, self.together(), par)
                    .into_iter()
                    .try_for_each(|piece| self.piece(piece))
            };
            // Into the pool once, not with every step.
            return if threads == 1 { run() } else { rayon::scope(|_| run()) };
        }
        let step = n.div_ceil(threads).min(self.together());
        let pieces = self.pieces(pixels, n, size, maps, step, Par::Serial);
        pieces.into_par_iter().try_for_each(|piece| self.piece(piece))
    }

    /// Most pictures that go through the network together. Winograd's transforms serve several; elsewhere a second picture
    /// would only push the maps of the first out of the cache.
    fn together(&self) -> usize {
        let shared = |step: &Step| {
            matches!(step, Step::Conv { conv, .. }
            if matches!(conv.algorithm(), Algorithm::Winograd | Algorithm::WinogradSmall))
        };
        let any = match &self.engine {
            Engine::Single { steps, .. } => steps.iter().any(shared),
            Engine::Half(halves) => halves.steps().any(shared),
        };
        if any { PIECE } else { 1 }
    }

    fn pieces<'a>(
        &self,
        pixels: &'a [f32],
        n: usize,
        size: [usize; 2],
        maps: Vec<&'a mut [f32]>,
        step: usize,
        par: Par,
    ) -> Vec<Piece<'a>> {
        let image = pixels.len() / n;
        let mut pieces: Vec<Piece<'a>> = pixels
            .chunks(step * image)
            .map(|pixels| Piece { pixels, n: pixels.len() / image, size, maps: Vec::with_capacity(maps.len()), par })
            .collect();
        for map in maps {
            let each = map.len() / n;
            for (piece, part) in pieces.iter_mut().zip(map.chunks_mut(step * each)) {
                piece.maps.push(part);
            }
        }
        pieces
    }

    fn piece(&self, mut piece: Piece<'_>) -> Result<()> {
        match &self.engine {
            Engine::Single { steps, arenas } => {
                let arenas = || arenas.lock().unwrap_or_else(PoisonError::into_inner);
                let mut arena = arenas().pop().unwrap_or_default();
                arena.prepare(&self.graph, steps, &self.taps, piece.n, piece.size)?;
                arena.run(steps, &self.taps, piece.pixels, &mut piece.maps, piece.par, None)?;
                arenas().push(arena);
                Ok(())
            }
            Engine::Half(halves) => {
                let [h, w] = piece.size;
                halves.run(piece, &plan::sizes(&self.graph, h, w)?)
            }
        }
    }

    /// The weights up to the deepest layer, unfolded, in `f32`, under timm's names and epsilon, in order of execution.
    ///
    /// [`WeightSet::from_tensors`] makes the same network of them, to the bit.
    pub fn weights(&self) -> &[(String, Tensor)] {
        &self.weights
    }

    /// SHA-256, in hexadecimal, over names, shapes and values of [`weights`](Self::weights).
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let mut hash = Sha256::new();
            for (name, tensor) in &self.weights {
                hash.update(format!("{name} {:?}\n", tensor.shape()));
                hash.update(tensor.bytes());
            }
            hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

impl std::fmt::Debug for Backbone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backbone").field("id", &self.net.id).field("layers", &self.layers).finish_non_exhaustive()
    }
}

/// Most pictures that go through a network with Winograd together: more of them push each other out of the cache.
const PIECE: usize = 4;

/// Some pictures of a batch and the parts of the outputs they fill.
struct Piece<'a> {
    pixels: &'a [f32],
    n: usize,
    size: [usize; 2],
    maps: Vec<&'a mut [f32]>,
    par: Par,
}
