use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::error::shape_error;
use crate::{KernelError, Result};

/// A sparse random projection (Li, Hastie and Church 2006): entries are 0 but for a share of `1 / sqrt(in_dim)`, which are
/// `+-sqrt(sqrt(in_dim) / out_dim)`.
///
/// Each entry is a hash of seed, output and input index, so every implementation draws the same matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseProjection {
    in_dim: usize,
    out_dim: usize,
    seed: u64,
    scale: f32,
    /// Where the entries of each output end.
    ends: Vec<usize>,
    /// Input index and whether the sign is negative, for each entry.
    entries: Vec<(u32, bool)>,
}

impl SparseProjection {
    /// The projection from `in_dim` to `out_dim` coordinates drawn from `seed`.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] if a dimension is 0 or beyond 2^24.
    pub fn new(in_dim: usize, out_dim: usize, seed: u64) -> Result<Self> {
        const MOST: usize = 1 << 24;
        if in_dim == 0 || out_dim == 0 || in_dim > MOST || out_dim > MOST {
            let what = format!("{in_dim} to {out_dim} coordinates; 1 to {MOST} each");
            return Err(KernelError::Parameter { op: "sparse projection", what });
        }
        let limit = limit(in_dim);
        let mut ends = Vec::with_capacity(out_dim);
        let mut entries = Vec::new();
        for i in 0..out_dim {
            for j in 0..in_dim {
                let bits = mix(mix(mix(seed) ^ i as u64) ^ j as u64);
                if bits >> 11 < limit {
                    entries.push((j as u32, bits & 1 == 1));
                }
            }
            ends.push(entries.len());
        }
        let scale = ((in_dim as f64).sqrt() / out_dim as f64).sqrt() as f32;
        Ok(SparseProjection { in_dim, out_dim, seed, scale, ends, entries })
    }

    /// The dimension that keeps all distances of `n_rows` rows within a factor `1 +- eps` (Johnson and Lindenstrauss; scikit-learn's
    /// `johnson_lindenstrauss_min_dim`): `floor(4 ln n / (eps^2 / 2 - eps^3 / 3))`, at least 1.
    pub fn dimensions(n_rows: usize, eps: f64) -> usize {
        let denominator = eps * eps / 2.0 - eps * eps * eps / 3.0;
        (4.0 * (n_rows.max(1) as f64).ln() / denominator).max(1.0) as usize
    }

    /// Coordinates before and after.
    pub fn dim(&self) -> (usize, usize) {
        (self.in_dim, self.out_dim)
    }

    /// What the GPU draws the same matrix from: the hashed seed, the limit of entries, the scale.
    #[cfg(feature = "cuda")]
    pub(super) fn source(&self) -> (u64, u64, f32) {
        (mix(self.seed), limit(self.in_dim), self.scale)
    }

    /// Projects `rows` `[n, in_dim]` to `[n, out_dim]`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for rows of another length.
    pub fn apply(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        if rows.ncols() != self.in_dim {
            return Err(shape_error("sparse projection", format!("rows [n, {}]", self.in_dim), rows.shape()));
        }
        let rows = rows.as_standard_layout();
        let mut out = Array2::zeros((rows.nrows(), self.out_dim));
        if let (Some(out), Some(rows)) = (out.as_slice_mut(), rows.as_slice()) {
            out.par_chunks_mut(self.out_dim).zip(rows.par_chunks(self.in_dim)).for_each(|(out, row)| {
                let mut first = 0;
                for (out, &end) in out.iter_mut().zip(&self.ends) {
                    let mut sum = 0f32;
                    for &(j, negative) in &self.entries[first..end] {
                        let v = row[j as usize];
                        sum += if negative { -v } else { v };
                    }
                    *out = sum * self.scale;
                    first = end;
                }
            });
        }
        Ok(out)
    }
}

/// Of 64 random bits, the upper 53 decide whether there is an entry: if they are below this. The lowest gives its sign.
fn limit(in_dim: usize) -> u64 {
    ((1u64 << 53) as f64 / (in_dim as f64).sqrt()) as u64
}

/// The finaliser of SplitMix64.
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
