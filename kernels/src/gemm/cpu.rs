//! The register tile and the loops around it.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::Panels;
use super::cpu_element::{Element, Product};
use super::cpu_vector::{Kernel, Vector, dispatch};
use crate::Par;
use crate::conv::{Activation, ConvSpec};

/// Where the rows of the left operand are.
pub(crate) enum Rows<'a, T> {
    /// Row `i` is `data[i * stride..][..depth]`.
    Plain { data: &'a [T], stride: usize },
    /// Row `i` is made of `taps` pieces of equal length; piece `t` begins at
    /// `data[i / across * down + i % across * right + t * next]`.
    Grid { data: &'a [T], across: usize, down: usize, right: usize, taps: usize, next: usize },
    /// Row `i` is the window of output `(i / across, i % across)` on a map `[h, w, c]`: a piece of `c` values for each pixel
    /// of the kernel, taken from `zeros`, at least `c`, where the window leaves the map.
    Window { map: &'a [T], size: [usize; 2], zeros: &'a [T], across: usize, spec: &'a ConvSpec },
}

/// What happens to a sum before it is stored.
pub(crate) struct Epilogue<'a, E> {
    /// What makes floats of whole sums; `None` where they are floats already.
    pub(crate) scale: Option<Scale<'a>>,
    /// Added to each column.
    pub(crate) bias: Option<&'a [f32]>,
    /// Added to each output, of its shape.
    pub(crate) residual: Option<&'a [E]>,
    pub(crate) activation: Activation,
}

/// Column `j` of whole sums stands for `(sum + offset[j]) * factor[j]`.
#[derive(Clone, Copy)]
pub(crate) struct Scale<'a> {
    pub(crate) offset: &'a [i32],
    pub(crate) factor: &'a [f32],
}

/// Most tiles of a band, whose rows stay in the second-level cache while the panels go by.
const TILES: usize = 16;

/// Multiply-adds that are done before another thread is awake.
const SMALL: usize = 1 << 16;

/// `out[m, columns] = epilogue(rows * packed)`; the callers check the lengths.
pub(crate) fn multiply<P: Product, E: Element>(
    packed: &Panels<P>,
    rows: &Rows<'_, P::Left>,
    m: usize,
    epilogue: &Epilogue<'_, E>,
    out: &mut [E],
    par: Par,
) {
    let (n, width) = (packed.columns, packed.isa.panel());
    if m == 0 || n == 0 {
        return;
    }
    assert_eq!(out.len(), m * n);
    match *rows {
        Rows::Plain { data, stride } => assert!((m - 1) * stride + packed.depth <= data.len()),
        Rows::Grid { data, across, down, right, taps, next } => {
            assert!(taps > 0 && packed.depth.is_multiple_of(taps * P::GROUP) && across > 0);
            let last = (m - 1) / across * down + (across.min(m) - 1) * right + (taps - 1) * next;
            assert!(last + packed.depth / taps <= data.len());
        }
        Rows::Window { map, size, zeros, across, spec } => {
            let c = spec.in_channels;
            assert!(map.len() == size[0] * size[1] * c && zeros.len() >= c && across > 0);
            assert!(c.is_multiple_of(P::GROUP) && packed.depth == spec.kernel[0] * spec.kernel[1] * c);
        }
    }
    assert!(packed.depth.is_multiple_of(P::GROUP) && epilogue.scale.is_some() == P::WHOLE);
    assert!(epilogue.scale.is_none_or(|s| s.offset.len() == n && s.factor.len() == n));
    assert!(epilogue.bias.is_none_or(|b| b.len() == n) && epilogue.residual.is_none_or(|r| r.len() == m * n));
    let tile = if packed.isa == super::Isa::Portable { 4 } else { 6 };
    // An even number of bands of nearly the same height: two or more threads end together.
    let (bands, panels) = (m.div_ceil(tile * TILES).next_multiple_of(2).min(m.div_ceil(tile)), n.div_ceil(width));
    let band = m.div_ceil(bands).next_multiple_of(2);
    let bands = m.div_ceil(band);
    // Few rows: the columns are shared out as well.
    let groups = if bands >= 8 { 1 } else { panels.min(8usize.div_ceil(bands)) };
    let per_group = panels.div_ceil(groups);
    let place = Out(out.as_mut_ptr());
    let task = |t: usize| {
        let (b, g) = (t / groups, t % groups);
        let job = Job {
            packed,
            rows,
            epilogue,
            out: place,
            rows_range: (b * band, ((b + 1) * band).min(m)),
            panels_range: (g * per_group, ((g + 1) * per_group).min(panels)),
        };
        // SAFETY: `packed.isa` is available (it was when packing, on this processor); the lengths were checked above, and
        // tasks write disjoint blocks of `out`.
        unsafe { P::run(packed.isa, job) };
    };
    match par {
        Par::Rayon if bands * groups > 1 && m * n * packed.depth > SMALL => {
            (0..bands * groups).into_par_iter().for_each(task)
        }
        _ => (0..bands * groups).for_each(task),
    }
}

/// The output; tasks write disjoint blocks.
#[derive(Clone, Copy)]
struct Out<E>(*mut E);
// SAFETY: made by `multiply` alone, from an exclusive slice that outlives its tasks, which write disjoint blocks.
unsafe impl<E> Send for Out<E> {}
// SAFETY: as above.
unsafe impl<E> Sync for Out<E> {}

struct Job<'a, P: Product, E> {
    packed: &'a Panels<P>,
    rows: &'a Rows<'a, P::Left>,
    epilogue: &'a Epilogue<'a, E>,
    out: Out<E>,
    rows_range: (usize, usize),
    panels_range: (usize, usize),
}

impl<P: Product, E: Element> Kernel for Job<'_, P, E> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for panel in self.panels_range.0..self.panels_range.1 {
            let left = self.packed.columns - panel * V::VECTORS * V::LANES;
            // The last panel is computed as wide as it is filled.
            // SAFETY: rows and panels are in range; see `multiply`.
            unsafe {
                match left.div_ceil(V::LANES).min(V::VECTORS) {
                    1 => self.panel::<V, 1>(panel),
                    2 => self.panel::<V, 2>(panel),
                    filled => {
                        // Constant conditions: what a vector has no use for is not even compiled.
                        if const { V::VECTORS > 2 } {
                            if filled == 3 { self.panel::<V, 3>(panel) } else { self.panel::<V, 4>(panel) }
                        }
                    }
                }
            }
        }
    }
}

impl<P: Product, E: Element> Job<'_, P, E> {
    #[inline(always)]
    unsafe fn panel<V: Vector, const N: usize>(&self, panel: usize) {
        let (mut row, last) = self.rows_range;
        while row < last {
            let left = last - row;
            // SAFETY: as for the caller.
            unsafe {
                if const { V::ROWS == 6 } && left >= 6 {
                    self.tile::<V, 6, N>(row, panel);
                    row += 6;
                } else if left >= 4 {
                    self.tile::<V, 4, N>(row, panel);
                    row += 4;
                } else if left >= 2 {
                    self.tile::<V, 2, N>(row, panel);
                    row += 2;
                } else {
                    self.tile::<V, 1, N>(row, panel);
                    row += 1;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const N: usize>(&self, row: usize, panel: usize) {
        // Depth in words, width in lanes.
        let (depth, width) = (self.packed.depth / P::GROUP, V::VECTORS * V::LANES);
        // SAFETY: the panel is in range and has depth * width words; every row pointer is good for its piece.
        unsafe {
            let mut b = self.packed.panels.as_ptr().add(panel * depth * width);
            let mut sum = [[V::splat(0.0); N]; R];
            match *self.rows {
                Rows::Plain { data, stride } => {
                    let at: [*const P::Left; R] = std::array::from_fn(|i| data.as_ptr().add((row + i) * stride));
                    sum = accumulate::<P, V, R, N>(sum, at, b, depth);
                }
                Rows::Grid { data, across, down, right, taps, next } => {
                    let places = places::<R>(row, across);
                    let at = places.map(|(y, x)| data.as_ptr().add(y * down + x * right));
                    let piece = depth / taps;
                    for t in 0..taps {
                        sum = accumulate::<P, V, R, N>(sum, at.map(|p| p.add(t * next)), b, piece);
                        b = b.add(piece * width);
                    }
                }
                Rows::Window { map, size: [h, w], zeros, across, spec } => {
                    let (c, [top, left, ..]) = (spec.in_channels, spec.padding);
                    let places = places::<R>(row, across).map(|(y, x)| (y * spec.stride[0], x * spec.stride[1]));
                    for ky in 0..spec.kernel[0] {
                        for kx in 0..spec.kernel[1] {
                            let at = places.map(|(y, x)| {
                                let (y, x) = ((y + ky).wrapping_sub(top), (x + kx).wrapping_sub(left));
                                if y < h && x < w { map.as_ptr().add((y * w + x) * c) } else { zeros.as_ptr() }
                            });
                            sum = accumulate::<P, V, R, N>(sum, at, b, c / P::GROUP);
                            b = b.add(c / P::GROUP * width);
                        }
                    }
                }
            }
            self.finish::<V, R, N>(sum, row, panel);
        }
    }

    /// Bias, residual, activation, and the way to memory. Each is a loop of its own over the tile, short enough to be
    /// unrolled: sums that are indexed in a longer one would leave the registers.
    #[inline(always)]
    unsafe fn finish<V: Vector, const R: usize, const N: usize>(&self, mut sum: [[V; N]; R], row: usize, panel: usize) {
        let n = self.packed.columns;
        let column = panel * V::VECTORS * V::LANES;
        // Columns in the last vector of the tile; the others are full.
        let last = V::LANES.min(n - column - (N - 1) * V::LANES);
        // SAFETY: the columns, and the rows of the tile, are inside bias, residual and output.
        unsafe {
            let whole = |j: usize| j + 1 < N || last == V::LANES;
            let read = |p: *const f32, j: usize| {
                let p = p.add(column + j * V::LANES);
                if whole(j) { V::load(p) } else { V::load_part(p, last) }
            };
            let bias: [V; N] = std::array::from_fn(|j| match self.epilogue.bias {
                Some(bias) => read(bias.as_ptr(), j),
                None => V::splat(0.0),
            });
            if let (true, Some(scale)) = (P::WHOLE, self.epilogue.scale) {
                let offset: [V; N] = std::array::from_fn(|j| read(scale.offset.as_ptr().cast(), j));
                for i in 0..R {
                    for j in 0..N {
                        sum[i][j] = sum[i][j].add_whole(offset[j]);
                    }
                }
                let factor: [V; N] = std::array::from_fn(|j| read(scale.factor.as_ptr(), j));
                for i in 0..R {
                    for j in 0..N {
                        sum[i][j] = sum[i][j].mul_add(factor[j], bias[j]);
                    }
                }
            } else if self.epilogue.bias.is_some() {
                for i in 0..R {
                    for j in 0..N {
                        sum[i][j] = sum[i][j].add(bias[j]);
                    }
                }
            }
            if let Some(residual) = self.epilogue.residual {
                let from = residual.as_ptr().add(row * n + column);
                for i in 0..R {
                    for j in 0..N {
                        let from = from.add(i * n + j * V::LANES);
                        let value: V = if whole(j) { E::load(from) } else { E::load_part(from, last) };
                        sum[i][j] = sum[i][j].add(value);
                    }
                }
            }
            let (zero, six) = (V::splat(0.0), V::splat(6.0));
            let activation = self.epilogue.activation;
            if matches!(activation, Activation::Relu | Activation::Relu6) {
                for i in 0..R {
                    for j in 0..N {
                        sum[i][j] = sum[i][j].max(zero);
                    }
                }
            }
            if activation == Activation::Relu6 {
                for i in 0..R {
                    for j in 0..N {
                        sum[i][j] = sum[i][j].min(six);
                    }
                }
            }
            if activation == Activation::HardSwish {
                for i in 0..R {
                    for j in 0..N {
                        sum[i][j] = activate(sum[i][j], Activation::HardSwish);
                    }
                }
            }
            let to = self.out.0.add(row * n + column);
            if activation == Activation::Silu {
                // Too long to be unrolled over the tile: through memory.
                let mut lines = [MaybeUninit::<f32>::uninit(); 6 * 64];
                let line = lines.as_mut_ptr().cast::<f32>();
                for i in 0..R {
                    for j in 0..N {
                        sum[i][j].store(line.add((i * N + j) * V::LANES));
                    }
                }
                for i in 0..R {
                    silu_line::<V, E>(line.add(i * N * V::LANES), to.add(i * n), (N - 1) * V::LANES + last);
                }
                return;
            }
            for i in 0..R {
                for j in 0..N {
                    let to = to.add(i * n + j * V::LANES);
                    if whole(j) { E::store(sum[i][j], to) } else { E::store_part(sum[i][j], to, last) }
                }
            }
        }
    }
}

/// Row and column of the outputs from `first` on, in a map that many `across`.
#[inline(always)]
fn places<const R: usize>(first: usize, across: usize) -> [(usize, usize); R] {
    let (mut y, mut x) = (first / across, first % across);
    std::array::from_fn(|_| {
        let place = (y, x);
        x += 1;
        if x == across {
            (y, x) = (y + 1, 0);
        }
        place
    })
}

/// SiLU of `width` sums on the way to their place.
#[inline(always)]
unsafe fn silu_line<V: Vector, E: Element>(line: *const f32, to: *mut E, width: usize) {
    // SAFETY: the caller guarantees whole vectors behind `line`, and room for `width` numbers behind `to`.
    unsafe {
        for j in (0..width).step_by(V::LANES) {
            let (value, count) = (activate(V::load(line.add(j)), Activation::Silu), V::LANES.min(width - j));
            if count == V::LANES { E::store(value, to.add(j)) } else { E::store_part(value, to.add(j), count) }
        }
    }
}

/// `sum[i] + at[i][k] * b[k]` over the words `k` in `0..depth`, in that order. By value, so that the sums stay in registers.
#[inline(always)]
unsafe fn accumulate<P: Product, V: Vector, const R: usize, const N: usize>(
    mut sum: [[V; N]; R],
    at: [*const P::Left; R],
    mut b: *const f32,
    depth: usize,
) -> [[V; N]; R] {
    // SAFETY: the caller guarantees `depth` words behind every pointer and a panel's width for each of them behind `b`.
    unsafe {
        for k in 0..depth {
            let line: [V; N] = std::array::from_fn(|j| V::load(b.add(j * V::LANES)));
            for i in 0..R {
                let a = V::splat(at[i].cast::<f32>().add(k).read_unaligned());
                for j in 0..N {
                    sum[i][j] = P::step(a, line[j], sum[i][j]);
                }
            }
            b = b.add(V::VECTORS * V::LANES);
        }
    }
    sum
}

/// The activation of every lane.
#[inline(always)]
pub(crate) unsafe fn activate<V: Vector>(x: V, activation: Activation) -> V {
    // SAFETY: the caller runs where the instructions are there.
    unsafe {
        let (zero, six) = (V::splat(0.0), V::splat(6.0));
        match activation {
            Activation::None => x,
            Activation::Relu => x.max(zero),
            Activation::Relu6 => x.max(zero).min(six),
            Activation::HardSwish => {
                let gate = x.add(V::splat(3.0)).max(zero).min(six);
                x.mul(gate.mul(V::splat(1.0 / 6.0)))
            }
            Activation::Silu => x.div(V::splat(1.0).add(exp_minus(x))),
        }
    }
}

/// `f` of every value in place, for `f` one of those below.
pub(crate) fn activate_slice(values: &mut [f32], f: Pointwise) {
    struct Job<'a>(&'a mut [f32], Pointwise);
    impl Kernel for Job<'_> {
        #[inline(always)]
        unsafe fn run<V: Vector>(self) {
            for chunk in self.0.chunks_mut(V::LANES) {
                let (at, count) = (chunk.as_mut_ptr(), chunk.len());
                // SAFETY: `count` floats from `at`.
                unsafe {
                    let x = V::load_part(at, count);
                    let one = V::splat(1.0);
                    let y = match self.1 {
                        Pointwise::Activation(activation) => activate(x, activation),
                        Pointwise::Sigmoid => one.div(one.add(exp_minus(x))),
                        Pointwise::HardSigmoid => {
                            let gate = x.add(V::splat(3.0)).max(V::splat(0.0)).min(V::splat(6.0));
                            gate.mul(V::splat(1.0 / 6.0))
                        }
                    };
                    y.store_part(at, count);
                }
            }
        }
    }
    // SAFETY: the instructions were detected; the slice is exclusive.
    unsafe { dispatch(super::Isa::best(), Job(values, f)) }
}

/// What [`activate_slice`] computes.
#[derive(Clone, Copy)]
pub(crate) enum Pointwise {
    Activation(Activation),
    Sigmoid,
    HardSigmoid,
}

/// `e^-x` for sigmoids, cut off at ±87. Its relative error is below 5e-7 for `|x| < 8` and grows to 4e-6 at 87, by the
/// last bit of the constant.
#[inline(always)]
pub(crate) unsafe fn exp_minus<V: Vector>(x: V) -> V {
    // SAFETY: the caller runs where the instructions are there.
    unsafe {
        let x = x.max(V::splat(-87.0)).min(V::splat(87.0));
        let scale = V::splat(-std::f32::consts::LOG2_E);
        let n = x.mul(scale).round();
        let f = x.mul_add(scale, V::splat(0.0).sub(n));
        // 2^f for |f| <= 1/2: the polynomial of degree 5 with the smallest relative error, 7.5e-8 before rounding.
        let mut p = V::splat(1.327_647_2e-3);
        for c in [9.675_541e-3, 5.550_713e-2, 0.240_221_2, 0.693_146_94, 1.000_000_1] {
            p = p.mul_add(f, V::splat(c));
        }
        p.scale_exp2(n)
    }
}

/// `e^x` with a relative error below 3e-7, cut off at -87 and 87.
#[inline(always)]
pub(crate) unsafe fn exp<V: Vector>(x: V) -> V {
    // SAFETY: the caller runs where the instructions are there.
    unsafe {
        let x = x.max(V::splat(-87.0)).min(V::splat(87.0));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts, so that the remainder is exact to the last bit (Cody and Waite, 1980).
        let r = n.mul_add(V::splat(-0.693_359_4), x);
        let r = n.mul_add(V::splat(2.121_944_4e-4), r);
        let mut p = V::splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p.mul_add(r, V::splat(c));
        }
        p.scale_exp2(n)
    }
}
