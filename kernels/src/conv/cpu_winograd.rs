//! Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, CVPR 2016): 36 instead of 144 multiplications for each input
//! channel and block of 4x4 outputs.
//!
//! Interpolation points 0, 1, -1, 2, -2 and infinity. The largest error of an output against f64, over their root mean
//! square: 1.5e-5 at 64 input channels and 7.5e-5 at 512 (the plain f32 sum: 2.9e-6 and 1.0e-5); a test holds it there.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::spec::{Activation, ConvSpec};
use crate::Par;
use crate::gemm::{Epilogue, Isa, Kernel, Packed, Rows, Vector, activate, dispatch, multiply};

/// Points of the transformed tile.
const POINTS: usize = 36;
/// Side of an output tile and of its input tile.
const OUT: usize = 4;
const IN: usize = 6;

/// Transformed weights, one packed `[in, out]` matrix for each point.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    isa: Isa,
    points: Vec<Packed>,
}

/// How an image is cut into tiles.
#[derive(Clone, Copy)]
struct Tiling {
    across: usize,
    total: usize,
    /// Tiles transformed together.
    block: usize,
}

impl Tiling {
    fn new(spec: &ConvSpec, (oh, ow): (usize, usize)) -> Tiling {
        let (down, across) = (oh.div_ceil(OUT), ow.div_ceil(OUT));
        // The transformed inputs and outputs of a block stay in the second-level cache, with whole register tiles.
        let floats = POINTS * (spec.in_channels + spec.out_channels);
        let block = ((160 * 1024 / floats).clamp(12, 120) / 12 * 12).min((down * across).next_multiple_of(12));
        Tiling { across, total: down * across, block }
    }

    fn blocks(&self) -> usize {
        self.total.div_ceil(self.block)
    }
}

impl Winograd {
    /// Whether a convolution can be done this way.
    pub(super) fn fits(spec: &ConvSpec) -> bool {
        spec.kernel == [3, 3] && spec.stride == [1, 1] && spec.groups == 1
    }

    /// Transforms and packs `weight` `[out, in, 3, 3]`.
    pub(super) fn new(isa: Isa, spec: &ConvSpec, weight: &[f32]) -> Winograd {
        const G: [[f64; 3]; IN] = [
            [0.25, 0.0, 0.0],
            [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
            [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
            [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
            [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
            [0.0, 0.0, 1.0],
        ];
        let (cin, cout) = (spec.in_channels, spec.out_channels);
        let at = |point: usize, k: usize, o: usize| {
            let (filter, (u, v)) = (&weight[(o * cin + k) * 9..][..9], (point / IN, point % IN));
            let mut sum = 0.0;
            for y in 0..3 {
                for x in 0..3 {
                    sum += G[u][y] * f64::from(filter[y * 3 + x]) * G[v][x];
                }
            }
            sum as f32
        };
        let points = (0..POINTS).map(|p| Packed::with_isa(isa, cin, cout, |k, o| at(p, k, o))).collect();
        Winograd { isa, points }
    }

    /// Scratch, in `f32`, for one image.
    pub(super) fn workspace(&self, spec: &ConvSpec, out: (usize, usize), par: Par) -> usize {
        let tiling = Tiling::new(spec, out);
        let each = POINTS * tiling.block * (spec.in_channels + spec.out_channels);
        each * if par == Par::Rayon { tiling.blocks().min(rayon::current_num_threads()).max(1) } else { 1 }
    }

    /// One image `[h, w, in]` to `[oh, ow, out]`.
    pub(super) fn forward(
        &self,
        spec: &ConvSpec,
        bias: &[f32],
        activation: Activation,
        image: &[f32],
        (h, w): (usize, usize),
        (oh, ow): (usize, usize),
        residual: Option<&[f32]>,
        output: &mut [f32],
        workspace: &mut [f32],
        par: Par,
    ) {
        let (cin, cout) = (spec.in_channels, spec.out_channels);
        assert!(image.len() == h * w * cin && output.len() == oh * ow * cout && bias.len() == cout);
        assert!(residual.is_none_or(|r| r.len() == output.len()));
        let tiling = Tiling::new(spec, (oh, ow));
        let each = POINTS * tiling.block * (cin + cout);
        let place = Place(output.as_mut_ptr());
        let block = |b: usize, scratch: &mut [f32], par: Par| {
            let tiles = (b * tiling.block, ((b + 1) * tiling.block).min(tiling.total));
            let (inputs, products) = scratch[..each].split_at_mut(POINTS * tiling.block * cin);
            let shape = Shape { spec, image: (h, w), out: (oh, ow), tiling, tiles };
            // SAFETY: the lengths were checked above; blocks of tiles write disjoint outputs.
            unsafe { dispatch(self.isa, Gather { shape, image, inputs: &mut *inputs }) };
            let count = tiles.1 - tiles.0;
            let epilogue = Epilogue { bias: None, residual: None, activation: Activation::None };
            for (p, packed) in self.points.iter().enumerate() {
                let rows = Rows::Plain { data: &inputs[p * tiling.block * cin..][..count * cin], stride: cin };
                let out = &mut products[p * tiling.block * cout..][..count * cout];
                multiply(packed, &rows, count, &epilogue, out, par);
            }
            let scatter = Scatter { shape, products, bias, residual, activation, output: place };
            // SAFETY: as above.
            unsafe { dispatch(self.isa, scatter) };
        };
        let blocks = tiling.blocks();
        let lanes = workspace.len() / each.max(1);
        if par == Par::Rayon && blocks > 1 && lanes > 1 {
            // Each lane has its own scratch and takes every so-many-th block.
            workspace.par_chunks_exact_mut(each).take(lanes).enumerate().for_each(|(lane, scratch)| {
                (lane..blocks).step_by(lanes).for_each(|b| block(b, scratch, Par::Serial));
            });
        } else {
            (0..blocks).for_each(|b| block(b, workspace, if blocks == 1 { par } else { Par::Serial }));
        }
    }
}

#[derive(Clone, Copy)]
struct Place(*mut f32);
// SAFETY: made by `forward` alone, from an exclusive slice that outlives its blocks, which write disjoint tiles.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

#[derive(Clone, Copy)]
struct Shape<'a> {
    spec: &'a ConvSpec,
    image: (usize, usize),
    out: (usize, usize),
    tiling: Tiling,
    tiles: (usize, usize),
}

/// Input tiles to the 36 points: `B^T d B`.
struct Gather<'a> {
    shape: Shape<'a>,
    image: &'a [f32],
    /// `[points, block, in]`.
    inputs: &'a mut [f32],
}

impl Kernel for Gather<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Shape { spec, image: (h, w), tiling, tiles, .. } = self.shape;
        let c = spec.in_channels;
        for tile in tiles.0..tiles.1 {
            let (ty, tx) = (tile / tiling.across * OUT, tile % tiling.across * OUT);
            // Offset of each row and column of the tile; none in the padding.
            let rows: [Option<usize>; IN] =
                std::array::from_fn(|i| (ty + i).checked_sub(spec.padding[0]).filter(|y| *y < h));
            let columns: [Option<usize>; IN] =
                std::array::from_fn(|i| (tx + i).checked_sub(spec.padding[1]).filter(|x| *x < w));
            let mut channel = 0;
            while channel < c {
                let count = V::LANES.min(c - channel);
                let whole = count == V::LANES;
                // SAFETY: `count` channels of pixels inside the image; the tile has its place in `inputs`.
                unsafe {
                    let mut d = [[V::splat(0.0); IN]; IN];
                    for (y, row) in rows.iter().enumerate() {
                        let Some(sy) = row else { continue };
                        for (x, column) in columns.iter().enumerate() {
                            let Some(sx) = column else { continue };
                            let p = self.image.as_ptr().add((sy * w + sx) * c + channel);
                            d[y][x] = if whole { V::load(p) } else { V::load_part(p, count) };
                        }
                    }
                    // Columns, then rows.
                    let mut half = [[V::splat(0.0); IN]; IN];
                    for x in 0..IN {
                        let column = before(std::array::from_fn(|y| d[y][x]));
                        for y in 0..IN {
                            half[y][x] = column[y];
                        }
                    }
                    let base = (tile - tiles.0) * c + channel;
                    for (y, row) in half.into_iter().enumerate() {
                        for (x, v) in before(row).into_iter().enumerate() {
                            let to = self.inputs.as_mut_ptr().add((y * IN + x) * tiling.block * c + base);
                            if whole { v.store(to) } else { v.store_part(to, count) }
                        }
                    }
                }
                channel += count;
            }
        }
    }
}

/// `B^T d` for one line.
#[inline(always)]
unsafe fn before<V: Vector>(d: [V; IN]) -> [V; IN] {
    // SAFETY: the caller runs where the instructions are there.
    unsafe {
        let (two, four, five) = (V::splat(2.0), V::splat(-4.0), V::splat(-5.0));
        // d4 - 4 d2, d3 - 4 d1, d4 - d2, 2 (d3 - d1)
        let (a, b) = (four.mul_add(d[2], d[4]), four.mul_add(d[1], d[3]));
        let (e, f) = (d[4].sub(d[2]), two.mul(d[3].sub(d[1])));
        [
            V::splat(4.0).mul_add(d[0], five.mul_add(d[2], d[4])),
            a.add(b),
            a.sub(b),
            e.add(f),
            e.sub(f),
            V::splat(4.0).mul_add(d[1], five.mul_add(d[3], d[5])),
        ]
    }
}

/// The 36 points back to output tiles: `A^T m A`, with bias, residual and activation.
struct Scatter<'a> {
    shape: Shape<'a>,
    /// `[points, block, out]`.
    products: &'a [f32],
    bias: &'a [f32],
    residual: Option<&'a [f32]>,
    activation: Activation,
    output: Place,
}

impl Kernel for Scatter<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Shape { spec, out: (oh, ow), tiling, tiles, .. } = self.shape;
        let c = spec.out_channels;
        for tile in tiles.0..tiles.1 {
            let (ty, tx) = (tile / tiling.across * OUT, tile % tiling.across * OUT);
            let (rows, columns) = (OUT.min(oh - ty), OUT.min(ow - tx));
            let mut channel = 0;
            while channel < c {
                let count = V::LANES.min(c - channel);
                let whole = count == V::LANES;
                // SAFETY: the tile has its place in `products`; only rows and columns inside the output are written.
                unsafe {
                    let read = |p: *const f32| if whole { V::load(p) } else { V::load_part(p, count) };
                    let base = self.products.as_ptr().add((tile - tiles.0) * c + channel);
                    let mut half = [[V::splat(0.0); IN]; OUT];
                    for x in 0..IN {
                        let at = |y: usize| read(base.add((y * IN + x) * tiling.block * c));
                        let column = after(std::array::from_fn(at));
                        for y in 0..OUT {
                            half[y][x] = column[y];
                        }
                    }
                    let bias = read(self.bias.as_ptr().add(channel));
                    for (y, row) in half.into_iter().enumerate().take(rows) {
                        for (x, v) in after(row).into_iter().enumerate().take(columns) {
                            let at = ((ty + y) * ow + tx + x) * c + channel;
                            let mut v = v.add(bias);
                            if let Some(residual) = self.residual {
                                v = v.add(read(residual.as_ptr().add(at)));
                            }
                            let v = activate(v, self.activation);
                            let to = self.output.0.add(at);
                            if whole { v.store(to) } else { v.store_part(to, count) }
                        }
                    }
                }
                channel += count;
            }
        }
    }
}

/// `A^T m` for one line.
#[inline(always)]
unsafe fn after<V: Vector>(m: [V; IN]) -> [V; OUT] {
    // SAFETY: the caller runs where the instructions are there.
    unsafe {
        let (a, b) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (e, f) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(a).add(e),
            V::splat(2.0).mul_add(f, b),
            V::splat(4.0).mul_add(e, a),
            V::splat(8.0).mul_add(f, b).add(m[5]),
        ]
    }
}
