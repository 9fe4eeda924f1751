//! From a number at each position of each layer to predictions.

use blemish_core::{AnomalyMap, CoreError, Prediction};
use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::Result;
use crate::features::Size;

/// Scores `n` pictures, each by itself, from the numbers `[n h w]` of each layer, whose maps have these sizes: `map` makes the anomaly
/// map of all layers' grids `[h, w]`; the score is its maximum.
pub(crate) fn predictions(
    n: usize,
    values: &[Vec<f32>],
    sizes: &[Size],
    map: impl Fn(&[ArrayView2<'_, f32>]) -> Result<AnomalyMap> + Sync,
) -> Result<Vec<Prediction>> {
    let predict = |i: usize| {
        let grids = values.iter().zip(sizes).map(|(values, &(h, w, _))| {
            let own = values.get(i * h * w..(i + 1) * h * w).unwrap_or_default();
            ArrayView2::from_shape((h, w), own)
        });
        let grids = grids.collect::<std::result::Result<Vec<ArrayView2<'_, f32>>, _>>();
        let wanted = || format!("a number for each position of {sizes:?}");
        let grids = grids.map_err(|e| CoreError::Shape { what: "scores", wanted: wanted(), got: e.to_string() })?;
        let map = map(&grids)?;
        Ok(Prediction { score: map.max()?, map: Some(map) })
    };
    (0..n).into_par_iter().map(predict).collect()
}
