use ndarray::{Array2, ArrayView2, ArrayView4, s};
use rayon::prelude::*;

use super::cpu::{self, Accumulate};
use super::distance::contiguous;
use super::layout::{At, Layout};
use super::{PAD, bands, bands::packing};
use crate::{KernelError, Result};

/// Pictures whose products are summed in `f32` before they are added to the totals.
pub(super) const CHUNK: usize = 32;
/// Bytes up to which the totals of products are `f64`. Beyond, `f32`: the values are shifted by the first batch's mean, so
/// a total is not much larger than what is left of it, and each adds only one rounding for every 32 pictures.
pub(super) const F64_BYTES: usize = 256 << 20;

/// Means and covariances of all groups of a [`Layout`], in one pass.
///
/// Memory: one `f64` (or `f32`, where those would pass 256 MiB) for each float of the layout's triangles, whatever the
/// number of pictures; work: one multiply-add for each of them and each picture.
pub struct Moments {
    layout: Layout,
    count: usize,
    /// `[level][group, row]`: the mean of the first batch, which all later values are taken relative to.
    shift: Vec<Vec<f32>>,
    /// `[level][group, row]`: sums of shifted values.
    sum: Vec<Vec<f64>>,
    products: Products,
}

/// `[level][group, packed rows]`: sums of products of shifted values.
enum Products {
    F32(Vec<Vec<f32>>),
    F64(Vec<Vec<f64>>),
}

impl Moments {
    /// No pictures yet.
    pub fn new(layout: Layout) -> Self {
        let lengths: Vec<usize> = (0..layout.levels()).map(|level| layout.weight_len(level)).collect();
        let products = if layout.floats() * size_of::<f64>() <= F64_BYTES {
            Products::F64(lengths.iter().map(|&n| vec![0.0; n]).collect())
        } else {
            Products::F32(lengths.iter().map(|&n| vec![0.0; n]).collect())
        };
        let values = |level| layout.groups(level) * layout.rows(level).len();
        let sum: Vec<Vec<f64>> = (0..layout.levels()).map(|level| vec![0.0; values(level)]).collect();
        let shift = sum.iter().map(|s| vec![0.0; s.len()]).collect();
        Moments { layout, count: 0, shift, sum, products }
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Pictures so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds the feature maps `[n, h, w, c]` of `n` more pictures.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if they are not those of the layout.
    pub fn push(&mut self, features: &[ArrayView4<'_, f32>]) -> Result<()> {
        let n = self.layout.check("mahalanobis moments", features)?;
        let maps = contiguous(features);
        let maps: Vec<&[f32]> = maps.iter().map(|m| &**m).collect();
        if self.count == 0 && n > 0 {
            self.set_shift(&maps, n);
        }
        for first in (0..n).step_by(CHUNK) {
            let images = first..n.min(first + CHUNK);
            match &mut self.products {
                Products::F32(p) => add(&self.layout, &self.shift, &mut self.sum, p, &maps, images),
                Products::F64(p) => add(&self.layout, &self.shift, &mut self.sum, p, &maps, images),
            }
        }
        self.count += n;
        Ok(())
    }

    fn set_shift(&mut self, maps: &[&[f32]], n: usize) {
        let layout = &self.layout;
        let parts = bands::split(layout, &mut self.shift, |level| layout.rows(level).len());
        parts.into_par_iter().enumerate().for_each(|(band, mut shift)| {
            let zero = vec![0.0; layout.channels().len()];
            let (mut value, mut sum) = (zero.clone(), vec![0.0f64; zero.len()]);
            each(layout, band, |at| {
                let rows = layout.rows(at.level).len();
                sum[..rows].fill(0.0);
                for image in 0..n {
                    layout.gather(maps, image, at, &zero[..rows], &mut value[..rows]);
                    sum.iter_mut().zip(&value[..rows]).for_each(|(s, v)| *s += f64::from(*v));
                }
                let group = bands::local(layout, band, at);
                let own = &mut shift[at.level][group * rows..][..rows];
                own.iter_mut().zip(&sum).for_each(|(m, s)| *m = (s / n as f64) as f32);
            });
        });
    }

    /// Means, one `[groups, rows]` for each level.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] if a feature was NaN or infinite.
    pub fn mean(&self) -> Result<Vec<Vec<f32>>> {
        let n = self.count.max(1) as f64;
        let mut means = Vec::with_capacity(self.sum.len());
        for (sum, shift) in self.sum.iter().zip(&self.shift) {
            let mean: Vec<f32> = sum.iter().zip(shift).map(|(s, m)| (f64::from(*m) + s / n) as f32).collect();
            if let Some(index) = mean.iter().position(|m| !m.is_finite()) {
                return Err(KernelError::NotFinite { op: "mahalanobis moments", what: "a feature mean", index });
            }
            means.push(mean);
        }
        Ok(means)
    }

    /// The covariance `[d, d]` (divisor `N - 1`, nothing added) at a grid position, channels in the layout's order.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] for fewer than two pictures or a position outside the grid.
    pub fn covariance(&self, y: usize, x: usize) -> Result<Array2<f64>> {
        let (layout, n) = (&self.layout, self.count as f64);
        if self.count < 2 {
            return Err(too_few(self.count));
        }
        let d = layout.channels().len();
        let (mut covariance, mut sums) = (Array2::<f64>::zeros((d, d)), vec![0.0; d]);
        for level in 0..layout.levels() {
            let (rows, group, floats) = (layout.rows(level), layout.group(level, y, x)?, layout.level(level).floats());
            sums[rows.clone()].copy_from_slice(&self.sum[level][group * rows.len()..][..rows.len()]);
            packing(rows.start, rows.end, |r, c, at| {
                let at = group * floats + at;
                let product = match &self.products {
                    Products::F32(p) => p[level][at].get(),
                    Products::F64(p) => p[level][at],
                };
                covariance[[r, c]] = (product - sums[r] * sums[c] / n) / (n - 1.0);
                covariance[[c, r]] = covariance[[r, c]];
            });
        }
        Ok(covariance)
    }

    /// The inverse Cholesky factors of `covariance + epsilon I` (divisor `N - 1`), packed: one tensor of
    /// [`Layout::weight_len`] floats for each level.
    ///
    /// `step(inverse, rows)` is called for each group with `inverse` `[b, b]`, whose first `a` rows hold the inverse factor
    /// of the leading block, and `rows` `[b - a, b]`, the next rows of the covariance up to the diagonal (zero beyond). It
    /// must write the next rows of the inverse factor to `inverse[a..b, 0..b]`, zeros above the diagonal.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] for fewer than two pictures; what `step` says.
    pub fn factor<E, F>(self, epsilon: f64, step: F) -> std::result::Result<Vec<Vec<f32>>, E>
    where
        E: From<KernelError> + Send,
        F: Fn(&mut Array2<f64>, ArrayView2<'_, f64>) -> std::result::Result<(), E> + Sync,
    {
        if self.count < 2 {
            return Err(too_few(self.count).into());
        }
        let Moments { layout, count, sum, products, .. } = self;
        let floats = |level: usize| layout.level(level).floats();
        let job = Job { layout: &layout, count, sum: &sum, epsilon, step: &step };
        match products {
            Products::F32(mut products) => {
                // Each group's products are read once, before its weights take their place.
                let parts = bands::split(&layout, &mut products, floats);
                parts.into_par_iter().enumerate().try_for_each(|(band, mut parts)| {
                    job.run(band, |level, range, rows, write| {
                        let own = &mut parts[level][range];
                        if write { pack(rows, own) } else { unpack(own, rows) }
                    })
                })?;
                products.iter_mut().for_each(|p| tail(p));
                Ok(products)
            }
            Products::F64(mut products) => {
                let mut weights: Vec<Vec<f32>> = products.iter().map(|p| vec![0.0; p.len()]).collect();
                let parts = bands::split(&layout, &mut products, floats);
                let outs = bands::split(&layout, &mut weights, floats);
                parts.into_par_iter().zip(outs).enumerate().try_for_each(|(band, (parts, mut outs))| {
                    job.run(band, |level, range, rows, write| {
                        if write { pack(rows, &mut outs[level][range]) } else { unpack(&parts[level][range], rows) }
                    })
                })?;
                Ok(weights)
            }
        }
    }
}

pub(super) fn too_few(count: usize) -> KernelError {
    KernelError::Parameter { op: "mahalanobis moments", what: format!("a covariance needs 2 pictures, got {count}") }
}

fn tail(weights: &mut [f32]) {
    let start = weights.len().saturating_sub(PAD);
    weights[start..].fill(0.0);
}

/// What the factorisation of a band reads.
struct Job<'a, F> {
    layout: &'a Layout,
    count: usize,
    sum: &'a [Vec<f64>],
    epsilon: f64,
    step: &'a F,
}

impl<F> Job<'_, F> {
    /// `access(level, range, rows, write)` unpacks a group's products to `rows`, or packs its weights from there.
    fn run<E>(
        &self,
        band: usize,
        mut access: impl FnMut(usize, std::ops::Range<usize>, &mut Rows, bool),
    ) -> std::result::Result<(), E>
    where
        F: Fn(&mut Array2<f64>, ArrayView2<'_, f64>) -> std::result::Result<(), E>,
    {
        let (layout, n) = (self.layout, self.count as f64);
        let mut sums = vec![0.0f64; layout.channels().len()];
        // One of each for every level, so that a group finds what its ancestors left.
        let buffer = |level| Array2::<f64>::zeros((layout.rows(level).end, layout.rows(level).end));
        let mut inverse: Vec<Array2<f64>> = (0..layout.levels()).map(buffer).collect();
        layout.walk(band, &mut |at| {
            let level = layout.level(at.level);
            let (a, b) = (level.rows.start, level.rows.end);
            let own = at.y * level.groups().1 + at.x;
            sums[a..b].copy_from_slice(&self.sum[at.level][own * (b - a)..][..b - a]);
            let local = bands::local(layout, band, at);
            let range = local * level.floats()..(local + 1) * level.floats();
            let mut rows = Rows { first: a, values: Array2::zeros((b - a, b)) };
            access(at.level, range.clone(), &mut rows, false);
            for r in a..b {
                for c in 0..=r {
                    let v = &mut rows.values[[r - a, c]];
                    *v = (*v - sums[r] * sums[c] / n) / (n - 1.0);
                }
                rows.values[[r - a, r]] += self.epsilon;
            }
            let (above, current) = inverse.split_at_mut(at.level);
            if let Some(parent) = above.last() {
                current[0].slice_mut(s![..a, ..a]).assign(parent);
            }
            let inverse = &mut inverse[at.level];
            (self.step)(inverse, rows.values.view())?;
            rows.values.assign(&inverse.slice(s![a.., ..]));
            access(at.level, range, &mut rows, true);
            Ok(())
        })
    }
}

/// Rows of a triangle, unpacked: `[b - a, b]`, rows `a..b`.
struct Rows {
    first: usize,
    values: Array2<f64>,
}

fn unpack<A: Accumulate>(packed: &[A], rows: &mut Rows) {
    let a = rows.first;
    packing(a, rows.values.ncols(), |r, c, at| rows.values[[r - a, c]] = packed[at].get());
}

fn pack(rows: &Rows, packed: &mut [f32]) {
    let a = rows.first;
    packing(a, rows.values.ncols(), |r, c, at| packed[at] = rows.values[[r - a, c]] as f32);
}

/// Walks a band with a function that cannot fail.
fn each(layout: &Layout, band: usize, mut f: impl FnMut(At)) {
    let done: std::result::Result<(), std::convert::Infallible> = layout.walk(band, &mut |at| {
        f(at);
        Ok(())
    });
    match done {
        Ok(()) => {}
    }
}

/// Adds some pictures' shifted values and their products.
fn add<A: Accumulate>(
    layout: &Layout,
    shift: &[Vec<f32>],
    sum: &mut [Vec<f64>],
    products: &mut [Vec<A>],
    maps: &[&[f32]],
    images: std::ops::Range<usize>,
) {
    let sums = bands::split(layout, sum, |level| layout.rows(level).len());
    let products = bands::split(layout, products, |level| layout.level(level).floats());
    sums.into_par_iter().zip(products).enumerate().for_each(|(band, (mut sum, mut products))| {
        let stride = bands::stride(layout);
        let mut x = vec![0.0f32; images.len() * stride];
        each(layout, band, |at| {
            let level = layout.level(at.level);
            let rows = level.rows.clone();
            let (own, group) = (at.y * level.groups().1 + at.x, bands::local(layout, band, at));
            let shift = &shift[at.level][own * rows.len()..][..rows.len()];
            let sum = &mut sum[at.level][group * rows.len()..][..rows.len()];
            for (i, image) in images.clone().enumerate() {
                let x = &mut x[i * stride..][rows.clone()];
                layout.gather(maps, image, at, shift, x);
                sum.iter_mut().zip(x).for_each(|(s, v)| *s += f64::from(*v));
            }
            let into = &mut products[at.level][group * level.floats()..][..level.floats()];
            cpu::products(&x, stride, images.len(), rows.start, rows.end, into);
        });
    });
}
