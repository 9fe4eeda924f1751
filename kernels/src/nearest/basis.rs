//! Leading principal directions of a sample, and products with them.

use super::cpu_isa::Isa;
use super::cpu_tile::{Aligned, BLOCK, LANES, products};

/// Terms summed in one go in f32; sums of such pieces are added up, which keeps the error bound small.
pub(super) const PIECE: usize = 64;
/// Rounds of subspace iteration. More would sharpen the directions, not the results.
const ROUNDS: usize = 4;

/// A matrix `[d, k]`, packed for [`products`] in pieces of [`PIECE`] rows.
pub(super) struct Columns {
    d: usize,
    width: usize,
    panels: Aligned,
}

impl Columns {
    pub(super) fn pack(d: usize, k: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        let width = k.div_ceil(LANES) * LANES;
        let mut panels = Aligned::zeros(d * width);
        let out = panels.as_mut_slice();
        for first in (0..d).step_by(PIECE) {
            let rows = PIECE.min(d - first);
            for i in 0..rows {
                for j in 0..k {
                    let at = first * width + (j / LANES * rows + i) * LANES + j % LANES;
                    out[at] = value(first + i, j);
                }
            }
        }
        Columns { d, width, panels }
    }

    /// Columns, rounded up to whole panels.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// `out` `[BLOCK, width]` = `block` `[d, BLOCK]` transposed, times this matrix. `scratch` is as long as `out`.
    pub(super) fn multiply(&self, isa: Isa, block: &[f32], out: &mut [f32], scratch: &mut [f32]) {
        let zero = vec![0f32; self.width];
        out.fill(0.0);
        for first in (0..self.d).step_by(PIECE) {
            let rows = PIECE.min(self.d - first);
            let panels = &self.panels.as_slice()[first * self.width..][..rows * self.width];
            products(isa, rows, &block[first * BLOCK..][..rows * BLOCK], panels, &zero, scratch);
            for (out, v) in out.iter_mut().zip(scratch.iter()) {
                *out += v;
            }
        }
    }
}

/// An orthonormal basis `[d, k]` of about the leading principal directions of the centred rows `[s, d]`, the leading ones
/// first. Directions that are not there come out as zero columns.
pub(super) fn principal(isa: Isa, sample: &[f32], d: usize, k: usize) -> Vec<f64> {
    let s = sample.len() / d;
    let largest = sample.iter().fold(0f32, |m, v| m.max(v.abs()));
    if largest == 0.0 {
        return vec![0.0; d * k];
    }
    let scaled: Vec<f32> = sample.iter().map(|v| v / largest).collect();
    let mut basis: Vec<f64> = (0..d * k).map(|i| hash(i as u64) as f64 / u64::MAX as f64 - 0.5).collect();
    orthonormalise(&mut basis, d, k);
    for _ in 0..ROUNDS {
        let columns = Columns::pack(d, k, |i, j| basis[i * k + j] as f32);
        let image = times(isa, &columns, s, k, |i, r| if r < s { scaled[r * d + i] } else { 0.0 });
        let columns = Columns::pack(s, k, |i, j| image[i * k + j]);
        let back = times(isa, &columns, d, k, |i, c| if c < d { scaled[i * d + c] } else { 0.0 });
        basis.iter_mut().zip(back).for_each(|(b, v)| *b = f64::from(v));
        orthonormalise(&mut basis, d, k);
    }
    basis
}

/// `[rows, k]` = the matrix whose row `r` is `value(.., r)`, times `columns`.
fn times(isa: Isa, columns: &Columns, rows: usize, k: usize, value: impl Fn(usize, usize) -> f32 + Sync) -> Vec<f32> {
    use rayon::prelude::*;
    let mut out = vec![0f32; rows * k];
    out.par_chunks_mut(BLOCK * k).enumerate().for_each(|(b, out)| {
        let mut block = vec![0f32; columns.d * BLOCK];
        for (i, at) in block.chunks_exact_mut(BLOCK).enumerate() {
            for (j, v) in at.iter_mut().enumerate() {
                *v = value(i, b * BLOCK + j);
            }
        }
        let mut wide = vec![0f32; BLOCK * columns.width];
        let mut scratch = wide.clone();
        columns.multiply(isa, &block, &mut wide, &mut scratch);
        for (out, wide) in out.chunks_mut(k).zip(wide.chunks(columns.width)) {
            out.copy_from_slice(&wide[..k]);
        }
    });
    out
}

/// Modified Gram-Schmidt over the columns of `[d, k]`, twice for columns that lost much.
fn orthonormalise(basis: &mut [f64], d: usize, k: usize) {
    let mut columns: Vec<Vec<f64>> = (0..k).map(|j| (0..d).map(|i| basis[i * k + j]).collect()).collect();
    for j in 0..k {
        let (done, rest) = columns.split_at_mut(j);
        let column = &mut rest[0];
        let before = norm(column);
        for _ in 0..2 {
            for other in done.iter() {
                let dot: f64 = other.iter().zip(column.iter()).map(|(a, b)| a * b).sum();
                column.iter_mut().zip(other).for_each(|(c, o)| *c -= dot * o);
            }
        }
        let after = norm(column);
        let keep = after > 1e-6 * before && after.is_normal();
        column.iter_mut().for_each(|c| *c = if keep { *c / after } else { 0.0 });
    }
    for (j, column) in columns.iter().enumerate() {
        for (i, v) in column.iter().enumerate() {
            basis[i * k + j] = *v;
        }
    }
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// A fixed pseudo-random number for each index (the finaliser of SplitMix64).
fn hash(i: u64) -> u64 {
    let z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
