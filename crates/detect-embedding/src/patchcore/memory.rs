use blemish_core::{AnomalyMap, CoreError, Prediction};
use blemish_kernels::blur::{self, Border};
use blemish_kernels::nearest::{Bank, Rows, Storage, pairwise_squared};
use blemish_kernels::resize;
use blemish_tensor::Device;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, CowArray, Ix2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::device::{Patches, SearchBank};
use crate::{EmbeddingError, Mode, Result};

/// How the numbers of the memory bank are kept, in memory and in the model file. Scores are exact for the rows as kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BankStorage {
    /// 32 bits: as computed.
    #[default]
    F32,
    /// 16 bits: half the size, relative error 2^-11 at most.
    F16,
    /// 8 bits: a quarter of the size; 255 steps between the least and the greatest value of each coordinate.
    Int8,
}

impl From<BankStorage> for Storage {
    fn from(storage: BankStorage) -> Storage {
        match storage {
            BankStorage::F32 => Storage::F32,
            BankStorage::F16 => Storage::F16,
            BankStorage::Int8 => Storage::Int8,
        }
    }
}

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
    bank: SearchBank,
    scoring: Scoring,
}

impl MemoryBank {
    /// Takes the rows kept.
    ///
    /// # Errors
    /// [`EmbeddingError::Params`] for settings out of range, [`EmbeddingError::Kernel`] for no rows or values that are
    /// not finite.
    pub fn new(rows: Array2<f32>, scoring: Scoring) -> Result<Self> {
        MemoryBank::rounded(rows, BankStorage::F32, scoring)
    }

    /// Searches on `device` from now on; the results are the same.
    pub fn use_device(&mut self, device: &Device) {
        self.bank.use_device(device);
    }

    /// In words, where searches run.
    pub(super) fn placement(&self) -> String {
        self.bank.placement()
    }

    /// Takes the rows kept, rounded to `storage`.
    ///
    /// # Errors
    /// As [`MemoryBank::new`], and values too large for 16 bits.
    pub fn rounded(rows: Array2<f32>, storage: BankStorage, scoring: Scoring) -> Result<Self> {
        scoring.validate()?;
        Ok(MemoryBank { bank: Bank::rounded(rows, storage.into())?.into(), scoring })
    }

    /// Takes rows of `columns` numbers that are rounded already.
    ///
    /// # Errors
    /// As [`MemoryBank::new`], and rows of another length.
    pub fn stored(rows: Rows, columns: usize, scoring: Scoring) -> Result<Self> {
        scoring.validate()?;
        Ok(MemoryBank { bank: Bank::stored(rows, columns)?.into(), scoring })
    }

    /// The values of the rows kept, `[m, c]`: those searched, after rounding.
    pub fn rows(&self) -> CowArray<'_, f32, Ix2> {
        self.bank().rows()
    }

    /// What is searched: the rows as they are kept, and the tables beside them.
    pub fn bank(&self) -> &Bank {
        self.bank.here()
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
        let (index, distance) =
            (nearest.index.into_raw_vec_and_offset().0, nearest.distance.into_raw_vec_and_offset().0);
        self.finish(&index, &distance, grid, size, |at| Ok(patches.select(Axis(0), at)))
    }

    /// As [`score`](Self::score), for patches that are on the GPU of the bank; `None` if it has to be done
    /// on the CPU.
    pub(super) fn score_there(
        &self,
        patches: &Patches,
        grid: (usize, usize),
        size: (usize, usize),
    ) -> Option<Result<Vec<Prediction>>> {
        let (index, distance) = self.bank.search_there(patches)?;
        let farthest = farthest(&distance, grid.0 * grid.1);
        let worst = patches.rows(&farthest)?;
        Some(self.finish(&index, &distance, grid, size, |_| Ok(worst)))
    }

    /// Scores and maps from the nearest row of each patch; `worst` gives the patches of some numbers.
    fn finish(
        &self,
        index: &[u32],
        distance: &[f32],
        grid: (usize, usize),
        size: (usize, usize),
        worst: impl FnOnce(&[usize]) -> Result<Array2<f32>>,
    ) -> Result<Vec<Prediction>> {
        let each = grid.0 * grid.1;
        let farthest = farthest(distance, each);
        let weights = match self.scoring.mode {
            Mode::Anomalib => self.weights(worst(&farthest)?.view(), &farthest, index)?,
            Mode::Paper => vec![1.0; farthest.len()],
        };
        (0..farthest.len())
            .into_par_iter()
            .map(|i| {
                let mut scores = distance[i * each..(i + 1) * each].to_vec();
                if self.scoring.mode == Mode::Paper {
                    scores.iter_mut().for_each(|s| *s *= *s);
                }
                let score = scores[farthest[i] - i * each] * weights[i];
                let scores = Array2::from_shape_vec(grid, scores).map_err(|e| CoreError::Shape {
                    what: "patch scores",
                    wanted: format!("{grid:?}"),
                    got: e.to_string(),
                })?;
                Ok(Prediction { score, map: Some(self.map(scores.view(), size)?) })
            })
            .collect()
    }

    /// Equation 7, for the worst patch of each picture, `[n, c]`: one minus the softmax share of its nearest row `m*` among
    /// its distances to the `b` rows nearest to `m*`, itself first. A row that lies alone makes a distant patch less
    /// surprising.
    fn weights(&self, worst: ArrayView2<'_, f32>, at: &[usize], nearest: &[u32]) -> Result<Vec<f32>> {
        let bank = self.bank();
        let b = self.scoring.num_neighbors.min(bank.dim().0);
        if b == 1 || at.is_empty() {
            return Ok(vec![1.0; at.len()]);
        }
        let own: Vec<usize> = at.iter().map(|&i| nearest[i] as usize).collect();
        let around = self.bank.search(bank.select(&own).view(), b)?;
        let weight = |(patch, around): (ArrayView2<'_, f32>, ArrayView1<'_, u32>)| {
            let around: Vec<usize> = around.iter().map(|&i| i as usize).collect();
            let squared = pairwise_squared(patch, bank.select(&around).view())?;
            let distances: Vec<f64> = squared.iter().map(|s| f64::from(s.sqrt())).collect();
            let largest = distances.iter().copied().fold(0.0, f64::max);
            let sum: f64 = distances.iter().map(|d| (d - largest).exp()).sum();
            let first = distances.first().copied().unwrap_or(largest);
            Ok((1.0 - (first - largest).exp() / sum) as f32)
        };
        worst.axis_chunks_iter(Axis(0), 1).zip(around.index.rows()).map(weight).collect()
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

/// The patch with the largest distance of each picture of `each` patches; the first one of several.
fn farthest(distance: &[f32], each: usize) -> Vec<usize> {
    let farther = |a: usize, b: usize| if distance[b] > distance[a] { b } else { a };
    (0..distance.len() / each).map(|i| (i * each..(i + 1) * each).fold(i * each, farther)).collect()
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
