//! The transforms of Winograd's F(4x4, 3x3) and F(2x2, 3x3), vectors along the channels.
//!
//! `OUT` is the side of an output tile, `IN`, two more, that of its input tile.
#![allow(unsafe_code)]

use super::spec::{Activation, ConvSpec};
use crate::gemm::{Element, Kernel, Vector, activate};

/// Most points of a transformed tile.
const POINTS: usize = 36;

/// How images are cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    pub(super) down: usize,
    pub(super) across: usize,
    /// Tiles of all images.
    pub(super) total: usize,
    /// Tiles transformed together.
    pub(super) block: usize,
    /// Whether there are many blocks.
    pub(super) many: bool,
    /// Side of an output tile.
    pub(super) side: usize,
}

/// Memory that tasks write, each to places of its own.
#[derive(Clone, Copy)]
pub(super) struct Place<E>(pub(super) *mut E);
// SAFETY: made by `Winograd::forward` alone, from exclusive slices that outlive its tasks, which write disjoint tiles.
unsafe impl<E> Send for Place<E> {}
// SAFETY: as above.
unsafe impl<E> Sync for Place<E> {}

#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    pub(super) spec: &'a ConvSpec,
    pub(super) image: (usize, usize),
    pub(super) out: (usize, usize),
    pub(super) tiling: Tiling,
}

impl Shape<'_> {
    /// Image, row and column of the first output of a tile.
    fn corner(&self, tile: usize) -> (usize, usize, usize) {
        let Tiling { down, across, side, .. } = self.tiling;
        (tile / (down * across), tile / across % down * side, tile % across * side)
    }
}

/// Input tiles to their points: `B^T d B`.
pub(super) struct Gather<'a, E, const OUT: usize, const IN: usize> {
    pub(super) shape: Shape<'a>,
    /// The tile that comes first in `inputs`.
    pub(super) first: usize,
    pub(super) tiles: (usize, usize),
    pub(super) images: &'a [E],
    /// `[points, block, in]`.
    pub(super) inputs: Place<f32>,
}

impl<E: Element, const OUT: usize, const IN: usize> Kernel for Gather<'_, E, OUT, IN> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Shape { spec, image: (h, w), tiling, .. } = self.shape;
        let (c, plane) = (spec.in_channels, tiling.plane(spec.in_channels));
        let zeros = [E::default(); 16];
        for tile in self.tiles.0..self.tiles.1 {
            let (image, ty, tx) = self.shape.corner(tile);
            // Where each pixel of the tile is, and whether to go on from there with the channels; zeros in the padding.
            let mut at = [(zeros.as_ptr(), 0usize); POINTS];
            for y in 0..IN {
                for x in 0..IN {
                    let (sy, sx) = ((ty + y).wrapping_sub(spec.padding[0]), (tx + x).wrapping_sub(spec.padding[1]));
                    if sy < h && sx < w {
                        at[y * IN + x] = (self.images[((image * h + sy) * w + sx) * c..].as_ptr(), usize::MAX);
                    }
                }
            }
            // SAFETY: the tile has its place in `inputs`.
            let base = unsafe { self.inputs.0.add((tile - self.first) * c) };
            for channel in (0..c).step_by(V::LANES) {
                let count = V::LANES.min(c - channel);
                // SAFETY: `count` channels of pixels inside the image, or of the zeros.
                unsafe {
                    let from = |i: usize| at[i].0.add(channel & at[i].1);
                    let to = |i: usize| base.add(i * plane + channel);
                    if count == V::LANES {
                        transform::<V, IN>(|i| E::load(from(i)), |i, v| v.store(to(i)));
                    } else {
                        transform::<V, IN>(|i| E::load_part(from(i), count), |i, v| v.store_part(to(i), count));
                    }
                }
            }
        }
    }
}

/// `B^T d B`: columns, then rows.
#[inline(always)]
unsafe fn transform<V: Vector, const IN: usize>(read: impl Fn(usize) -> V, write: impl Fn(usize, V)) {
    // SAFETY: the caller runs where the instructions are there.
    unsafe {
        let mut half = [[V::splat(0.0); IN]; IN];
        for (x, half) in half.iter_mut().enumerate() {
            *half = before(std::array::from_fn(|y| read(y * IN + x)));
        }
        for y in 0..IN {
            let row: [V; IN] = before(std::array::from_fn(|x| half[x][y]));
            for (x, v) in row.into_iter().enumerate() {
                write(y * IN + x, v);
            }
        }
    }
}

/// `B^T d` for one line.
#[inline(always)]
unsafe fn before<V: Vector, const IN: usize>(d: [V; IN]) -> [V; IN] {
    // SAFETY: the caller runs where the instructions are there.
    unsafe {
        if const { IN == 4 } {
            let v = [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])];
            return std::array::from_fn(|i| v[i]);
        }
        let (two, four, five) = (V::splat(2.0), V::splat(-4.0), V::splat(-5.0));
        // d4 - 4 d2, d3 - 4 d1, d4 - d2, 2 (d3 - d1)
        let (a, b) = (four.mul_add(d[2], d[4]), four.mul_add(d[1], d[3]));
        let (e, f) = (d[4].sub(d[2]), two.mul(d[3].sub(d[1])));
        let v = [
            V::splat(4.0).mul_add(d[0], five.mul_add(d[2], d[4])),
            a.add(b),
            a.sub(b),
            e.add(f),
            e.sub(f),
            V::splat(4.0).mul_add(d[1], five.mul_add(d[3], d[5])),
        ];
        std::array::from_fn(|i| v[i])
    }
}

/// Points back to output tiles: `A^T m A`, with bias, residual and activation.
pub(super) struct Scatter<'a, E, const OUT: usize, const IN: usize> {
    pub(super) shape: Shape<'a>,
    /// The tile that comes first in `products`.
    pub(super) first: usize,
    pub(super) tiles: (usize, usize),
    /// `[points, block, out]`.
    pub(super) products: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) residual: Option<&'a [E]>,
    pub(super) activation: Activation,
    pub(super) output: Place<E>,
}

impl<E: Element, const OUT: usize, const IN: usize> Kernel for Scatter<'_, E, OUT, IN> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Shape { spec, out: (oh, ow), tiling, .. } = self.shape;
        let (c, plane) = (spec.out_channels, tiling.plane(spec.out_channels));
        for tile in self.tiles.0..self.tiles.1 {
            let (image, ty, tx) = self.shape.corner(tile);
            let (rows, columns) = (OUT.min(oh - ty), OUT.min(ow - tx));
            for channel in (0..c).step_by(V::LANES) {
                let count = V::LANES.min(c - channel);
                let whole = count == V::LANES;
                // SAFETY: the tile has its place in `products`; only rows and columns inside the output are written.
                unsafe {
                    let read = |p: *const f32| if whole { V::load(p) } else { V::load_part(p, count) };
                    let base = self.products.as_ptr().add((tile - self.first) * c + channel);
                    let point = |x: usize, y: usize| read(base.add((y * IN + x) * plane));
                    let mut half = [[V::splat(0.0); OUT]; IN];
                    for (x, half) in half.iter_mut().enumerate() {
                        *half = after(std::array::from_fn::<V, IN, _>(|y| point(x, y)));
                    }
                    let bias = read(self.bias.as_ptr().add(channel));
                    for y in 0..rows {
                        let row: [V; OUT] = after(std::array::from_fn::<V, IN, _>(|x| half[x][y]));
                        let line = ((image * oh + ty + y) * ow + tx) * c + channel;
                        for (x, v) in row.into_iter().enumerate().take(columns) {
                            let mut v = v.add(bias);
                            if let Some(residual) = self.residual {
                                let from = residual.as_ptr().add(line + x * c);
                                v = v.add(if whole { E::load(from) } else { E::load_part(from, count) });
                            }
                            let v = match self.activation {
                                Activation::None => v,
                                Activation::Relu => v.max(V::splat(0.0)),
                                other => activate(v, other),
                            };
                            let to = self.output.0.add(line + x * c);
                            if whole { E::store(v, to) } else { E::store_part(v, to, count) }
                        }
                    }
                }
            }
        }
    }
}

/// `A^T m` for one line.
#[inline(always)]
unsafe fn after<V: Vector, const OUT: usize, const IN: usize>(m: [V; IN]) -> [V; OUT] {
    // SAFETY: the caller runs where the instructions are there.
    unsafe {
        if const { IN == 4 } {
            let v = [m[0].add(m[1].add(m[2])), m[1].sub(m[2]).sub(m[3])];
            return std::array::from_fn(|i| v[i]);
        }
        let (a, b) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (e, f) = (m[3].add(m[4]), m[3].sub(m[4]));
        let v = [
            m[0].add(a).add(e),
            V::splat(2.0).mul_add(f, b),
            V::splat(4.0).mul_add(e, a),
            V::splat(8.0).mul_add(f, b).add(m[5]),
        ];
        std::array::from_fn(|i| v[i])
    }
}
