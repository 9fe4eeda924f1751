use blemish_kernels::{blur, resize};
use ndarray::{Array2, ArrayView2};

use crate::{CoreError, Result};

/// A raw anomaly score for each pixel of the network input, `[height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AnomalyMap(Array2<f32>);

impl AnomalyMap {
    /// Takes a map as it is.
    pub fn new(values: Array2<f32>) -> Self {
        AnomalyMap(values.as_standard_layout().into_owned())
    }

    /// Scores of a patch grid, brought to `size` and blurred: bilinear without aligned corners (PaDiM, FastFlow) or
    /// nearest (PatchCore), then a Gaussian of `sigma` pixels (0 for none) with reflected borders.
    ///
    /// # Errors
    /// A map too small to be reflected, or an empty one.
    pub fn from_patches(grid: ArrayView2<'_, f32>, size: (usize, usize), nearest: bool, sigma: f32) -> Result<Self> {
        let up = if nearest { resize::nearest_2d(grid, size)? } else { resize::bilinear_2d(grid, size)? };
        Ok(AnomalyMap(if sigma > 0.0 { blur::gaussian(up.view(), sigma)? } else { up }))
    }

    /// The scores.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        self.0.view()
    }

    /// The scores, moved out.
    pub fn into_inner(self) -> Array2<f32> {
        self.0
    }

    /// Height and width.
    pub fn dim(&self) -> (usize, usize) {
        self.0.dim()
    }

    /// The largest score.
    ///
    /// # Errors
    /// [`CoreError::NotFinite`] if a score is NaN; a map has at least one pixel otherwise.
    pub fn max(&self) -> Result<f32> {
        let max = self.0.iter().copied().fold(f32::NEG_INFINITY, |m, x| if x > m || x.is_nan() { x } else { m });
        if max.is_finite() { Ok(max) } else { Err(CoreError::NotFinite { what: "the anomaly map".to_owned() }) }
    }
}
