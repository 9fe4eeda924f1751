use blemish_core::{AnomalyMap, CoreError};
use blemish_kernels::resize::{Corners, bilinear_with};
use ndarray::{Array2, ArrayView2, Axis};

use crate::Result;

/// The map of one picture from the log-likelihoods of each layer's positions (section 3.4): `ceiling - sum over the layers of
/// exp(l - maximum)`, brought to `size` with corners aligned. A likelihood above its layer's maximum counts as the maximum.
///
/// anomalib and the authors' code take maxima and ceiling over whatever is scored together; with stored maxima of the training
/// pictures and the number of layers as ceiling, a picture's map depends on nothing but itself.
///
/// # Errors
/// Empty maps, no layers, or another number of maxima.
pub fn anomaly_map(
    log_likelihoods: &[ArrayView2<'_, f32>],
    maxima: &[f32],
    ceiling: f32,
    size: (usize, usize),
) -> Result<AnomalyMap> {
    if log_likelihoods.is_empty() || log_likelihoods.len() != maxima.len() {
        let (wanted, got) = (format!("{} maxima, at least one", log_likelihoods.len()), format!("{}", maxima.len()));
        return Err(CoreError::Shape { what: "log-likelihoods", wanted, got }.into());
    }
    let mut map = Array2::from_elem(size, ceiling);
    for (layer, maximum) in log_likelihoods.iter().zip(maxima) {
        // Written so that a NaN stays one.
        let likelihood = layer.mapv(|l| if l > *maximum { 1.0 } else { (l - maximum).exp() });
        let up = bilinear_with(likelihood.view().insert_axis(Axis(0)).insert_axis(Axis(3)), size, Corners::Centres)?;
        map.iter_mut().zip(&up).for_each(|(m, p)| *m -= p);
    }
    Ok(AnomalyMap::new(map))
}
