//! Winograd's minimal filtering (Lavin and Gray, CVPR 2016): F(4x4, 3x3) takes 36 instead of 144 multiplications for each
//! input channel and block of 4x4 outputs, F(2x2, 3x3) takes 16 instead of 36.
//!
//! Interpolation points 0, 1, -1, 2, -2 and infinity; 0, 1, -1 and infinity. The largest error of an output against f64, over
//! their root mean square: 1.5e-5 at 64 input channels and 7.5e-5 at 512 (the plain f32 sum: 2.9e-6 and 1.0e-5), and for the
//! smaller tile 1.2e-6 and 3.9e-6; a test holds it there. The larger tile needs fewer products on every map above 2x2.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::cpu_winograd_tiles::{Gather, Place, Scatter, Shape, Tiling};
use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::gemm::{Element, Epilogue, Isa, Panels, Rows, Single, dispatch_maps, multiply};

/// Values of a block's transformed inputs and outputs: what the second-level cache holds.
const BUDGET: usize = 160 * 1024;
/// Fewest tiles of a block where there are more: each reads all the weights.
const FEWEST: usize = 48;
/// From this many blocks on, threads take blocks; below, they share each of the three steps.
const MANY: usize = 8;
/// Most tiles of a block whose steps are shared.
const MOST: usize = 512;
/// Tiles transformed by one task of a shared step.
const TASK: usize = 4;

/// Transformed weights, one packed `[in, out]` matrix for each point.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    isa: Isa,
    side: usize,
    points: Vec<Panels<Single>>,
}

/// Transforms of a filter, `G`, for each side of output tiles.
const LARGE: [[f64; 3]; 6] = [
    [0.25, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];
const SMALL: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

impl Tiling {
    fn new(spec: &ConvSpec, side: usize, n: usize, (oh, ow): (usize, usize)) -> Tiling {
        let (down, across) = (oh.div_ceil(side), ow.div_ceil(side));
        let (total, points) = (n * down * across, (side + 2) * (side + 2));
        let small = (BUDGET / (points * (spec.in_channels + spec.out_channels))).clamp(FEWEST, 4 * FEWEST) / 12 * 12;
        let many = total.div_ceil(small) >= MANY;
        Tiling { down, across, total, block: if many { small } else { total.min(MOST) }, many, side }
    }

    /// Points of a transformed tile.
    fn points(&self) -> usize {
        (self.side + 2) * (self.side + 2)
    }

    fn blocks(&self) -> usize {
        self.total.div_ceil(self.block)
    }

    /// Floats from one point's matrix to the next, not a multiple of a page: those would fall on the same cache lines.
    pub(super) fn plane(&self, channels: usize) -> usize {
        (self.block * channels).next_multiple_of(16) + 16
    }

    fn scratch(&self, spec: &ConvSpec) -> usize {
        self.points() * (self.plane(spec.in_channels) + self.plane(spec.out_channels))
    }
}

impl Winograd {
    /// Whether a convolution can be done this way.
    pub(super) fn fits(spec: &ConvSpec) -> bool {
        spec.kernel == [3, 3] && spec.stride == [1, 1] && spec.groups == 1
    }

    /// Transforms and packs `weight` `[out, in, 3, 3]`, for output tiles of `side` 4 or 2.
    pub(super) fn new(isa: Isa, side: usize, spec: &ConvSpec, weight: &[f32]) -> Winograd {
        let transform: &[[f64; 3]] = if side == 2 { &SMALL } else { &LARGE };
        let (cin, cout, count) = (spec.in_channels, spec.out_channels, transform.len() * transform.len());
        // `G g G^T` of each filter, `[out, points, in]`.
        let mut turned = vec![0.0f32; cout * count * cin];
        turned.par_chunks_exact_mut(count * cin).zip(weight.par_chunks_exact(9 * cin)).for_each(|(turned, weight)| {
            for (k, filter) in weight.chunks_exact(9).enumerate() {
                for (u, down) in transform.iter().enumerate() {
                    let half: [f64; 3] =
                        std::array::from_fn(|x| (0..3).map(|y| down[y] * f64::from(filter[y * 3 + x])).sum());
                    for (v, across) in transform.iter().enumerate() {
                        let sum: f64 = half.iter().zip(across).map(|(half, g)| half * g).sum();
                        turned[(u * transform.len() + v) * cin + k] = sum as f32;
                    }
                }
            }
        });
        let at = |point: usize, k: usize, o: usize| turned[(o * count + point) * cin + k];
        let points = (0..count).into_par_iter().map(|p| Panels::new(isa, cin, cout, |k, o| at(p, k, o))).collect();
        Winograd { isa, side: if side == 2 { 2 } else { 4 }, points }
    }

    /// Side of output tiles.
    pub(super) fn side(&self) -> usize {
        self.side
    }

    /// Least scratch, in `f32`, for `n` images.
    pub(super) fn least(&self, spec: &ConvSpec, n: usize, out: (usize, usize)) -> usize {
        Tiling::new(spec, self.side, n, out).scratch(spec)
    }

    /// Scratch with which all threads of the current pool can work.
    pub(super) fn workspace(&self, spec: &ConvSpec, n: usize, out: (usize, usize)) -> usize {
        let tiling = Tiling::new(spec, self.side, n, out);
        let lanes = if tiling.many { tiling.blocks().min(rayon::current_num_threads()).max(1) } else { 1 };
        tiling.scratch(spec) * lanes
    }

    /// `n` images `[n, h, w, in]` to `[n, oh, ow, out]`; the transforms and products are in `f32`.
    pub(super) fn forward<E: Element>(
        &self,
        spec: &ConvSpec,
        bias: &[f32],
        activation: Activation,
        images: &[E],
        n: usize,
        size: (usize, usize),
        out: (usize, usize),
        residual: Option<&[E]>,
        output: &mut [E],
        workspace: &mut [f32],
        par: Par,
    ) {
        let run = if self.side == 2 { Self::tiles::<E, 2, 4> } else { Self::tiles::<E, 4, 6> };
        run(self, spec, bias, activation, images, n, size, out, residual, output, workspace, par);
    }

    /// [`forward`](Self::forward) for output tiles of side `OUT` and input tiles of side `IN`.
    fn tiles<E: Element, const OUT: usize, const IN: usize>(
        &self,
        spec: &ConvSpec,
        bias: &[f32],
        activation: Activation,
        images: &[E],
        n: usize,
        (h, w): (usize, usize),
        (oh, ow): (usize, usize),
        residual: Option<&[E]>,
        output: &mut [E],
        workspace: &mut [f32],
        par: Par,
    ) {
        let (cin, cout) = (spec.in_channels, spec.out_channels);
        assert!(images.len() == n * h * w * cin && output.len() == n * oh * ow * cout && bias.len() == cout);
        assert!(residual.is_none_or(|r| r.len() == output.len()));
        let tiling = Tiling::new(spec, self.side, n, (oh, ow));
        let (planes, scratch) = ((tiling.plane(cin), tiling.plane(cout)), tiling.scratch(spec));
        assert!(workspace.len() >= scratch);
        let shape = Shape { spec, image: (h, w), out: (oh, ow), tiling };
        let place = Place(output.as_mut_ptr());
        let gather = |inputs: Place<f32>, first: usize, tiles: (usize, usize)| {
            let job = Gather::<E, OUT, IN> { shape, first, tiles, images, inputs };
            // SAFETY: the instructions are available; the lengths of the images and of the scratch were checked above, and
            // tiles have places of their own.
            unsafe { dispatch_maps::<E, _>(self.isa, job) };
        };
        let scatter = |products: &[f32], first: usize, tiles: (usize, usize)| {
            let job =
                Scatter::<E, OUT, IN> { shape, first, tiles, products, bias, residual, activation, output: place };
            // SAFETY: as above.
            unsafe { dispatch_maps::<E, _>(self.isa, job) };
        };
        let product = |inputs: &[f32], products: &mut [f32], point: usize, count: usize| {
            let epilogue = Epilogue { scale: None, bias: None, residual: None, activation: Activation::None };
            let rows = Rows::Plain { data: &inputs[point * planes.0..][..count * cin], stride: cin };
            multiply(&self.points[point], &rows, count, &epilogue, &mut products[..count * cout], Par::Serial);
        };
        let range = |b: usize| (b * tiling.block, ((b + 1) * tiling.block).min(tiling.total));
        if tiling.many || par == Par::Serial {
            let block = |b: usize, scratch: &mut [f32]| {
                let (first, last) = range(b);
                let (inputs, products) = scratch.split_at_mut(IN * IN * planes.0);
                gather(Place(inputs.as_mut_ptr()), first, (first, last));
                for (point, products) in products.chunks_exact_mut(planes.1).enumerate().take(IN * IN) {
                    product(inputs, products, point, last - first);
                }
                scatter(products, first, (first, last));
            };
            let (blocks, lanes) = (tiling.blocks(), workspace.len() / scratch);
            if par == Par::Rayon {
                // Each lane has its own scratch and takes every so-many-th block.
                workspace.par_chunks_exact_mut(scratch).enumerate().for_each(|(lane, scratch)| {
                    (lane..blocks).step_by(lanes).for_each(|b| block(b, scratch));
                });
            } else {
                (0..blocks).for_each(|b| block(b, &mut workspace[..scratch]));
            }
            return;
        }
        let (inputs, products) = workspace[..scratch].split_at_mut(IN * IN * planes.0);
        for (first, last) in (0..tiling.blocks()).map(range) {
            let tasks = (last - first).div_ceil(TASK);
            let tiles = |t: usize| (first + t * TASK, (first + (t + 1) * TASK).min(last));
            let to = Place(inputs.as_mut_ptr());
            (0..tasks).into_par_iter().for_each(|t| gather(to, first, tiles(t)));
            products.par_chunks_exact_mut(planes.1).enumerate().for_each(|(point, products)| {
                product(inputs, products, point, last - first);
            });
            (0..tasks).into_par_iter().for_each(|t| scatter(products, first, tiles(t)));
        }
    }
}
