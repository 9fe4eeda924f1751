use blemish_core::{AnomalyMap, CoreError, Prediction};
use blemish_kernels::blur::{self, Border};
use blemish_kernels::nearest::{Bank, pairwise_squared};
use blemish_kernels::resize;
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{EmbeddingError, Mode, Result};

/// How distances become scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    /// Neighbours of the image score; see [`PatchcoreParams`](super::PatchcoreParams::num_neighbors).
    pub num_neighbors: usize,
    /// Standard deviation of the map's blur, in pixels.
    pub sigma: f32,
    /// Whose reading of the paper.
    pub mode: Mode,
}

impl Scoring {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`EmbeddingError::Params`] naming the field outside its range.
    pub fn validate(&self) -> Result<()> {
        if self.num_neighbors == 0 {
            return Err(EmbeddingError::Params { name: "num_neighbors", why: "0; at least 1".to_owned() });
        }
        if !(0.0..=1000.0).contains(&self.sigma) {
            return Err(EmbeddingError::Params { name: "sigma", why: format!("{}; 0 to 1000 pixels", self.sigma) });
        }
        Ok(())
    }
}

/// The coreset of the patch embeddings of good parts, `[m, c]`, ready to be searched.
#[derive(Debug)]
pub struct MemoryBank {
    bank: Bank,
    scoring: Scoring,
}

impl MemoryBank {
    /// Takes the rows kept.
    ///
    /// # Errors
    /// [`EmbeddingError::Params`] for settings out of range, [`EmbeddingError::Kernel`] for no rows or values that are
    /// not finite.
    pub fn new(rows: Array2<f32>, scoring: Scoring) -> Result<Self> {
        scoring.validate()?;
        Ok(MemoryBank { bank: Bank::new(rows)?, scoring })
    }

    /// The rows kept, `[m, c]`.
    pub fn rows(&self) -> ArrayView2<'_, f32> {
        self.bank.rows()
    }

    /// How distances become scores.
    pub fn scoring(&self) -> Scoring {
        self.scoring
    }

    /// Scores pictures whose patches are `patches` `[n h w, c]`, as [`embed`](super::embed) makes them, on a `grid` of
    /// `h` by `w`; maps come out at `size`.
    ///
    /// - [`Mode::Anomalib`]: patches score their distance to the nearest row; the picture scores as equations 6 and 7
    ///   say; the map is brought to size by nearest and blurred with reflected borders.
    /// - [`Mode::Paper`]: squared distances, the largest one for the picture, bilinear, borders repeated when blurred.
    ///
    /// # Errors
    /// [`EmbeddingError::Core`] if the rows do not fill whole grids; [`EmbeddingError::Kernel`] for rows of another
    /// length or values that are not finite.
    pub fn score(
        &self,
        patches: ArrayView2<'_, f32>,
        grid: (usize, usize),
        size: (usize, usize),
    ) -> Result<Vec<Prediction>> {
        let each = grid.0 * grid.1;
        if each == 0 || !patches.nrows().is_multiple_of(each) {
            let wanted = format!("[n x {} x {}, c] patches", grid.0, grid.1);
            let got = format!("{:?}", patches.shape());
            return Err(CoreError::Shape { what: "patch embeddings", wanted, got }.into());
        }
        let nearest = self.bank.search(patches, 1)?;
        let pictures: Vec<usize> = (0..patches.nrows() / each).collect();
        pictures
            .into_par_iter()
            .map(|i| {
                let first = i * each;
                let mut scores: Vec<f32> =
                    nearest.distance.rows().into_iter().skip(first).take(each).map(|d| d[0]).collect();
                if self.scoring.mode == Mode::Paper {
                    scores.iter_mut().for_each(|s| *s *= *s);
                }
                let farthest = (0..each).fold(0, |best, j| if scores[j] > scores[best] { j } else { best });
                let mut score = scores[farthest];
                if self.scoring.mode == Mode::Anomalib {
                    let row = nearest.index[[first + farthest, 0]] as usize;
                    score *= self.weight(patches.row(first + farthest).insert_axis(Axis(0)), row)?;
                }
                let scores = Array2::from_shape_vec(grid, scores).map_err(|e| CoreError::Shape {
                    what: "patch scores",
                    wanted: format!("{grid:?}"),
                    got: e.to_string(),
                })?;
                Ok(Prediction { score, map: Some(self.map(scores.view(), size)?) })
            })
            .collect()
    }

    /// Equation 7: one minus the softmax share of the nearest row `m*` among the distances of the patch to the `b` rows
    /// nearest to `m*`, itself first. A row that lies alone makes a distant patch less surprising.
    fn weight(&self, patch: ArrayView2<'_, f32>, nearest: usize) -> Result<f32> {
        let rows = self.bank.rows();
        let b = self.scoring.num_neighbors.min(rows.nrows());
        if b == 1 {
            return Ok(1.0);
        }
        let around = self.bank.search(rows.row(nearest).insert_axis(Axis(0)), b)?;
        let around: Vec<usize> = around.index.iter().map(|&i| i as usize).collect();
        let squared = pairwise_squared(patch, rows.select(Axis(0), &around).view())?;
        let distances: Vec<f64> = squared.iter().map(|s| f64::from(s.sqrt())).collect();
        let largest = distances.iter().copied().fold(0.0, f64::max);
        let sum: f64 = distances.iter().map(|d| (d - largest).exp()).sum();
        let first = distances.first().copied().unwrap_or(largest);
        Ok((1.0 - (first - largest).exp() / sum) as f32)
    }

    fn map(&self, scores: ArrayView2<'_, f32>, size: (usize, usize)) -> Result<AnomalyMap> {
        let sigma = self.scoring.sigma;
        match self.scoring.mode {
            Mode::Anomalib => Ok(AnomalyMap::from_patches(scores, size, true, sigma)?),
            Mode::Paper => {
                let up = resize::bilinear_2d(scores, size)?;
                Ok(AnomalyMap::new(blur::gaussian_with(up.view(), sigma, Border::Symmetric)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn a_flat_map_stays_flat_in_paper_mode() {
        let scoring = Scoring { num_neighbors: 9, sigma: 4.0, mode: Mode::Paper };
        let memory = MemoryBank::new(array![[0.0, 0.0], [10.0, 0.0]], scoring).unwrap();
        let patches = Array2::from_shape_fn((4, 2), |(_, j)| if j == 0 { 0.0 } else { 3.0 });
        let got = memory.score(patches.view(), (2, 2), (20, 24)).unwrap();
        assert_eq!(got[0].score, 9.0);
        assert!(got[0].map.as_ref().unwrap().view().iter().all(|v| (v - 9.0).abs() < 1e-5));
    }

    #[test]
    fn the_weight_follows_equation_seven() {
        let scoring = Scoring { num_neighbors: 2, sigma: 0.0, mode: Mode::Anomalib };
        let memory = MemoryBank::new(array![[0.0], [1.0], [50.0]], scoring).unwrap();
        let got = memory.score(array![[-3.0]].view(), (1, 1), (1, 1)).unwrap();
        // Nearest at 3, its neighbour at 4.
        let want = 3.0 * (1.0 - 1.0 / (1.0 + 1f32.exp()));
        assert!((got[0].score - want).abs() < 1e-6, "{} {want}", got[0].score);
        assert_eq!(got[0].map.as_ref().unwrap().view()[[0, 0]], 3.0);
        assert!(memory.score(array![[-3.0], [0.0], [0.0]].view(), (2, 1), (1, 1)).is_err());
        assert!(memory.score(array![[f32::NAN]].view(), (1, 1), (1, 1)).is_err());
        assert!(MemoryBank::new(array![[0.0]], Scoring { num_neighbors: 0, ..scoring }).is_err());
    }
}
