//! From a number at each position of each layer to predictions.

use blemish_core::{AnomalyMap, CoreError, Prediction};
use ndarray::{Array4, ArrayView2};
use rayon::prelude::*;

use crate::Result;
use crate::features::{borrowed, sizes};

/// Scores the pictures of a batch of feature maps, each by itself: `layer(l, x)` gives a number for each position of layer `l`
/// from its map `[h, w, c]`, `map` makes the anomaly map of all layers' grids `[h, w]`; the score is its maximum.
pub(crate) fn predictions(
    maps: &[Array4<f32>],
    layer: impl Fn(usize, &[f32]) -> Result<Vec<f32>> + Sync,
    map: impl Fn(&[ArrayView2<'_, f32>]) -> Result<AnomalyMap> + Sync,
) -> Result<Vec<Prediction>> {
    let (n, sizes) = (maps.first().map_or(0, |map| map.dim().0), sizes(maps));
    let predict = |i: usize| -> Result<Prediction> {
        let layers = borrowed(maps, i);
        let values: Vec<Vec<f32>> =
            layers.par_iter().enumerate().map(|(l, x)| layer(l, x)).collect::<Result<Vec<Vec<f32>>>>()?;
        let grids = values.iter().zip(&sizes).map(|(v, size)| ArrayView2::from_shape((size.0, size.1), v.as_slice()));
        let grids = grids.collect::<std::result::Result<Vec<ArrayView2<'_, f32>>, _>>();
        let wanted = || format!("a number for each position of {sizes:?}");
        let grids = grids.map_err(|e| CoreError::Shape { what: "scores", wanted: wanted(), got: e.to_string() })?;
        let map = map(&grids)?;
        Ok(Prediction { score: map.max()?, map: Some(map) })
    };
    (0..n).into_par_iter().map(predict).collect()
}
