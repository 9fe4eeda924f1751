//! All points with their squared distances to the nearest centre.

use rayon::prelude::*;

use crate::nearest::{BLOCK, Isa, LANES, Mapped, Prefix, View, Work, sieve, squared_below, squared_rows};

/// Below this many points, bounds do not pay.
const SMALL: usize = 2048;
/// Points updated together: a whole number of panels, and bounds that stay in the second-level cache.
const CHUNK: usize = 64 * LANES;

/// Points and their squared distances to the nearest centre so far.
pub(super) struct Cloud<'a> {
    points: &'a [f32],
    d: usize,
    isa: Isa,
    bounds: Option<(Prefix, Mapped)>,
    /// Squared distance of each point to its nearest centre.
    pub(super) nearest: Vec<f32>,
}

impl<'a> Cloud<'a> {
    /// `points` `[n, d]`, and no centre yet; `count` centres are expected.
    pub(super) fn new(points: &'a [f32], d: usize, count: usize, isa: Isa) -> Self {
        let n = points.len() / d;
        let bounds = if n < SMALL || count < 32 {
            None
        } else {
            let prefix = Prefix::plan(isa, View::F32(points), d, count / 2);
            let mapped = prefix.map_all(isa, View::F32(points));
            mapped.map(|mapped| (prefix, mapped))
        };
        Cloud { points, d, isa, bounds, nearest: vec![f32::INFINITY; n] }
    }

    /// Point `i`.
    pub(super) fn point(&self, i: usize) -> &'a [f32] {
        &self.points[i * self.d..][..self.d]
    }

    /// Adds centres.
    pub(super) fn add(&mut self, centres: &[usize]) {
        let mut nearest = std::mem::take(&mut self.nearest);
        match &self.bounds {
            Some((prefix, mapped)) if nearest.first().is_some_and(|v| v.is_finite()) => {
                self.sieved(prefix, mapped, centres, &mut nearest);
            }
            _ => self.scanned(centres, &mut nearest),
        }
        self.nearest = nearest;
    }

    fn scanned(&self, centres: &[usize], nearest: &mut [f32]) {
        nearest.par_chunks_mut(256).zip(self.points.par_chunks(256 * self.d)).for_each(|(nearest, points)| {
            let mut squared = [0f32; 256];
            for &c in centres {
                let squared = &mut squared[..nearest.len()];
                squared_rows(self.isa, self.point(c), points, squared);
                for (near, &s) in nearest.iter_mut().zip(squared.iter()) {
                    *near = if s < *near { s } else { *near };
                }
            }
        });
    }

    fn sieved(&self, prefix: &Prefix, mapped: &Mapped, centres: &[usize], nearest: &mut [f32]) {
        let depth = prefix.depth();
        let mut work = Work::default();
        let mut blocks = Vec::with_capacity(centres.len().div_ceil(BLOCK));
        for centres in centres.chunks(BLOCK) {
            let mut block = vec![0f32; depth * BLOCK];
            let rows = centres.iter().map(|&c| self.point(c));
            let Some(half_norm) = prefix.map(self.isa, rows, &mut work, &mut block) else {
                return self.scanned(centres, nearest);
            };
            let mut threshold = [f32::INFINITY; BLOCK];
            threshold[..centres.len()].copy_from_slice(&half_norm[..centres.len()]);
            blocks.push((centres, block, threshold));
        }
        let panels = mapped.panels.as_slice();
        nearest.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, nearest)| {
            let first = chunk * CHUNK;
            let half_norm = &mapped.half_norm[first..][..nearest.len().div_ceil(LANES) * LANES];
            let mut start = vec![f32::NEG_INFINITY; half_norm.len()];
            for ((start, half), near) in start.iter_mut().zip(half_norm).zip(nearest.iter()) {
                *start = prefix.start(*half, *near);
            }
            let panels = &panels[first * depth..];
            let mut hits = Vec::new();
            for (centres, block, threshold) in &blocks {
                hits.clear();
                sieve(self.isa, depth, block, threshold, panels, &start, &mut hits);
                for hit in &hits {
                    let centre = self.point(centres[hit.row as usize]);
                    let mut lanes = hit.lanes;
                    while lanes != 0 {
                        let i = hit.panel as usize * LANES + lanes.trailing_zeros() as usize;
                        lanes &= lanes - 1;
                        let squared = squared_below(self.isa, centre, self.point(first + i), nearest[i]);
                        if squared < nearest[i] {
                            nearest[i] = squared;
                            start[i] = prefix.start(half_norm[i], squared);
                        }
                    }
                }
            }
        });
    }
}
