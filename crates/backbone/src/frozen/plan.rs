//! Which buffer each map lies in.

use crate::Result;
use crate::spec::{Graph, Op};

use super::fold::{MAX_POOL, conv_spec};

/// Where the map of a node lies while it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The caller's pixels.
    Input,
    /// A buffer of the arena.
    Slot(usize),
    /// An output, by its place in the list of layers.
    Output(usize),
}

/// The maps of one input size.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Pictures at a time.
    pub(super) n: usize,
    /// Height and width of each node's map.
    pub(super) sizes: Vec<[usize; 2]>,
    pub(super) channels: Vec<usize>,
    pub(super) inputs: Vec<usize>,
    pub(super) places: Vec<Place>,
    /// Floats of each buffer.
    pub(super) slots: Vec<usize>,
    /// Floats of scratch that the hungriest step needs.
    pub(super) scratch: usize,
}

/// Height and width of each node's map.
pub(super) fn sizes(graph: &Graph, h: usize, w: usize) -> Result<Vec<[usize; 2]>> {
    let mut sizes: Vec<[usize; 2]> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let [h, w] = sizes.get(node.input).copied().unwrap_or([h, w]);
        sizes.push(match (&node.op, conv_spec(graph, node)) {
            (Op::MaxPool, _) => MAX_POOL.output_size(h, w)?.into(),
            (_, Some(spec)) => spec.output_size(h, w)?.into(),
            _ => [h, w],
        });
    }
    Ok(sizes)
}

impl Plan {
    /// Lays out the maps of `n` pictures of `size`: a buffer is taken again as soon as its map was read for the last time,
    /// and a gate works in place where nothing else reads its input.
    ///
    /// Channels take the next multiple of `lanes`. `scratch` is what a node needs of it for an input of some size.
    pub(super) fn new(
        graph: &Graph,
        taps: &[usize],
        n: usize,
        [h, w]: [usize; 2],
        lanes: usize,
        scratch_of: impl Fn(usize, [usize; 2]) -> usize,
    ) -> Result<Self> {
        let sizes = sizes(graph, h, w)?;
        let nodes = &graph.nodes;
        let floats = |id: usize| n * sizes[id][0] * sizes[id][1] * nodes[id].channels.next_multiple_of(lanes);
        let mut last = vec![0; nodes.len()];
        for (id, node) in nodes.iter().enumerate() {
            last[node.input] = id;
            if let Op::Conv { residual: Some(r), .. } = node.op {
                last[r] = id;
            }
        }
        let mut places = Vec::with_capacity(nodes.len());
        let (mut slots, mut free): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut scratch = 0;
        for (id, node) in nodes.iter().enumerate() {
            let tap = taps.iter().position(|&tap| tap == id);
            let in_place = matches!(node.op, Op::SqueezeExcite { .. }) && last[node.input] == id;
            let place = match (tap, places.get(node.input)) {
                _ if id == 0 => Place::Input,
                (Some(tap), _) => Place::Output(tap),
                (None, Some(&Place::Slot(slot))) if in_place => Place::Slot(slot),
                _ => {
                    let wanted = floats(id);
                    // The tightest buffer that is large enough, else the largest, grown.
                    let fits =
                        free.iter().enumerate().filter(|&(_, &s)| slots[s] >= wanted).min_by_key(|&(_, &s)| slots[s]);
                    let best = fits.or_else(|| free.iter().enumerate().max_by_key(|&(_, &s)| slots[s]));
                    let slot = match best.map(|(at, _)| at) {
                        Some(at) => free.swap_remove(at),
                        None => {
                            slots.push(0);
                            slots.len() - 1
                        }
                    };
                    slots[slot] = slots[slot].max(wanted);
                    Place::Slot(slot)
                }
            };
            places.push(place);
            // Buffers read here for the last time; the own one may be among them if the gate worked in place.
            let residual = match node.op {
                Op::Conv { residual, .. } => residual.filter(|&r| r != node.input),
                _ => None,
            };
            for read in [Some(node.input), residual].into_iter().flatten().filter(|&read| last[read] == id) {
                match places[read] {
                    Place::Slot(slot) if place != Place::Slot(slot) => free.push(slot),
                    _ => {}
                }
            }
            scratch = scratch.max(scratch_of(id, sizes[node.input]));
        }
        let channels = nodes.iter().map(|node| node.channels).collect();
        let inputs = nodes.iter().map(|node| node.input).collect();
        Ok(Plan { n, sizes, channels, inputs, places, slots, scratch })
    }
}
