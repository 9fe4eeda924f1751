//! What tiles of six rows and a panel's 64 samples have in common: their sizes, and where their sums go.
#![allow(unsafe_code)]

use super::cpu_out::Out;
use super::panel::PANEL;
use crate::gemm::Vector;

/// Rows of the next tile when `left` are left: 6, 4, 2 or 1, never more than `most`.
#[inline(always)]
pub(super) fn tile_rows(left: usize, most: usize) -> usize {
    match left {
        0 | 1 => 1,
        2 | 3 => 2,
        4 | 5 | 8 => 4,
        _ => most.min(6),
    }
}

/// Calls a function of the constants rows, as [`tile_rows`] gives them, and vectors in a line.
macro_rules! sized {
    ($rows:expr, $object:ident.$tile:ident::<$V:ident>($($argument:expr),*)) => {
        match ($rows, $V::VECTORS) {
            (6, 4) => $object.$tile::<$V, 6, 4>($($argument),*),
            (4, 4) => $object.$tile::<$V, 4, 4>($($argument),*),
            (2, 4) => $object.$tile::<$V, 2, 4>($($argument),*),
            (_, 4) => $object.$tile::<$V, 1, 4>($($argument),*),
            (6, _) => $object.$tile::<$V, 6, 2>($($argument),*),
            (4, _) => $object.$tile::<$V, 4, 2>($($argument),*),
            (2, _) => $object.$tile::<$V, 2, 2>($($argument),*),
            (..) => $object.$tile::<$V, 1, 2>($($argument),*),
        }
    };
}
pub(super) use sized;

/// Where the sums of a product go: panels `[panels, rows, 64]`.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) out: Out<'a>,
    pub(super) rows: usize,
    pub(super) panels: usize,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) relu: bool,
    /// To what is there.
    pub(super) add: bool,
}

impl Target<'_> {
    /// Whether it has room for rows up to `last`, and a bias for each.
    pub(super) fn holds(&self, last: usize) -> bool {
        last <= self.rows
            && self.out.len == self.panels * self.rows * PANEL
            && self.bias.is_none_or(|b| b.len() >= last)
    }

    /// Takes a tile.
    #[inline(always)]
    pub(super) unsafe fn take<V: Vector, const R: usize, const N: usize>(
        &self,
        sum: [[V; N]; R],
        row: usize,
        panel: usize,
        column: usize,
    ) {
        // SAFETY: the caller guarantees that the tile is inside, by `holds`.
        unsafe {
            for (i, line) in sum.into_iter().enumerate() {
                let to = self.out.at.add((panel * self.rows + row + i) * PANEL + column);
                let bias = self.bias.map_or(0.0, |b| *b.as_ptr().add(row + i));
                for (j, v) in line.into_iter().enumerate() {
                    let to = to.add(j * V::LANES);
                    let mut v = v.add(V::splat(bias));
                    if self.add {
                        v = v.add(V::load(to));
                    }
                    // The second argument is what a NaN gives.
                    v = if self.relu { V::splat(0.0).max(v) } else { v };
                    v.store(to);
                }
            }
        }
    }
}
