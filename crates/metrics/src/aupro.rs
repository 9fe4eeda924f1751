//! Area under the per-region overlap curve.

use ndarray::ArrayView2;

use crate::components::label_components;
use crate::error::{MetricError, Result};
use crate::key::{self, key, sorted_by_key};
use crate::scores::same_shape;
use crate::step::{F1Max, need_both, summarise_sorted, take};

/// A defect pixel: the key of its score, and the region it belongs to.
type RegionPixel = (u32, u32);

/// AUPRO of maps with masks (Bergmann et al. 2020, "Uninformed Students", where PRO is introduced).
///
/// `PRO(t)` is the mean over all 8-connected mask regions, of all images, of the fraction with `score >= t`; `FPR(t)` the
/// fraction of all background pixels, images without defects included. The curve over all distinct scores starts at
/// (0, 0), is piecewise linear, and is cut at the FPR limit by interpolation; its area is divided by the limit, so that
/// a perfect map gives 1.
///
/// Computed per region in integers: a pixel with score `s` contributes the stretch of the FPR axis that lies beyond it.
/// The value is the same to the last bit for any order of images and any cut into workers. Memory is four bytes per
/// background and eight per defect pixel; [`Aupro::summary`] gives the other pixel metrics of the same pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Aupro {
    limit: f64,
    background: Vec<u32>,
    defects: Vec<RegionPixel>,
    /// Pixels of each region.
    areas: Vec<usize>,
}

/// The PRO curve. The first point is (0, 0) at threshold infinity, the last (1, 1).
#[derive(Debug, Clone, PartialEq)]
pub struct ProCurve {
    /// Share of the background with `score >= threshold`, ascending.
    pub fpr: Vec<f64>,
    /// Mean over regions of the share with `score >= threshold`, ascending.
    pub pro: Vec<f64>,
    /// Distinct scores, descending, after an infinity.
    pub thresholds: Vec<f32>,
}

/// All pixel metrics of one set.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelSummary {
    /// Pixel AUROC.
    pub auroc: f64,
    /// Pixel average precision.
    pub average_precision: f64,
    /// Pixel F1-max.
    pub f1_max: F1Max,
    /// AUPRO at each limit asked for.
    pub aupro: Vec<f64>,
    /// Number of defect regions.
    pub regions: usize,
}

impl Default for Aupro {
    /// The limit of the paper, 0.3.
    fn default() -> Self {
        Self { limit: 0.3, background: Vec::new(), defects: Vec::new(), areas: Vec::new() }
    }
}

impl Aupro {
    /// No maps; `limit` is the FPR to integrate up to, above 0 and at most 1 (usual are 0.3 and 0.05).
    ///
    /// # Errors
    /// [`MetricError::Setting`] for another limit.
    pub fn new(limit: f64) -> Result<Self> {
        check_limit(limit)?;
        Ok(Self { limit, ..Self::default() })
    }

    /// Adds a map `[h, w]` with its mask `[h, w]`. The sizes may differ between images.
    ///
    /// # Errors
    /// [`MetricError::Shape`] or [`MetricError::Nan`]; nothing is added then.
    pub fn update(&mut self, map: ArrayView2<'_, f32>, mask: ArrayView2<'_, bool>) -> Result<()> {
        same_shape(map, mask)?;
        match map.as_slice() {
            Some(scores) => key::refuse_nan(scores)?,
            None => map.iter().position(|s| s.is_nan()).map_or(Ok(()), |index| Err(MetricError::Nan { index }))?,
        }
        if !mask.iter().any(|m| *m) {
            self.background.extend(map.iter().map(|s| key(*s)));
            return Ok(());
        }
        let (labels, regions) = label_components(mask);
        let first = self.areas.len() as u32;
        for (score, label) in map.iter().zip(&labels) {
            match label {
                0 => self.background.push(key(*score)),
                label => self.defects.push((key(*score), first + label - 1)),
            }
        }
        self.areas.extend(regions.iter().map(|r| r.area));
        Ok(())
    }

    /// Adds what another instance has seen.
    ///
    /// # Errors
    /// [`MetricError::Merge`] where the limits differ.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        if self.limit != other.limit {
            return Err(MetricError::Merge("FPR limit"));
        }
        let first = self.areas.len() as u32;
        self.background.extend_from_slice(&other.background);
        self.defects.extend(other.defects.iter().map(|(key, region)| (*key, first + region)));
        self.areas.extend_from_slice(&other.areas);
        Ok(())
    }

    /// Number of defect regions seen.
    pub fn regions(&self) -> usize {
        self.areas.len()
    }

    /// AUPRO up to the limit.
    ///
    /// # Errors
    /// [`MetricError::Empty`], or [`MetricError::OneClass`] without any region or without any background.
    pub fn compute(&self) -> Result<f64> {
        let (defects, background) = self.sorted()?;
        Ok(self.area(&defects, &background, self.limit))
    }

    /// AUPRO at several limits, and AUROC, average precision and F1-max of the same pixels, with one sort.
    ///
    /// # Errors
    /// As [`Aupro::compute`], and [`MetricError::Setting`] for a limit outside `0..=1`.
    pub fn summary(&self, limits: &[f64]) -> Result<PixelSummary> {
        limits.iter().try_for_each(|limit| check_limit(*limit))?;
        let (defects, background) = self.sorted()?;
        let keys: Vec<u32> = defects.iter().map(|(key, _)| *key).collect();
        let scores = summarise_sorted(&keys, &background)?;
        Ok(PixelSummary {
            auroc: scores.auroc,
            average_precision: scores.average_precision,
            f1_max: scores.f1_max,
            aupro: limits.iter().map(|limit| self.area(&defects, &background, *limit)).collect(),
            regions: self.regions(),
        })
    }

    /// The whole curve, one point per distinct score.
    ///
    /// # Errors
    /// As [`Aupro::compute`].
    pub fn curve(&self) -> Result<ProCurve> {
        let (defects, background) = self.sorted()?;
        let mut curve = ProCurve { fpr: vec![0.0], pro: vec![0.0], thresholds: vec![f32::INFINITY] };
        let (mut defects, mut good) = (defects.as_slice(), background.as_slice());
        let mut overlap = 0.0;
        while let Some(key) = defects.last().map(|d| d.0).max(good.last().copied()) {
            take(&mut good, key);
            while let Some(((_, region), rest)) = defects.split_last().filter(|(d, _)| d.0 == key) {
                overlap += 1.0 / self.areas[*region as usize] as f64;
                defects = rest;
            }
            curve.fpr.push((background.len() - good.len()) as f64 / background.len() as f64);
            // The sum of shares may pass the number of regions by its last bits.
            curve.pro.push(if defects.is_empty() { 1.0 } else { (overlap / self.areas.len() as f64).min(1.0) });
            curve.thresholds.push(key::score(key));
        }
        Ok(curve)
    }

    /// Defect and background pixels, ascending by score.
    fn sorted(&self) -> Result<(Vec<RegionPixel>, Vec<u32>)> {
        need_both(self.defects.len() as u64, self.background.len() as u64)?;
        Ok((sorted_by_key(&self.defects, |d| d.0), sorted_by_key(&self.background, |k| *k)))
    }

    /// Mean over regions of the normalised area under (false positives, covered fraction) up to the limit.
    ///
    /// With `end = limit N` false positives, `above` background pixels over a defect pixel and `tied` with it, coverage
    /// by that pixel rises from 0 to 1 between `above` and `above + tied`: it adds `end - above - tied / 2` where the
    /// rise is complete, and a triangle where `end` falls into it. There is one such rise at most.
    fn area(&self, defects: &[RegionPixel], background: &[u32], limit: f64) -> f64 {
        #[derive(Clone, Default)]
        struct Region {
            /// Pixels whose rise is complete, and the sum of `2 above + tied` over them.
            complete: u64,
            lost: u128,
            /// Pixels whose rise is cut by the limit.
            cut: u64,
        }
        let end = limit * background.len() as f64;
        let mut regions = vec![Region::default(); self.areas.len()];
        let mut triangle = 0.0;
        let mut good = background;
        let mut rest = defects;
        while let Some((key, _)) = rest.last().copied() {
            // Drop what is above, then what is tied.
            while let Some((last, lower)) = good.split_last()
                && *last > key
            {
                good = lower;
            }
            let above = (background.len() - good.len()) as u64;
            if above as f64 >= end {
                break;
            }
            let tied = take(&mut good, key);
            let complete = (above + tied) as f64 <= end;
            if !complete {
                triangle = (end - above as f64).powi(2) / (2.0 * tied as f64);
            }
            while let Some(((_, region), lower)) = rest.split_last().filter(|(d, _)| d.0 == key) {
                let region = &mut regions[*region as usize];
                if complete {
                    region.complete += 1;
                    region.lost += u128::from(2 * above + tied);
                } else {
                    region.cut += 1;
                }
                rest = lower;
            }
        }
        let mut shares: Vec<f64> = regions
            .iter()
            .zip(&self.areas)
            .map(|(r, area)| {
                let sum = r.complete as f64 * end - r.lost as f64 / 2.0 + r.cut as f64 * triangle;
                sum / (*area as f64 * end)
            })
            .collect();
        // In a fixed order, so that the order of images does not show in the last bits.
        shares.sort_unstable_by(f64::total_cmp);
        shares.iter().sum::<f64>() / shares.len() as f64
    }
}

fn check_limit(limit: f64) -> Result<()> {
    if limit > 0.0 && limit <= 1.0 {
        return Ok(());
    }
    Err(MetricError::Setting { name: "FPR limit", wanted: "above 0 and at most 1", got: limit })
}
