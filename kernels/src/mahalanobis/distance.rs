use std::borrow::Cow;

use ndarray::{Array3, ArrayView4, s};
use rayon::prelude::*;

use super::layout::Layout;
use super::{bands, cpu};
use crate::error::shape_error;
use crate::{KernelError, Result};

/// Distances `[n, height, width]` over the layout's grid from packed triangles.
///
/// `mean[level]` is `[groups, rows]`, `weight[level]` `[weight_len]` as [`Moments::factor`](super::Moments::factor) makes
/// them, `features` one `[n, h, w, c]` for each map of the layout.
///
/// # Errors
/// [`KernelError::Shape`] if they do not belong together.
pub fn distance(
    layout: &Layout,
    mean: &[&[f32]],
    weight: &[&[f32]],
    features: &[ArrayView4<'_, f32>],
) -> Result<Array3<f32>> {
    let op = "mahalanobis distance";
    check_means(op, layout, mean)?;
    layout.check_weights(op, weight)?;
    over_bands(op, layout, features, |band, maps, n, out| {
        let stride = bands::stride(layout);
        let (mut x, mut sums) = (vec![0.0; n * stride], vec![vec![0.0; n]; layout.levels() + 1]);
        layout.walk(band, &mut |at| {
            let level = layout.level(at.level);
            let (rows, group) = (level.rows.clone(), at.y * level.groups().1 + at.x);
            let mean = &mean[at.level][group * rows.len()..][..rows.len()];
            for image in 0..n {
                layout.gather(maps, image, at, mean, &mut x[image * stride..][rows.clone()]);
            }
            let (above, below) = sums.split_at_mut(at.level + 1);
            below[0].copy_from_slice(&above[at.level]);
            let w = &weight[at.level][group * level.floats()..];
            cpu::squares(w, rows.start, rows.end, &x, stride, &mut below[0]);
            if at.level + 1 == layout.levels() {
                out.fill(layout, at, below[0].iter().copied());
            }
            Ok(())
        })
    })
}

/// Distances `[n, height, width]` over the layout's grid from orthonormal bases.
///
/// `mean[level]` is `[groups, rows]`, `basis` `[groups of the last level, k, d]` and `scale` `[groups, k]` as
/// [`Samples::factor`](super::Samples::factor) makes them, `epsilon` what was added to the covariance's diagonal.
///
/// What lies outside the basis is found by subtracting its parts one by one (modified Gram-Schmidt): taking a difference
/// of squared norms instead loses as many digits as the covariance's condition number has.
///
/// # Errors
/// [`KernelError::Shape`] if they do not belong together, [`KernelError::Parameter`] unless `epsilon` is positive.
pub fn distance_low_rank(
    layout: &Layout,
    mean: &[&[f32]],
    basis: &[f32],
    scale: &[f32],
    epsilon: f32,
    features: &[ArrayView4<'_, f32>],
) -> Result<Array3<f32>> {
    let op = "low-rank mahalanobis distance";
    check_means(op, layout, mean)?;
    let (d, last) = (layout.channels().len(), layout.levels() - 1);
    let groups = layout.groups(last);
    let k = scale.len() / groups;
    if scale.len() != groups * k || basis.len() != groups * k * d {
        return Err(shape_error(
            op,
            format!("basis [{groups}, k, {d}], scale [{groups}, k]"),
            [basis.len(), scale.len()],
        ));
    }
    if !(epsilon.is_finite() && epsilon > 0.0) {
        return Err(KernelError::Parameter { op, what: format!("epsilon is {epsilon}; it must be positive") });
    }
    over_bands(op, layout, features, |band, maps, n, out| {
        let stride = bands::stride(layout);
        let (mut x, mut rest) = (vec![0.0; n * stride], vec![0.0; stride]);
        layout.walk(band, &mut |at| {
            let level = layout.level(at.level);
            let (rows, group) = (level.rows.clone(), at.y * level.groups().1 + at.x);
            let mean = &mean[at.level][group * rows.len()..][..rows.len()];
            for image in 0..n {
                layout.gather(maps, image, at, mean, &mut x[image * stride..][rows.clone()]);
            }
            if at.level == last {
                let (basis, scale) = (&basis[group * k * d..][..k * d], &scale[group * k..][..k]);
                let squares = x.chunks_exact(stride).map(|x| {
                    rest.copy_from_slice(x);
                    cpu::low_rank(basis, scale, d, &mut rest, epsilon)
                });
                out.fill(layout, at, squares);
            }
            Ok(())
        })
    })
}

/// The grid rows of one band, `[n, rows, width]`.
struct Part {
    values: Array3<f32>,
    first: usize,
}

impl Part {
    /// Writes the root of each picture's square to all positions of a group.
    fn fill(&mut self, layout: &Layout, at: super::layout::At, squares: impl Iterator<Item = f32>) {
        let (rows, columns) = layout.area(at);
        let first = self.first;
        for (image, square) in squares.enumerate() {
            let root = square.sqrt();
            for y in rows.clone() {
                for x in columns.clone() {
                    self.values[[image, y - first, x]] = root;
                }
            }
        }
    }
}

/// Runs `work` on every band and puts the parts together.
fn over_bands(
    op: &'static str,
    layout: &Layout,
    features: &[ArrayView4<'_, f32>],
    work: impl Fn(usize, &[&[f32]], usize, &mut Part) -> Result<()> + Sync,
) -> Result<Array3<f32>> {
    let n = layout.check(op, features)?;
    let maps = contiguous(features);
    let maps: Vec<&[f32]> = maps.iter().map(|m| &**m).collect();
    let (height, width) = layout.grid();
    let parts = (0..layout.bands()).into_par_iter().map(|band| {
        let rows = layout.band_rows(band);
        let mut part = Part { values: Array3::zeros((n, rows.len(), width)), first: rows.start };
        work(band, &maps, n, &mut part)?;
        Ok(part)
    });
    let mut out = Array3::zeros((n, height, width));
    for part in parts.collect::<Result<Vec<Part>>>()? {
        let rows = part.values.dim().1;
        out.slice_mut(s![.., part.first..part.first + rows, ..]).assign(&part.values);
    }
    Ok(out)
}

/// The values in C order, copied only where they are not.
pub(super) fn contiguous<'a>(features: &'a [ArrayView4<'_, f32>]) -> Vec<Cow<'a, [f32]>> {
    let slice = |f: &'a ArrayView4<'_, f32>| match f.as_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(f.iter().copied().collect()),
    };
    features.iter().map(slice).collect()
}

fn check_means(op: &'static str, layout: &Layout, mean: &[&[f32]]) -> Result<()> {
    let fits = |(level, m): (usize, &&[f32])| m.len() == layout.groups(level) * layout.rows(level).len();
    if mean.len() != layout.levels() || !mean.iter().enumerate().all(fits) {
        return Err(shape_error(op, "means [groups, rows] for each level", lengths(mean)));
    }
    Ok(())
}

fn lengths(slices: &[&[f32]]) -> Vec<usize> {
    slices.iter().map(|s| s.len()).collect()
}
