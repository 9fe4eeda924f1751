//! Products of panels where a register tile holds fewer than a panel's 64 samples (AVX2, NEON, portable code).
//!
//! A panel is then gone through in strips of some columns. Their lines lie 256 bytes apart, which uses a quarter of a cache of the first
//! level, and are read again for every six rows: so a piece of a strip, [`DEPTH`] rows, is copied together and used for all rows of a
//! task. Sums that are not complete wait in memory; each is added up in the same order as in one go, to the same bits.
#![allow(unsafe_code)]

use super::cpu_panel::{Product, TileRows, across_rows, along_rows};
use super::cpu_target::{sized, tile_rows};
use super::panel::PANEL;
use crate::gemm::Vector;

/// Rows of a strip that are copied together: 8 kB with 16 columns.
const DEPTH: usize = 128;
/// Most columns of a strip.
const STRIP: usize = 16;

/// A piece of a product: rows `first..last`, of which `depth` factors from `start` on are added up.
struct Piece<'a> {
    job: &'a Product<'a>,
    first: usize,
    start: usize,
    depth: usize,
    /// Weight of the first row and factor, from a row to the next, and from a factor to the next.
    a: *const f32,
    strides: (usize, usize),
    /// `[depth, columns of a strip]`.
    strip: *const f32,
    /// Incomplete sums `[panels, rows, 64]`.
    sums: *mut f32,
    rows: usize,
}

/// As `ProductRows::run`.
///
/// # Safety
/// As there: the rows are inside the weight and the result.
#[inline(always)]
pub(super) unsafe fn product<V: Vector>(job: &Product<'_>, first: usize, last: usize) {
    let (rows, width) = (last - first, V::VECTORS * V::LANES);
    assert!(width <= STRIP);
    let mut strip = [0.0f32; DEPTH * STRIP];
    let strip = strip.as_mut_ptr();
    let across = job.strides.1 != 1;
    let mut turned = vec![0.0f32; if across { rows * DEPTH } else { 0 }];
    let mut sums = vec![0.0f32; if job.depth > DEPTH { job.to.panels * rows * PANEL } else { 0 }];
    let mut start = 0;
    while start < job.depth {
        let depth = DEPTH.min(job.depth - start);
        // SAFETY: rows and factors are inside the weight, panels and columns inside `x`; `strip` has room for `DEPTH` lines.
        unsafe {
            let from = job.a.as_ptr().add(first * job.strides.0 + start * job.strides.1);
            let (a, strides) = if across {
                for k in 0..depth {
                    copy::<V>(from.add(k * job.strides.1), turned.as_mut_ptr().add(k * rows), rows);
                }
                (turned.as_ptr(), (1, rows))
            } else {
                (from, job.strides)
            };
            let piece = Piece { job, first, start, depth, a, strides, strip, sums: sums.as_mut_ptr(), rows };
            for panel in 0..job.to.panels {
                for column in (0..PANEL).step_by(width) {
                    let x = job.x.as_ptr().add((panel * job.x_rows + start) * PANEL + column);
                    gather::<V>(x, depth, strip);
                    let mut row = 0;
                    while row < rows {
                        let count = tile_rows(rows - row, V::ROWS);
                        sized!(count, piece.tile::<V>(row, panel, column));
                        row += count;
                    }
                }
            }
        }
        start += depth;
    }
}

/// Copies a few neighbouring numbers: too few to call a function for.
#[inline(always)]
unsafe fn copy<V: Vector>(from: *const f32, to: *mut f32, count: usize) {
    let mut i = 0;
    // SAFETY: the caller guarantees the addresses.
    unsafe {
        while i + V::LANES <= count {
            V::load(from.add(i)).store(to.add(i));
            i += V::LANES;
        }
        while i < count {
            *to.add(i) = *from.add(i);
            i += 1;
        }
    }
}

/// Copies the first vectors of `lines` lines of 64 together.
#[inline(always)]
unsafe fn gather<V: Vector>(from: *const f32, lines: usize, to: *mut f32) {
    // SAFETY: the caller guarantees the addresses.
    unsafe {
        for k in 0..lines {
            for j in 0..V::VECTORS {
                V::load(from.add(k * PANEL + j * V::LANES)).store(to.add((k * V::VECTORS + j) * V::LANES));
            }
        }
    }
}

impl Piece<'_> {
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const N: usize>(&self, row: usize, panel: usize, column: usize) {
        let Piece { job, first, start, depth, strides, strip, .. } = *self;
        // SAFETY: as for the caller; there are `sums` where not all factors are added up in one piece.
        unsafe {
            let line = |i: usize| self.sums.add((panel * self.rows + row + i) * PANEL + column);
            let so_far =
                |i: usize, j: usize| if start == 0 { V::splat(0.0) } else { V::load(line(i).add(j * V::LANES)) };
            let sum: [[V; N]; R] = std::array::from_fn(|i| std::array::from_fn(|j| so_far(i, j)));
            let a = self.a.add(row * strides.0);
            let sum = if strides.1 == 1 {
                along_rows::<V, R, N>(sum, a, strides.0, strip, N * V::LANES, depth)
            } else {
                across_rows::<V, R, N>(sum, a, strides.1, strip, N * V::LANES, depth)
            };
            if start + depth == job.depth {
                job.to.take(sum, first + row, panel, column);
                return;
            }
            for (i, vectors) in sum.into_iter().enumerate() {
                for (j, v) in vectors.into_iter().enumerate() {
                    v.store(line(i).add(j * V::LANES));
                }
            }
        }
    }
}

/// As `TileRows::run`: columns in blocks of 64, whose samples stay near while all rows of the task go by.
///
/// # Safety
/// As there: the rows are inside the weight and the gradient.
#[inline(always)]
pub(super) unsafe fn tiles<V: Vector>(rows: &TileRows<'_>) {
    let job = rows.job;
    let (samples, width) = (job.panels * PANEL, V::VECTORS * V::LANES);
    // The lines of one panel are a block without gaps.
    let apart = job.panels > 1;
    let mut strips = vec![0.0f32; if apart { samples * PANEL } else { 0 }];
    let strips = strips.as_mut_ptr();
    for block in (0..job.inputs).step_by(PANEL) {
        let columns = PANEL.min(job.inputs - block);
        // SAFETY: the block is inside `x`, strips have room for it; rows and columns are in range.
        unsafe {
            let x = job.x.as_ptr().add(block * samples);
            let strip = |column: usize| strips.add(column * samples);
            if apart {
                for column in (0..columns).step_by(width) {
                    gather::<V>(x.add(column), samples, strip(column));
                }
            }
            let mut row = rows.first;
            while row < rows.last {
                let count = tile_rows(rows.last - row, V::ROWS);
                let next = row + count;
                let ahead = count.min(rows.last - next);
                if row == rows.first {
                    job.sink.fetch(row, count, job.inputs, block, columns);
                }
                for column in (0..columns).step_by(width) {
                    job.sink.fetch(next, ahead, job.inputs, block + column, width.min(columns - column));
                    let (x, step) = if apart { (strip(column).cast_const(), width) } else { (x.add(column), PANEL) };
                    sized!(count, rows.tile::<V>(row, block + column, x, step));
                }
                row += count;
            }
        }
    }
}
