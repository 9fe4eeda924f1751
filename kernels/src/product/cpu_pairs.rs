//! Register tiles of pairs of bf16: six rows and a panel's 64 samples.
#![allow(unsafe_code)]

use super::cpu_panel::Sink;
use super::cpu_target::{Target, sized, tile_rows};
use super::panel::PANEL;
use crate::gemm::{Isa, Kernel, Vector, dispatch_bf16};

/// `out[r, ..] = sum over k of a(r, k) * x[k, ..]` for each panel, where `a` is the weight `[.., inputs]` or, `turned`, its
/// transpose; `x` is `[panels, words, 64]` pairs of channels.
pub(super) struct Product<'a> {
    pub(super) isa: Isa,
    pub(super) weight: &'a [f32],
    pub(super) inputs: usize,
    pub(super) turned: bool,
    pub(super) words: usize,
    pub(super) x: &'a [u32],
    pub(super) to: Target<'a>,
}

impl Product<'_> {
    /// Rows `first..last` of every panel.
    pub(super) fn rows(&self, first: usize, last: usize) {
        if first >= last {
            return;
        }
        let outputs = self.weight.len() / self.inputs;
        let (rows, depth) = if self.turned { (self.inputs, outputs) } else { (outputs, self.inputs) };
        assert!(last <= rows && self.to.holds(last) && self.words == depth.div_ceil(2));
        assert!(self.x.len() == self.to.panels * self.words * PANEL);
        // SAFETY: the instructions are there; every address was checked above; the caller's tasks have disjoint rows.
        unsafe { dispatch_bf16(self.isa, ProductRows { job: self, depth, first, last }) }
    }
}

struct ProductRows<'a> {
    job: &'a Product<'a>,
    depth: usize,
    first: usize,
    last: usize,
}

/// Lanes of the widest vector.
const WIDE: usize = 16;

impl Kernel for ProductRows<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let ProductRows { job, depth, first, last } = self;
        let words = job.words;
        // Words `[rows, words]`, or `[words, rows]` if turned.
        let stride = if job.turned { (last - first).next_multiple_of(WIDE) } else { words };
        let count = if job.turned { words * stride } else { (last - first) * stride };
        let mut block: Vec<f32> = Vec::with_capacity(count);
        let at = block.as_mut_ptr();
        // SAFETY: the weight has rows and columns for `first..last` and `depth`; the block room for all of them, and every
        // word of it that the tiles read is written here.
        unsafe {
            if job.turned {
                for k in 0..words {
                    let row = job.weight.as_ptr().add(2 * k * job.inputs + first);
                    let next = (2 * k + 1 < depth).then(|| row.add(job.inputs));
                    for c in (0..last - first).step_by(V::LANES) {
                        let n = V::LANES.min(last - first - c);
                        let read = |row: *const f32| {
                            if n == V::LANES { V::load(row.add(c)) } else { V::load_part(row.add(c), n) }
                        };
                        let second = next.map_or(V::splat(0.0), read);
                        read(row).zip_pairs(second).store(at.add(k * stride + c));
                    }
                }
            } else {
                for r in first..last {
                    let row = job.weight.as_ptr().add(r * job.inputs);
                    round_row::<V>(row, depth, at.add((r - first) * stride));
                }
            }
        }
        for panel in 0..job.to.panels {
            let mut row = first;
            while row < last {
                let rows = tile_rows(last - row, V::ROWS);
                let mut column = 0;
                while column < PANEL {
                    // SAFETY: rows, panel and columns are in range; see `Product::rows`.
                    unsafe {
                        let a = at.add((row - first) * if job.turned { 1 } else { stride });
                        let tile = Tile { job, a, stride, row, panel, column };
                        sized!(rows, tile.run::<V>());
                    }
                    column += V::VECTORS * V::LANES;
                }
                row += rows;
            }
        }
    }
}

/// Rounds `n` neighbouring floats to `ceil(n / 2)` words.
#[inline(always)]
unsafe fn round_row<V: Vector>(from: *const f32, n: usize, to: *mut f32) {
    let mut done = 0;
    // SAFETY: the caller guarantees the addresses.
    unsafe {
        while done + 2 * V::LANES <= n {
            V::load_pairs(from.add(done)).store(to.add(done / 2));
            done += 2 * V::LANES;
        }
        if done < n {
            let mut rest = [0.0f32; 2 * WIDE];
            std::ptr::copy_nonoverlapping(from.add(done), rest.as_mut_ptr(), n - done);
            V::load_pairs(rest.as_ptr()).store_part(to.add(done / 2), (n - done).div_ceil(2));
        }
    }
}

struct Tile<'a> {
    job: &'a Product<'a>,
    a: *const f32,
    stride: usize,
    row: usize,
    panel: usize,
    column: usize,
}

impl Tile<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector, const R: usize, const N: usize>(self) {
        let Tile { job, a, stride, row, panel, column } = self;
        // SAFETY: as for the caller.
        unsafe {
            let x = job.x.as_ptr().add(panel * job.words * PANEL + column).cast();
            let zero = [[V::splat(0.0); N]; R];
            let sum = if job.turned {
                sums::<V, R, N, true>(zero, a, stride, x, job.words)
            } else {
                sums::<V, R, N, false>(zero, a, stride, x, job.words)
            };
            job.to.take(sum, row, panel, column);
        }
    }
}

/// `sum[i] + a(i, k) * b[k * 64 ..]` over words `k`; `a(i, k)` is at `i * stride + k` or, `ACROSS`, at `i + k * stride`.
#[inline(always)]
unsafe fn sums<V: Vector, const R: usize, const N: usize, const ACROSS: bool>(
    mut sum: [[V; N]; R],
    mut a: *const f32,
    stride: usize,
    mut b: *const f32,
    words: usize,
) -> [[V; N]; R] {
    let (down, along) = if ACROSS { (1, stride) } else { (stride, 1) };
    // SAFETY: the caller guarantees the addresses.
    unsafe {
        for _ in 0..words {
            let line: [V; N] = std::array::from_fn(|j| V::load(b.add(j * V::LANES)));
            for i in 0..R {
                let a = V::splat(*a.add(i * down));
                for j in 0..N {
                    sum[i][j] = a.dot_bf16(line[j], sum[i][j]);
                }
            }
            a = a.wrapping_add(along);
            b = b.wrapping_add(PANEL);
        }
    }
    sum
}

/// `g * x^T`, tile by tile, in pairs of samples.
pub(super) struct Tiles<'a> {
    pub(super) isa: Isa,
    pub(super) sink: Sink<'a>,
    pub(super) inputs: usize,
    pub(super) g: &'a [f32],
    pub(super) g_rows: usize,
    /// `[blocks, panels * 32, 64]`.
    pub(super) x: &'a [u32],
    pub(super) panels: usize,
}

impl Tiles<'_> {
    /// Rows `first..last` of the weight.
    pub(super) fn rows(&self, first: usize, last: usize) {
        assert!(last * self.inputs <= self.sink.len() && last <= self.g_rows);
        assert!(self.g.len() == self.panels * self.g_rows * PANEL);
        assert!(self.x.len() == self.inputs.div_ceil(PANEL) * self.panels * PANEL / 2 * PANEL);
        // SAFETY: the instructions are there; every address was checked above; the caller's tasks have disjoint rows.
        unsafe { dispatch_bf16(self.isa, TileRows { job: self, first, last }) }
    }
}

struct TileRows<'a> {
    job: &'a Tiles<'a>,
    first: usize,
    last: usize,
}

impl Kernel for TileRows<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let job = self.job;
        let words = job.panels * PANEL / 2;
        let mut lines: Vec<f32> = Vec::with_capacity(6 * words);
        let at = lines.as_mut_ptr();
        let mut row = self.first;
        while row < self.last {
            let count = tile_rows(self.last - row, V::ROWS);
            // SAFETY: rows and panels are in range, see `Tiles::rows`; `count` is at most 6.
            unsafe {
                for i in 0..count {
                    for panel in 0..job.panels {
                        let from = job.g.as_ptr().add((panel * job.g_rows + row + i) * PANEL);
                        round_row::<V>(from, PANEL, at.add(i * words + panel * PANEL / 2));
                    }
                }
            }
            let mut column = 0;
            while column < job.inputs {
                // SAFETY: rows and columns are in range; see `Tiles::rows`.
                unsafe {
                    sized!(count, self.tile::<V>(at, row, column));
                }
                column += V::VECTORS * V::LANES;
            }
            row += count;
        }
    }
}

impl TileRows<'_> {
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const N: usize>(&self, lines: *const f32, row: usize, column: usize) {
        let job = self.job;
        let words = job.panels * PANEL / 2;
        let width = (N * V::LANES).min(job.inputs - column);
        // SAFETY: as for the caller; `width` columns of each row are inside the weight.
        unsafe {
            job.sink.fetch(row, R, job.inputs, column, width);
            let x = job.x.as_ptr().add(column / PANEL * words * PANEL + column % PANEL).cast();
            let sum = sums::<V, R, N, false>([[V::splat(0.0); N]; R], lines, words, x, words);
            job.sink.take::<V, R, N>(&sum, row, job.inputs, column, width);
        }
    }
}

/// Rows of 64 as pairs: `out` has half of them, rounded up.
pub(super) fn channels(isa: Isa, x: &[f32], out: &mut [u32]) {
    // SAFETY: the instructions are there; the kernel indexes with checks.
    unsafe { dispatch_bf16(isa, Channels { x, out }) }
}

struct Channels<'a> {
    x: &'a [f32],
    out: &'a mut [u32],
}

impl Kernel for Channels<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for (pair, out) in self.x.chunks(2 * PANEL).zip(self.out.chunks_exact_mut(PANEL)) {
            let (first, second) = pair.split_at(PANEL);
            for at in (0..PANEL).step_by(V::LANES) {
                // SAFETY: rows are 64 long, a multiple of the lanes; the second one may be missing.
                unsafe {
                    let second = if second.is_empty() { V::splat(0.0) } else { V::load(second.as_ptr().add(at)) };
                    V::load(first.as_ptr().add(at)).zip_pairs(second).store(out.as_mut_ptr().add(at).cast());
                }
            }
        }
    }
}

/// See [`super::pairs::transpose`], which checks the lengths.
pub(super) fn transpose(isa: Isa, x: &[f32], rows: usize, used: usize, at: usize, out: &mut [u32]) {
    // SAFETY: the instructions are there; the kernel indexes with checks.
    unsafe { dispatch_bf16(isa, Transpose { x, rows, used, at, out }) }
}

struct Transpose<'a> {
    x: &'a [f32],
    rows: usize,
    used: usize,
    at: usize,
    out: &'a mut [u32],
}

/// Side of the blocks that are turned in registers.
const SIDE: usize = 16;

impl Kernel for Transpose<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let words = self.x.len() / self.rows / 2;
        for (panel, x) in self.x.chunks_exact(self.rows * PANEL).enumerate() {
            let mut row = 0;
            while row < self.used {
                let column = self.at + row;
                // Up to the end of a block of columns.
                let count = SIDE.min(self.used - row).min(PANEL - column % PANEL);
                let base = (column / PANEL * words + panel * PANEL / 2) * PANEL + column % PANEL;
                for first in (0..PANEL / 2).step_by(SIDE) {
                    let mut block = [[0u32; SIDE]; SIDE];
                    for (r, line) in block.iter_mut().enumerate().take(count) {
                        let from = &x[(row + r) * PANEL + 2 * first..][..2 * SIDE];
                        // SAFETY: 32 floats are read, 16 words written.
                        unsafe { round_row::<V>(from.as_ptr(), 2 * SIDE, line.as_mut_ptr().cast()) };
                    }
                    let turned: [[u32; SIDE]; SIDE] = std::array::from_fn(|f| std::array::from_fn(|r| block[r][f]));
                    for (f, line) in turned.iter().enumerate() {
                        self.out[base + (first + f) * PANEL..][..count].copy_from_slice(&line[..count]);
                    }
                }
                row += count;
            }
        }
    }
}
