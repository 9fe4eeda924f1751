use ndarray::{Array1, Array2, ArrayView4};
use rayon::prelude::*;

use super::bands;
use super::distance::contiguous;
use super::layout::Layout;
use crate::error::shape_error;
use crate::{KernelError, Result};

const OP: &str = "mahalanobis samples";

/// The embeddings of a known, small number of pictures, each value stored once for the positions that share it.
pub struct Samples {
    layout: Layout,
    total: usize,
    count: usize,
    /// `[level][group, picture, row]`.
    values: Vec<Vec<f32>>,
}

/// What [`Samples::factor`] makes: means for each level, `basis` `[groups of the last level, k, d]`, `scale` `[groups, k]`.
pub type LowRank = (Vec<Vec<f32>>, Vec<f32>, Vec<f32>);

impl Samples {
    /// Room for `total` pictures.
    pub fn new(layout: Layout, total: usize) -> Self {
        let length = |level| layout.groups(level) * layout.rows(level).len() * total;
        let values = (0..layout.levels()).map(|level| vec![0.0; length(level)]).collect();
        Samples { layout, total, count: 0, values }
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Directions a covariance of these pictures can have: one fewer than pictures, at most all channels.
    pub fn rank(&self) -> usize {
        self.total.saturating_sub(1).min(self.layout.channels().len())
    }

    /// Adds the feature maps `[n, h, w, c]` of `n` more pictures.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if they are not those of the layout or more than announced.
    pub fn push(&mut self, features: &[ArrayView4<'_, f32>]) -> Result<()> {
        let n = self.layout.check(OP, features)?;
        if self.count + n > self.total {
            return Err(shape_error(OP, format!("{} pictures in all", self.total), self.count + n));
        }
        let maps = contiguous(features);
        let maps: Vec<&[f32]> = maps.iter().map(|m| &**m).collect();
        let (layout, total, count) = (&self.layout, self.total, self.count);
        let parts = bands::split(layout, &mut self.values, |level| layout.rows(level).len() * total);
        parts.into_par_iter().enumerate().try_for_each(|(band, mut values)| {
            let zero = vec![0.0; layout.channels().len()];
            layout.walk(band, &mut |at| {
                let (rows, group) = (layout.rows(at.level).len(), bands::local(layout, band, at));
                for image in 0..n {
                    let to = (group * total + count + image) * rows;
                    layout.gather(&maps, image, at, &zero[..rows], &mut values[at.level][to..][..rows]);
                }
                Ok::<(), KernelError>(())
            })
        })?;
        self.count += n;
        Ok(())
    }

    /// Means, orthonormal bases and scales of the low-rank form.
    ///
    /// `decompose(y)` is called for each group of the last level with its centred embeddings `y` `[N, d]`, divided by
    /// `sqrt(N - 1)`, and gives up to [`rank`](Self::rank) pairs of an orthonormal row `[d]` and the eigenvalue of `yᵀ y`
    /// that belongs to it; directions left out have eigenvalue 0.
    ///
    /// # Errors
    /// [`KernelError::Parameter`] for fewer than two pictures, or fewer than announced; [`KernelError::NotFinite`] if a
    /// feature was NaN or infinite; what `decompose` says.
    pub fn factor<E, F>(self, epsilon: f64, decompose: F) -> std::result::Result<LowRank, E>
    where
        E: From<KernelError> + Send,
        F: Fn(&Array2<f64>) -> std::result::Result<(Array2<f64>, Array1<f64>), E> + Sync,
    {
        let (layout, total, rank) = (&self.layout, self.total, self.rank());
        if self.count != total || total < 2 {
            let what = format!("{} pictures of {total}; all are needed, and at least 2", self.count);
            return Err(KernelError::Parameter { op: OP, what }.into());
        }
        let (d, last) = (layout.channels().len(), layout.levels() - 1);
        let mut mean: Vec<Vec<f32>> = self.values.iter().map(|v| vec![0.0; v.len() / total]).collect();
        let mut basis = vec![0.0f32; layout.groups(last) * rank * d];
        let mut scale = vec![0.0f32; layout.groups(last) * rank];
        let means = bands::split(layout, &mut mean, |level| layout.rows(level).len());
        let bases = bands::split_last(layout, &mut basis, rank * d);
        let scales = bands::split_last(layout, &mut scale, rank);
        let parts = means.into_par_iter().zip(bases).zip(scales).enumerate();
        parts.try_for_each(|(band, ((mut mean, basis), scale))| {
            let mut y = Array2::<f64>::zeros((total, d));
            layout.walk(band, &mut |at| {
                let level = layout.level(at.level);
                let (own, local) = (at.y * level.groups().1 + at.x, bands::local(layout, band, at));
                let n = level.rows.len();
                let values = &self.values[at.level][own * total * n..][..total * n];
                for (i, r) in level.rows.clone().enumerate() {
                    let column = values.iter().skip(i).step_by(n).map(|v| f64::from(*v));
                    let centre = column.clone().sum::<f64>() / total as f64;
                    if !centre.is_finite() {
                        let error = KernelError::NotFinite { op: OP, what: "a feature mean", index: own * n + i };
                        return Err(E::from(error));
                    }
                    mean[at.level][local * n + i] = centre as f32;
                    let root = ((total - 1) as f64).sqrt();
                    y.column_mut(r).iter_mut().zip(column).for_each(|(y, v)| *y = (v - centre) / root);
                }
                if at.level == last {
                    let (directions, values) = decompose(&y)?;
                    let pairs = directions.rows().into_iter().zip(&values).take(rank);
                    for (k, (direction, value)) in pairs.enumerate() {
                        let to = &mut basis[(local * rank + k) * d..][..d];
                        to.iter_mut().zip(direction).for_each(|(to, v)| *to = *v as f32);
                        scale[local * rank + k] = (1.0 / (value + epsilon)) as f32;
                    }
                }
                Ok::<(), E>(())
            })
        })?;
        Ok((mean, basis, scale))
    }
}
