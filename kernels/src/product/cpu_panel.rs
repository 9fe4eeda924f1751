//! Register tiles of six rows and a panel's 64 samples.
#![allow(unsafe_code)]

use super::cpu_narrow;
use super::cpu_out::Out;
use super::cpu_target::{Target, sized, tile_rows};
use super::panel::PANEL;
use crate::adam::{AdamStep, step_slice};
use crate::gemm::{Isa, Kernel, Vector, dispatch};

/// `out[r, ..] = sum over k of a(r, k) * x[k, ..]` for each panel; `a(r, k)` is at `r * strides.0 + k * strides.1`, and one of
/// the strides is 1.
pub(super) struct Product<'a> {
    pub(super) isa: Isa,
    pub(super) a: &'a [f32],
    pub(super) strides: (usize, usize),
    pub(super) depth: usize,
    pub(super) x: &'a [f32],
    pub(super) x_rows: usize,
    pub(super) to: Target<'a>,
}

impl Product<'_> {
    /// Rows `first..last` of every panel.
    pub(super) fn rows(&self, first: usize, last: usize) {
        if first >= last {
            return;
        }
        let end = (last - 1) * self.strides.0 + self.depth.saturating_sub(1) * self.strides.1;
        assert!(end < self.a.len() && self.depth <= self.x_rows && self.to.holds(last));
        assert!(self.x.len() == self.to.panels * self.x_rows * PANEL);
        assert!(self.strides.0 == 1 || self.strides.1 == 1);
        // SAFETY: the instructions are there; every address was checked above; the caller's tasks have disjoint rows.
        unsafe { dispatch(self.isa, ProductRows { job: self, first, last }) }
    }
}

struct ProductRows<'a> {
    job: &'a Product<'a>,
    first: usize,
    last: usize,
}

impl Kernel for ProductRows<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        if V::VECTORS * V::LANES < PANEL {
            // SAFETY: `Product::rows` checked what it wants.
            return unsafe { cpu_narrow::product::<V>(self.job, self.first, self.last) };
        }
        let mut row = self.first;
        while row < self.last {
            let count = tile_rows(self.last - row, V::ROWS);
            for panel in 0..self.job.to.panels {
                let mut column = 0;
                while column < PANEL {
                    // SAFETY: rows, panel and columns are in range; see `Product::rows`.
                    unsafe {
                        sized!(count, self.tile::<V>(row, panel, column));
                    }
                    column += V::VECTORS * V::LANES;
                }
            }
            row += count;
        }
    }
}

impl ProductRows<'_> {
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const N: usize>(&self, row: usize, panel: usize, column: usize) {
        let job = self.job;
        // SAFETY: as for the caller.
        unsafe {
            let x = job.x.as_ptr().add(panel * job.x_rows * PANEL + column);
            let a = job.a.as_ptr().add(row * job.strides.0);
            let zero = [[V::splat(0.0); N]; R];
            let sum = if job.strides.1 == 1 {
                along_rows::<V, R, N>(zero, a, job.strides.0, x, PANEL, job.depth)
            } else {
                across_rows::<V, R, N>(zero, a, job.strides.1, x, PANEL, job.depth)
            };
            job.to.take(sum, row, panel, column);
        }
    }
}

/// `sum[i] + a[i * stride + k] * b[k * step ..]` over `k`.
#[inline(always)]
pub(super) unsafe fn along_rows<V: Vector, const R: usize, const N: usize>(
    mut sum: [[V; N]; R],
    a: *const f32,
    stride: usize,
    mut b: *const f32,
    step: usize,
    depth: usize,
) -> [[V; N]; R] {
    // SAFETY: the caller guarantees the addresses.
    unsafe {
        let at: [*const f32; R] = std::array::from_fn(|i| a.add(i * stride));
        for k in 0..depth {
            let line: [V; N] = std::array::from_fn(|j| V::load(b.add(j * V::LANES)));
            for i in 0..R {
                let a = V::splat(*at[i].add(k));
                for j in 0..N {
                    sum[i][j] = a.mul_add(line[j], sum[i][j]);
                }
            }
            b = b.wrapping_add(step);
        }
    }
    sum
}

/// `sum[i] + a[i + k * stride] * b[k * step ..]` over `k`.
#[inline(always)]
pub(super) unsafe fn across_rows<V: Vector, const R: usize, const N: usize>(
    mut sum: [[V; N]; R],
    mut a: *const f32,
    stride: usize,
    mut b: *const f32,
    step: usize,
    depth: usize,
) -> [[V; N]; R] {
    // SAFETY: the caller guarantees the addresses.
    unsafe {
        for _ in 0..depth {
            let line: [V; N] = std::array::from_fn(|j| V::load(b.add(j * V::LANES)));
            for i in 0..R {
                let a = V::splat(*a.add(i));
                for j in 0..N {
                    sum[i][j] = a.mul_add(line[j], sum[i][j]);
                }
            }
            a = a.wrapping_add(stride);
            b = b.wrapping_add(step);
        }
    }
    sum
}

/// Where a tile of a weight's gradient goes.
#[derive(Clone, Copy)]
pub(super) enum Sink<'a> {
    /// Into a gradient of the weight's shape.
    Write { gradient: Out<'a> },
    /// Into the weight, by a step of Adam.
    Adam { weight: Out<'a>, first: Out<'a>, second: Out<'a>, step: AdamStep },
}

impl Sink<'_> {
    /// Values it can take.
    pub(super) fn len(&self) -> usize {
        match self {
            Sink::Write { gradient } => gradient.len,
            Sink::Adam { weight, first, second, .. } => weight.len.min(first.len).min(second.len),
        }
    }

    /// Asks for the memory of a tile of some rows, `inputs` apart, and `width` columns.
    #[inline(always)]
    pub(super) unsafe fn fetch(&self, row: usize, rows: usize, inputs: usize, column: usize, width: usize) {
        let Sink::Adam { weight, first, second, .. } = self else { return };
        for i in 0..rows {
            let at = (row + i) * inputs + column;
            for line in (0..width).step_by(16) {
                // SAFETY: the caller guarantees that the tile is inside.
                unsafe {
                    prefetch(weight.at.add(at + line));
                    prefetch(first.at.add(at + line));
                    prefetch(second.at.add(at + line));
                }
            }
        }
    }

    /// Takes a tile.
    #[inline(always)]
    pub(super) unsafe fn take<V: Vector, const R: usize, const N: usize>(
        &self,
        sum: &[[V; N]; R],
        row: usize,
        inputs: usize,
        column: usize,
        width: usize,
    ) {
        let mut buffer = [[0.0f32; PANEL]; R];
        // SAFETY: the caller guarantees that the tile is inside; a line has room for the vectors.
        unsafe {
            for (line, sum) in buffer.iter_mut().zip(sum) {
                for (j, v) in sum.iter().enumerate() {
                    v.store(line.as_mut_ptr().add(j * V::LANES));
                }
            }
            for (i, line) in buffer.iter().enumerate() {
                let at = (row + i) * inputs + column;
                match self {
                    Sink::Write { gradient } => {
                        std::ptr::copy_nonoverlapping(line.as_ptr(), gradient.at.add(at), width);
                    }
                    Sink::Adam { weight, first, second, step } => {
                        let [p, m, v] =
                            [weight, first, second].map(|out| std::slice::from_raw_parts_mut(out.at.add(at), width));
                        step_slice(step, p, m, v, &line[..width]);
                    }
                }
            }
        }
    }
}

/// `g * x^T`, tile by tile.
pub(super) struct Tiles<'a> {
    pub(super) isa: Isa,
    pub(super) sink: Sink<'a>,
    pub(super) inputs: usize,
    pub(super) g: &'a [f32],
    pub(super) g_rows: usize,
    /// `[blocks, panels * 64, 64]`.
    pub(super) x: &'a [f32],
    pub(super) panels: usize,
}

impl Tiles<'_> {
    /// Rows `first..last` of the weight.
    pub(super) fn rows(&self, first: usize, last: usize) {
        assert!(last * self.inputs <= self.sink.len() && last <= self.g_rows);
        assert!(self.g.len() == self.panels * self.g_rows * PANEL);
        assert!(self.x.len() == self.inputs.div_ceil(PANEL) * self.panels * PANEL * PANEL);
        // SAFETY: the instructions are there; every address was checked above; the caller's tasks have disjoint rows.
        unsafe { dispatch(self.isa, TileRows { job: self, first, last }) }
    }
}

pub(super) struct TileRows<'a> {
    pub(super) job: &'a Tiles<'a>,
    pub(super) first: usize,
    pub(super) last: usize,
}

impl Kernel for TileRows<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let job = self.job;
        if V::VECTORS * V::LANES < PANEL {
            // SAFETY: `Tiles::rows` checked what it wants.
            return unsafe { cpu_narrow::tiles::<V>(&self) };
        }
        let mut row = self.first;
        while row < self.last {
            let count = tile_rows(self.last - row, V::ROWS);
            for column in (0..job.inputs).step_by(PANEL) {
                // SAFETY: rows and columns are in range; see `Tiles::rows`.
                unsafe {
                    let x = job.x.as_ptr().add(column * job.panels * PANEL);
                    job.sink.fetch(row, count, job.inputs, column, PANEL.min(job.inputs - column));
                    sized!(count, self.tile::<V>(row, column, x, PANEL));
                }
            }
            row += count;
        }
    }
}

impl TileRows<'_> {
    /// The samples' columns from `column` on are at `x`, `step` apart.
    #[inline(always)]
    pub(super) unsafe fn tile<V: Vector, const R: usize, const N: usize>(
        &self,
        row: usize,
        column: usize,
        x: *const f32,
        step: usize,
    ) {
        let job = self.job;
        let width = (N * V::LANES).min(job.inputs - column);
        // SAFETY: as for the caller; `width` columns of each row are inside the weight.
        unsafe {
            let mut sum = [[V::splat(0.0); N]; R];
            for panel in 0..job.panels {
                let g = job.g.as_ptr().add((panel * job.g_rows + row) * PANEL);
                sum = along_rows::<V, R, N>(sum, g, PANEL, x.add(panel * PANEL * step), step, PANEL);
            }
            job.sink.take::<V, R, N>(&sum, row, job.inputs, column, width);
        }
    }
}

/// Asks for a cache line.
#[inline(always)]
unsafe fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch does not fault, and every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// See [`super::panel::transpose`], which checks the lengths.
pub(super) fn transpose(isa: Isa, x: &[f32], rows: usize, used: usize, at: usize, out: &mut [f32]) {
    // SAFETY: the instructions are there; the kernel indexes with checks.
    unsafe { dispatch(isa, Transpose { x, rows, used, at, out }) }
}

struct Transpose<'a> {
    x: &'a [f32],
    rows: usize,
    used: usize,
    at: usize,
    out: &'a mut [f32],
}

/// Side of the blocks that are turned in registers.
const SIDE: usize = 16;

impl Kernel for Transpose<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let samples = self.x.len() / self.rows;
        for (panel, x) in self.x.chunks_exact(self.rows * PANEL).enumerate() {
            let mut row = 0;
            while row < self.used {
                let column = self.at + row;
                // Up to the end of a block of columns.
                let count = SIDE.min(self.used - row).min(PANEL - column % PANEL);
                let base = (column / PANEL * samples + panel * PANEL) * PANEL + column % PANEL;
                for first in (0..PANEL).step_by(SIDE) {
                    let mut block = [[0.0f32; SIDE]; SIDE];
                    for (r, line) in block.iter_mut().enumerate().take(count) {
                        line.copy_from_slice(&x[(row + r) * PANEL + first..][..SIDE]);
                    }
                    let turned: [[f32; SIDE]; SIDE] = std::array::from_fn(|f| std::array::from_fn(|r| block[r][f]));
                    for (f, line) in turned.iter().enumerate() {
                        self.out[base + (first + f) * PANEL..][..count].copy_from_slice(&line[..count]);
                    }
                }
                row += count;
            }
        }
    }
}
