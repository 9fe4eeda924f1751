use blemish_core::{AnomalyMap, CoreError};
use blemish_flow::Latent;
use blemish_kernels::blur::gaussian;
use blemish_kernels::resize::bilinear_2d;
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::Result;

/// What FastFlow's map shows at a pixel. The score of a picture is the maximum of the map of latents in either case, as the
/// published codes have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapOf {
    /// How unlikely the pixel's features are: the density of its latent times the determinant of what led there (section 3.2), as
    /// CFlow-AD has it.
    #[default]
    Likelihood,
    /// The density of the latent alone, as the published codes and anomalib have it.
    Latent,
}

impl MapOf {
    /// A number for each pixel of a layer, from the latent of its map with so many channels: `-ln p / channels` with the latent's
    /// likelihood `p`, or `-exp(-energy / 2)`, which lies in -1 to 0.
    pub fn anomalies(self, latent: &Latent, channels: usize) -> Vec<f32> {
        let constant = 0.5 * std::f64::consts::TAU.ln();
        match self {
            MapOf::Latent => latent.energy.iter().map(|e| -(-0.5 * e).exp()).collect(),
            MapOf::Likelihood => {
                let unlikely = |(energy, log_det): (&f32, &f32)| {
                    (0.5 * f64::from(*energy) + constant - f64::from(*log_det) / channels as f64) as f32
                };
                latent.energy.iter().zip(&latent.log_dets).map(unlikely).collect()
            }
        }
    }
}

/// The map of one picture from the [anomalies](MapOf::anomalies) `[h, w]` of each layer: their mean over the layers, each brought to
/// `size` (bilinear, corners not aligned; section 3.2), blurred with a Gaussian of `sigma` pixels, 0 for none.
///
/// # Errors
/// Empty maps or no layers, or a sigma out of range.
pub fn anomaly_map(anomalies: &[ArrayView2<'_, f32>], size: (usize, usize), sigma: f32) -> Result<AnomalyMap> {
    if anomalies.is_empty() {
        let (wanted, got) = ("at least one layer".to_owned(), "none".to_owned());
        return Err(CoreError::Shape { what: "latents", wanted, got }.into());
    }
    let share = 1.0 / anomalies.len() as f32;
    let mut map = Array2::zeros(size);
    for layer in anomalies {
        map.scaled_add(share, &bilinear_2d(*layer, size)?);
    }
    Ok(AnomalyMap::new(gaussian(map.view(), sigma)?))
}
