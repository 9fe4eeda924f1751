//! Lower bounds of distances from a few coordinates.
//!
//! Let `z = x - mean` and `W` any contraction (`|W z| <= |z|`). Then for all rows
//! `(x - mean) . (c - mean) <= W zx . W zc + t(zx) t(zc)` with `t(z)^2 = |z|^2 - |W z|^2` (Cauchy-Schwarz on the part that
//! `W` does not see), hence `|x - c|^2 >= |zx|^2 + |zc|^2 - 2 (W zx . W zc + t(zx) t(zc))`: a product of `k + 1` numbers
//! instead of `d`. `W` projects on the leading principal directions, where the bound is sharp; that it is a contraction is
//! checked, so a poor basis costs time and nothing else.
//!
//! All roundings are covered by two relative margins: [`Prefix::half_norm`] lowers the norms by `alpha`, and
//! [`Prefix::half_limit`] raises limits by `beta`. With `u = 2^-24` (f32):
//!
//! - centring: each coordinate has a relative error of `u`;
//! - projection: pieces of [`PIECE`] terms, a multiplication and an addition each, then the pieces: at most
//!   `(2 PIECE + d / PIECE + 2) u |w_j| |z|` for column `j`, so `sqrt(k)` times that for all of them;
//! - `t` is made an upper bound by adding the error of its square;
//! - the product itself: `2 (depth + 2) u` of its magnitudes;
//! - the exact distance as f32 computes it: `(d / 16 + 8) u` of its value.

use super::View;
use super::basis::{Columns, PIECE, principal};
use super::cpu_compact::squared_below_of;
use super::cpu_isa::Isa;
use super::cpu_tile::{Aligned, BLOCK, LANES};

/// Half an ulp of 1 in f32.
const U: f64 = 1.0 / (1 << 24) as f64;
/// Covers underflow, where relative errors do not hold.
const TINY: f64 = 1e-34;
/// Squared norms beyond this are not bounded here (products might overflow).
const LARGEST: f64 = 1e36;
/// Rows looked at for the mean and the directions.
const SAMPLE: usize = 2048;
/// Numbers of directions to choose from.
const CHOICES: [usize; 5] = [7, 15, 31, 47, 63];

/// The map from rows `[d]` to `depth` numbers, with its margins.
pub(crate) struct Prefix {
    d: usize,
    depth: usize,
    mean: Vec<f32>,
    columns: Option<Columns>,
    /// Bound of the error of the projection, relative to the norm.
    projection: f64,
    alpha: f64,
    beta: f64,
}

/// Rows mapped by a [`Prefix`], in panels `[ceil(n / LANES), depth, LANES]`.
pub(crate) struct Mapped {
    pub(crate) panels: Aligned,
    /// Half the squared norm of each row, lowered by the margin; infinite for the lanes that fill the last panel.
    pub(crate) half_norm: Vec<f32>,
}

impl Prefix {
    /// Chooses the number of directions for `rows` `[n, d]`: the cheapest in total for limits like the distances to the
    /// nearest of `references` other rows.
    pub(crate) fn plan(isa: Isa, rows: View<'_>, d: usize, references: usize) -> Self {
        Prefix::with(isa, rows, d, |sample| cheapest(sample, references))
    }

    /// A given number of directions, among those that can be chosen.
    #[cfg(test)]
    pub(super) fn forced(isa: Isa, rows: &[f32], d: usize, k: usize) -> Self {
        Prefix::with(isa, View::F32(rows), d, |_| Some(k))
    }

    fn with(isa: Isa, rows: View<'_>, d: usize, choose: impl Fn(&Sample<'_>) -> Option<usize>) -> Self {
        let n = rows.values() / d;
        let sample: Vec<usize> = strided(n, SAMPLE);
        let (mut mean, mut buffer) = (vec![0f64; d], Vec::new());
        for &i in &sample {
            let row = rows.span(d, i..i + 1, &mut buffer);
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v));
        }
        let mean: Vec<f32> = mean.iter().map(|m| (m / sample.len() as f64) as f32).collect();
        // Tables beside rows of fewer bits take at most as much as the rows.
        let fits = |k: &usize| 4 * (k + 1) <= 3 * d && (rows.width() == 4 || 4 * (k + 1) <= rows.width() * d);
        let most = CHOICES.iter().copied().filter(fits).max();
        let Some(most) = most else { return Prefix::new(d, mean, None) };
        let mut centred = Vec::with_capacity(sample.len() * d);
        for &i in &sample {
            let row = rows.span(d, i..i + 1, &mut buffer);
            centred.extend(row.iter().zip(&mean).map(|(v, m)| v - m));
        }
        let basis = principal(isa, &centred, d, most);
        let k = choose(&Sample { isa, rows, d, centred: &centred, basis: &basis, most });
        let columns = k.and_then(|k| contraction(&basis, d, most, k).map(|w| (k, w)));
        Prefix::new(d, mean, columns)
    }

    fn new(d: usize, mean: Vec<f32>, columns: Option<(usize, Columns)>) -> Self {
        let (depth, projection) = match &columns {
            Some((k, _)) => (k + 1, ((2 * PIECE + d / PIECE + 4) as f64) * U * (*k as f64).sqrt() + 3.0 * U),
            None => (d, 2.0 * U),
        };
        let product = 2.0 * (depth + 8) as f64 * U;
        Prefix {
            d,
            depth,
            mean,
            columns: columns.map(|(_, columns)| columns),
            projection,
            alpha: 1.05 * (2.0 * projection + 2.0 * product + 16.0 * U),
            beta: 1.05 * ((d / 16 + 16) as f64 * U + 2.0 * product),
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Half of a squared norm, lowered by the margin for everything that grows with norms.
    fn half_norm(&self, norm: f64) -> f32 {
        (0.5 * norm * (1.0 - self.alpha)) as f32
    }

    /// Half of a squared distance as f32 computes it, raised by the margin.
    fn half_limit(&self, limit: f32) -> f64 {
        0.5 * f64::from(limit) * (1.0 + self.beta) + TINY
    }

    /// What a bound's product must reach for a row of this half norm to be within `limit` of a row that starts at
    /// minus its own half norm.
    pub(crate) fn threshold(&self, half_norm: f32, limit: f32) -> f32 {
        let t = f64::from(half_norm) - self.half_limit(limit);
        (t - 2.0 * U * t.abs()) as f32
    }

    /// The same with the sides changed: where a row with a limit starts, if a row without one asks for its half norm.
    pub(crate) fn start(&self, half_norm: f32, limit: f32) -> f32 {
        -self.threshold(half_norm, limit)
    }

    /// Maps up to [`BLOCK`] rows to `out` `[depth, BLOCK]`; gives their half norms, or `None` if one is too large.
    pub(crate) fn map<'r>(
        &self,
        isa: Isa,
        rows: impl Iterator<Item = &'r [f32]>,
        work: &mut Work,
        out: &mut [f32],
    ) -> Option<[f32; BLOCK]> {
        let Work { centred, wide, scratch } = work;
        centred.clear();
        centred.resize(self.d * BLOCK, 0.0);
        for (i, row) in rows.take(BLOCK).enumerate() {
            for ((at, v), m) in centred.chunks_exact_mut(BLOCK).zip(row).zip(&self.mean) {
                at[i] = v - m;
            }
        }
        let mut norm = [0f64; BLOCK];
        for at in centred.chunks_exact(BLOCK) {
            norm.iter_mut().zip(at).for_each(|(n, v)| *n += f64::from(*v) * f64::from(*v));
        }
        if norm.iter().any(|&n| n > LARGEST || n.is_nan()) {
            return None;
        }
        let Some(columns) = &self.columns else {
            out.copy_from_slice(centred);
            return Some(norm.map(|n| self.half_norm(n)));
        };
        let (width, k) = (columns.width(), self.depth - 1);
        wide.resize(BLOCK * width, 0.0);
        scratch.resize(BLOCK * width, 0.0);
        columns.multiply(isa, centred, wide, scratch);
        for (i, wide) in wide.chunks_exact(width).enumerate() {
            let mut seen = 0f64;
            for (at, v) in out.chunks_exact_mut(BLOCK).zip(&wide[..k]) {
                at[i] = *v;
                seen += f64::from(*v) * f64::from(*v);
            }
            let error = (2.2 * self.projection + 8.0 * U) * norm[i];
            out[k * BLOCK + i] = (((norm[i] - seen).max(0.0) + error).sqrt() * (1.0 + 2.0 * U)) as f32;
        }
        Some(norm.map(|n| self.half_norm(n)))
    }

    /// Maps all rows `[n, d]`; `None` if one is too large.
    pub(crate) fn map_all(&self, isa: Isa, rows: View<'_>) -> Option<Mapped> {
        use rayon::prelude::*;
        // The least common multiple of a block and a panel.
        const GROUP: usize = 96;
        let n = rows.values() / self.d;
        let padded = n.div_ceil(LANES) * LANES;
        let mut panels = Aligned::zeros(padded * self.depth);
        let mut half_norm = vec![f32::INFINITY; padded];
        let fits = panels
            .as_mut_slice()
            .par_chunks_mut(GROUP * self.depth)
            .zip(half_norm.par_chunks_mut(GROUP))
            .enumerate()
            .map(|(group, (panels, norms))| {
                let mut buffer = Vec::new();
                let rows = rows.span(self.d, group * GROUP..n.min((group + 1) * GROUP), &mut buffer);
                let mut work = Work::default();
                let mut block = vec![0f32; self.depth * BLOCK];
                for (b, rows) in rows.chunks(BLOCK * self.d).enumerate() {
                    let Some(half) = self.map(isa, rows.chunks_exact(self.d), &mut work, &mut block) else {
                        return false;
                    };
                    for i in 0..rows.len() / self.d {
                        let at = b * BLOCK + i;
                        norms[at] = half[i];
                        let lane = &mut panels[at / LANES * LANES * self.depth + at % LANES..];
                        for (k, v) in lane.iter_mut().step_by(LANES).take(self.depth).enumerate() {
                            *v = block[k * BLOCK + i];
                        }
                    }
                }
                true
            })
            .reduce(|| true, |a, b| a && b);
        fits.then_some(Mapped { panels, half_norm })
    }
}

/// Buffers of [`Prefix::map`].
#[derive(Default)]
pub(crate) struct Work {
    centred: Vec<f32>,
    wide: Vec<f32>,
    scratch: Vec<f32>,
}

/// Up to `most` indices spread evenly over `0..n`.
pub(crate) fn strided(n: usize, most: usize) -> Vec<usize> {
    let count = n.min(most);
    (0..count).map(|i| i * n / count).collect()
}

/// The first `k` columns of `basis` `[d, all]` in f32, scaled to a contraction; `None` if that does not succeed.
///
/// The spectral norm of `W^T W` is at most its largest absolute row sum.
fn contraction(basis: &[f64], d: usize, all: usize, k: usize) -> Option<Columns> {
    let mut w: Vec<f32> = (0..d * k).map(|i| basis[i / k * all + i % k] as f32).collect();
    for _ in 0..4 {
        let mut gram = vec![0f64; k * k];
        for row in w.chunks_exact(k) {
            for (i, gram) in gram.chunks_exact_mut(k).enumerate() {
                let a = f64::from(row[i]);
                gram.iter_mut().zip(row).for_each(|(g, b)| *g += a * f64::from(*b));
            }
        }
        let largest = gram.chunks_exact(k).map(|r| r.iter().map(|v| v.abs()).sum::<f64>()).fold(0.0, f64::max);
        if largest <= 1.0 - 1e-9 {
            return Some(Columns::pack(d, k, |i, j| w[i * k + j]));
        }
        let scale = (1.0 - 1e-6) / largest.sqrt();
        w.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
    }
    None
}

/// What is known when the number of directions is chosen.
struct Sample<'a> {
    isa: Isa,
    rows: View<'a>,
    d: usize,
    /// Rows `strided(n, SAMPLE)`, the mean subtracted.
    centred: &'a [f32],
    /// `[d, most]`.
    basis: &'a [f64],
    most: usize,
}

/// The number of directions with the smallest estimated cost; `None` where all `d` coordinates are as good (and the rows
/// are in f32, since as many numbers again would undo what fewer bits save).
fn cheapest(&Sample { isa, rows, d, centred, basis, most }: &Sample<'_>, references: usize) -> Option<usize> {
    use rayon::prelude::*;
    let n = rows.values() / d;
    let references = strided(n, references.clamp(2, 8192));
    let queries = strided(centred.len() / d, 48);
    let others = strided(centred.len() / d, 1024);
    let sample = strided(n, SAMPLE);
    let project = |i: usize| -> Vec<f64> {
        let mut p = vec![0f64; most];
        let mut norm = 0f64;
        for (v, b) in centred[i * d..][..d].iter().zip(basis.chunks_exact(most)) {
            let v = f64::from(*v);
            norm += v * v;
            p.iter_mut().zip(b).for_each(|(p, b)| *p += v * b);
        }
        p.push(norm);
        p
    };
    let mapped: Vec<Vec<f64>> = others.par_iter().map(|&i| project(i)).collect();
    let limit = |&q: &usize| {
        let mut buffer = Vec::new();
        let row = rows.span(d, sample[q]..sample[q] + 1, &mut buffer);
        let near = references.iter().filter(|&&r| r != sample[q]);
        near.map(|&r| squared_below_of(isa, row, rows.row(d, r), f32::INFINITY)).fold(f32::INFINITY, f32::min)
    };
    let limits: Vec<f32> = queries.par_iter().map(limit).collect();
    // A few rows far from all others must not decide for the many.
    let mut sorted = limits.clone();
    sorted.sort_unstable_by(f32::total_cmp);
    let median = sorted[sorted.len() / 2];
    let counts: Vec<[usize; CHOICES.len()]> = queries
        .par_iter()
        .zip(&limits)
        .map(|(&q, limit)| {
            let (a, limit) = (project(q), f64::from(limit.min(median)));
            let mut count = [0; CHOICES.len()];
            for b in &mapped {
                let (mut apart, mut left_a, mut left_b, mut from) = (0f64, a[most], b[most], 0);
                for (count, &k) in count.iter_mut().zip(&CHOICES).filter(|(_, k)| **k <= most) {
                    for j in from..k {
                        apart += (a[j] - b[j]) * (a[j] - b[j]);
                        left_a -= a[j] * a[j];
                        left_b -= b[j] * b[j];
                    }
                    from = k;
                    let tail = left_a.max(0.0).sqrt() - left_b.max(0.0).sqrt();
                    *count += usize::from(apart + tail * tail <= limit);
                }
            }
            count
        })
        .collect();
    let pairs = (queries.len() * others.len()) as f64;
    // In multiply-adds of 16 lanes: the bound of a pair, and what a pair costs that survives it. Its row mostly comes from
    // main memory, which is far dearer than the arithmetic on it.
    let exact = 100.0 + 2.0 * d as f64;
    let cost = |k: usize, survivors: f64| (k + 4) as f64 / 16.0 + survivors * exact;
    let mut best = (if rows.width() == 4 { cost(d, 0.0) } else { f64::INFINITY }, None);
    for (i, &k) in CHOICES.iter().enumerate().filter(|(_, k)| **k <= most) {
        let survivors = counts.iter().map(|c| c[i]).sum::<usize>() as f64 / pairs;
        let cost = cost(k, survivors);
        if cost < best.0 {
            best = (cost, Some(k));
        }
    }
    best.1
}
