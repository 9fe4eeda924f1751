//! The register tile and the loops around it.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::Packed;
use super::cpu_vector::{Kernel, Vector, dispatch};
use crate::Par;
use crate::conv::Activation;

/// Where the rows of the left operand are.
pub(crate) enum Rows<'a> {
    /// Row `i` is `data[i * stride..][..depth]`.
    Plain { data: &'a [f32], stride: usize },
    /// Row `i` is made of pieces of equal length: piece `t` begins at `table[i * taps + t]`, counted from the start of
    /// `data`; `u32::MAX` stands for a piece of zeros.
    Pieces { data: &'a [f32], table: &'a [u32], taps: usize },
}

/// What happens to a sum before it is stored.
pub(crate) struct Epilogue<'a> {
    /// Added to each column.
    pub(crate) bias: Option<&'a [f32]>,
    /// Added to each output, of its shape.
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) activation: Activation,
}

/// Tiles whose rows stay in the second-level cache while the panels go by.
const TILES: usize = 16;

/// `out[m, columns] = epilogue(rows * packed)`; the callers check the lengths.
pub(crate) fn multiply(packed: &Packed, rows: &Rows<'_>, m: usize, epilogue: &Epilogue<'_>, out: &mut [f32], par: Par) {
    let (n, width) = (packed.columns, packed.isa.panel());
    if m == 0 || n == 0 {
        return;
    }
    assert_eq!(out.len(), m * n);
    let zeros;
    let (data, zero) = match rows {
        Rows::Plain { data, stride } => {
            assert!((m - 1) * stride + packed.depth <= data.len());
            (*data, &[][..])
        }
        Rows::Pieces { data, table, taps } => {
            let piece = packed.depth / taps.max(&1);
            assert_eq!(table.len(), m * taps);
            assert!(table.iter().all(|&at| at == u32::MAX || at as usize + piece <= data.len()));
            zeros = vec![0.0; piece];
            (*data, zeros.as_slice())
        }
    };
    assert!(epilogue.bias.is_none_or(|b| b.len() == n) && epilogue.residual.is_none_or(|r| r.len() == m * n));
    let tile = if packed.isa == super::Isa::Portable { 4 } else { 6 };
    let band = tile * TILES;
    let (bands, panels) = (m.div_ceil(band), n.div_ceil(width));
    // Few rows: the columns are shared out as well.
    let groups = if bands >= 8 { 1 } else { panels.min(8usize.div_ceil(bands)) };
    let per_group = panels.div_ceil(groups);
    let place = Out(out.as_mut_ptr());
    let task = |t: usize| {
        let (b, g) = (t / groups, t % groups);
        let job = Job {
            packed,
            rows,
            data: data.as_ptr(),
            zero: zero.as_ptr(),
            epilogue,
            out: place,
            rows_range: (b * band, ((b + 1) * band).min(m)),
            panels_range: (g * per_group, ((g + 1) * per_group).min(panels)),
        };
        // SAFETY: `packed.isa` is available (it was when packing, on this processor); the lengths were checked above, and
        // tasks write disjoint blocks of `out`.
        unsafe { dispatch(packed.isa, job) };
    };
    match par {
        Par::Rayon if bands * groups > 1 => (0..bands * groups).into_par_iter().for_each(task),
        _ => (0..bands * groups).for_each(task),
    }
}

/// The output; tasks write disjoint blocks.
#[derive(Clone, Copy)]
struct Out(*mut f32);
// SAFETY: made by `multiply` alone, from an exclusive slice that outlives its tasks, which write disjoint blocks.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

struct Job<'a> {
    packed: &'a Packed,
    rows: &'a Rows<'a>,
    data: *const f32,
    zero: *const f32,
    epilogue: &'a Epilogue<'a>,
    out: Out,
    rows_range: (usize, usize),
    panels_range: (usize, usize),
}

impl Kernel for Job<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for panel in self.panels_range.0..self.panels_range.1 {
            let left = self.packed.columns - panel * V::VECTORS * V::LANES;
            // The last panel is computed as wide as it is filled.
            // SAFETY: rows and panels are in range; see `multiply`.
            unsafe {
                match left.div_ceil(V::LANES).min(V::VECTORS) {
                    4 => self.panel::<V, 4>(panel),
                    3 => self.panel::<V, 3>(panel),
                    2 => self.panel::<V, 2>(panel),
                    _ => self.panel::<V, 1>(panel),
                }
            }
        }
    }
}

impl Job<'_> {
    #[inline(always)]
    unsafe fn panel<V: Vector, const N: usize>(&self, panel: usize) {
        let (mut row, last) = self.rows_range;
        while row < last {
            let left = last - row;
            // SAFETY: as for the caller.
            unsafe {
                if left >= 6 && V::ROWS == 6 {
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
        let (depth, width) = (self.packed.depth, V::VECTORS * V::LANES);
        // SAFETY: the panel is in range and has depth * width floats; every row pointer is good for its piece.
        unsafe {
            let mut b = self.packed.panels.as_ptr().add(panel * depth * width);
            let mut sum = [[V::splat(0.0); N]; R];
            match self.rows {
                Rows::Plain { stride, .. } => {
                    let at: [*const f32; R] = std::array::from_fn(|i| self.data.add((row + i) * stride));
                    sum = accumulate::<V, R, N>(sum, at, b, depth);
                }
                Rows::Pieces { table, taps, .. } => {
                    let piece = depth / taps;
                    let table = table.as_ptr().add(row * taps);
                    for t in 0..*taps {
                        let at: [*const f32; R] = std::array::from_fn(|i| {
                            let offset = *table.add(i * taps + t);
                            if offset == u32::MAX { self.zero } else { self.data.add(offset as usize) }
                        });
                        sum = accumulate::<V, R, N>(sum, at, b, piece);
                        b = b.add(piece * width);
                    }
                }
            }
            self.finish::<V, R, N>(&sum, row, panel);
        }
    }

    #[inline(always)]
    unsafe fn finish<V: Vector, const R: usize, const N: usize>(&self, sum: &[[V; N]; R], row: usize, panel: usize) {
        let n = self.packed.columns;
        for j in 0..N {
            let column = (panel * V::VECTORS + j) * V::LANES;
            let count = V::LANES.min(n.saturating_sub(column));
            let whole = count == V::LANES;
            // SAFETY: `count` columns from `column` are inside bias, residual and output for the rows of the tile.
            unsafe {
                let read = |p: *const f32| if whole { V::load(p) } else { V::load_part(p, count) };
                let bias = match self.epilogue.bias {
                    Some(bias) => read(bias.as_ptr().add(column)),
                    None => V::splat(0.0),
                };
                for (i, sum) in sum.iter().enumerate() {
                    let at = (row + i) * n + column;
                    let mut v = sum[j].add(bias);
                    if let Some(residual) = self.epilogue.residual {
                        v = v.add(read(residual.as_ptr().add(at)));
                    }
                    let v = activate(v, self.epilogue.activation);
                    let to = self.out.0.add(at);
                    if whole { v.store(to) } else { v.store_part(to, count) }
                }
            }
        }
    }
}

/// `sum[i] + at[i][k] * b[k]` over `k` in `0..depth`, in that order. By value, so that the sums stay in registers.
#[inline(always)]
unsafe fn accumulate<V: Vector, const R: usize, const N: usize>(
    mut sum: [[V; N]; R],
    at: [*const f32; R],
    mut b: *const f32,
    depth: usize,
) -> [[V; N]; R] {
    // SAFETY: the caller guarantees `depth` floats behind every pointer and a panel's width for each of them behind `b`.
    unsafe {
        for k in 0..depth {
            let line: [V; N] = std::array::from_fn(|j| V::load(b.add(j * V::LANES)));
            for i in 0..R {
                let a = V::splat(*at[i].add(k));
                for j in 0..N {
                    sum[i][j] = a.mul_add(line[j], sum[i][j]);
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
            Activation::Silu => x.div(V::splat(1.0).add(exp(zero.sub(x)))),
        }
    }
}

/// `e^x` with a relative error below 3e-7, cut off at -87 and 88.
#[inline(always)]
unsafe fn exp<V: Vector>(x: V) -> V {
    // SAFETY: the caller runs where the instructions are there.
    unsafe {
        let x = x.max(V::splat(-87.0)).min(V::splat(88.0));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts, so that the remainder is exact to the last bit (Cody and Waite, 1980).
        let r = n.mul_add(V::splat(-0.693_359_4), x);
        let r = n.mul_add(V::splat(2.121_944_4e-4), r);
        let mut p = V::splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p.mul_add(r, V::splat(c));
        }
        p.mul(n.exp2_whole())
    }
}
