//! A network with maps in bf16, but for its first layers.

use std::sync::{Mutex, PoisonError};

use half::bf16;

use crate::Result;
use crate::spec::{Graph, Node, NodeId, Op};

use super::Piece;
use super::fold::Step;
use super::run::Arena;

/// Some neighbouring nodes, numbered from the one that is their input.
pub(super) struct Stage {
    graph: Graph,
    steps: Vec<Step>,
    /// Nodes whose maps leave the stage.
    taps: Vec<usize>,
    /// For each of them, its place among the network's layers; none for what only the next stage reads.
    layers: Vec<Option<usize>>,
}

/// First layers in `f32`, the others in bf16.
pub(super) struct Halves {
    front: Option<Stage>,
    back: Option<Stage>,
    buffers: Mutex<Vec<Buffers>>,
}

/// What one thread works in.
#[derive(Default)]
struct Buffers {
    front: Arena<f32>,
    /// The map between the two.
    seam: Vec<f32>,
    back: Arena<bf16>,
}

impl Halves {
    /// Cuts a network behind node `exact`; no later node reads an earlier one than that. `steps` are those of its nodes.
    pub(super) fn new(graph: &Graph, mut steps: Vec<Step>, taps: &[usize], exact: NodeId) -> Self {
        let layers = |keep: &dyn Fn(usize) -> bool, first: usize| -> (Vec<usize>, Vec<Option<usize>>) {
            let kept = taps.iter().enumerate().filter(|&(_, &tap)| keep(tap));
            kept.map(|(layer, &tap)| (tap - first, Some(layer))).unzip()
        };
        let last = graph.nodes.len() - 1;
        let exact = exact.min(last);
        let back_steps = steps.split_off(exact + 1);
        let front = (exact > 0).then(|| {
            let (mut taps, mut layers) = layers(&|tap| tap <= exact, 0);
            if exact < last && !taps.contains(&exact) {
                taps.push(exact);
                layers.push(None);
            }
            let nodes = graph.nodes[..=exact].to_vec();
            Stage { graph: Graph { nodes, ..graph.clone() }, steps, taps, layers }
        });
        let back = (exact < last).then(|| {
            let (taps, layers) = layers(&|tap| tap > exact, exact);
            let channels = graph.nodes[exact].channels;
            let mut nodes = vec![Node { op: Op::Input, input: 0, channels, stride: 1 }];
            nodes.extend(graph.nodes[exact + 1..].iter().cloned().map(|mut node| {
                node.input -= exact;
                if let Op::Conv { residual: Some(node), .. } = &mut node.op {
                    *node -= exact;
                }
                node
            }));
            let mut steps = vec![Step::Input];
            steps.extend(back_steps.into_iter().map(|mut step| {
                if let Step::Conv { residual: Some(node), .. } = &mut step {
                    *node -= exact;
                }
                step
            }));
            Stage { graph: Graph { nodes, ..graph.clone() }, steps, taps, layers }
        });
        Halves { front, back, buffers: Mutex::default() }
    }

    /// All steps.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        [&self.front, &self.back].into_iter().flatten().flat_map(|stage| &stage.steps)
    }

    /// Runs a piece; `sizes` are those of the network's nodes.
    pub(super) fn run(&self, mut piece: Piece<'_>, sizes: &[[usize; 2]]) -> Result<()> {
        let buffers = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = buffers().pop().unwrap_or_default();
        let Buffers { front: front_arena, seam, back: back_arena } = &mut own;
        let (mut pixels, mut size) = (piece.pixels, piece.size);
        let mut maps: Vec<Option<&mut [f32]>> = piece.maps.drain(..).map(Some).collect();
        if let Some(front) = &self.front {
            let exact = front.graph.nodes.len() - 1;
            let [h, w] = sizes[exact];
            seam.resize(piece.n * h * w * front.graph.nodes[exact].channels, 0.0);
            let mut rest = Some(&mut seam[..]);
            let mut outputs: Vec<&mut [f32]> = Vec::with_capacity(front.taps.len());
            for layer in &front.layers {
                outputs.extend(match layer {
                    Some(layer) => maps[*layer].take(),
                    None => rest.take(),
                });
            }
            front_arena.prepare(&front.graph, &front.steps, &front.taps, piece.n, size)?;
            front_arena.run(&front.steps, &front.taps, pixels, &mut outputs, piece.par, None)?;
            if self.back.is_some() {
                let at = front.taps.iter().position(|&tap| tap == exact);
                pixels = at.map_or(&[], |at| &*std::mem::take(&mut outputs[at]));
                size = [h, w];
            }
        }
        if let Some(back) = &self.back {
            let mut outputs: Vec<&mut [f32]> = Vec::with_capacity(back.taps.len());
            outputs.extend(back.layers.iter().filter_map(|layer| maps[(*layer)?].take()));
            back_arena.prepare(&back.graph, &back.steps, &back.taps, piece.n, size)?;
            back_arena.run(&back.steps, &back.taps, pixels, &mut outputs, piece.par, None)?;
        }
        buffers().push(own);
        Ok(())
    }
}
