use blemish_core::{AnomalyMap, CoreError};
use blemish_kernels::blur::gaussian;
use blemish_kernels::resize::bilinear_2d;
use ndarray::{Array2, ArrayView2};

use crate::Result;

/// The map of one picture from the mean squares `mean_c z^2` of each layer's latent (section 3.3): the mean over the layers of
/// `-exp(-energy / 2)`, each brought to `size` (bilinear, corners not aligned), blurred with a Gaussian of `sigma` pixels. Values lie in
/// -1 to 0. Without the blur, a sigma of 0, it is the paper's.
///
/// # Errors
/// Empty maps or no layers, or a sigma out of range.
pub fn anomaly_map(energies: &[ArrayView2<'_, f32>], size: (usize, usize), sigma: f32) -> Result<AnomalyMap> {
    if energies.is_empty() {
        let (wanted, got) = ("at least one layer".to_owned(), "none".to_owned());
        return Err(CoreError::Shape { what: "latents", wanted, got }.into());
    }
    let share = 1.0 / energies.len() as f32;
    let mut map = Array2::zeros(size);
    for energy in energies {
        let probability = energy.mapv(|e| -(-0.5 * e).exp());
        map.scaled_add(share, &bilinear_2d(probability.view(), size)?);
    }
    Ok(AnomalyMap::new(gaussian(map.view(), sigma)?))
}
