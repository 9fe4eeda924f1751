use std::time::{Duration, Instant};

use blemish_core::{CoreError, Progress};
use blemish_datasets::{Files, Sample};
use blemish_metrics::{Aupro, confusion, summary};
use ndarray::Array2;
use serde::Serialize;

use super::score::Scored;
use super::train::mask;
use crate::{Engine, Model, Result};

/// Pictures timed one by one.
const TIMED: usize = 24;

/// Sees each scored picture: its number, its sample, its score, and its true defect pixels where they are known.
pub type Each<'a> = dyn FnMut(usize, &Sample, &Scored, Option<&Array2<bool>>) -> Result<()> + Send + 'a;

/// Metrics of image scores.
#[derive(Clone, Debug, Serialize)]
pub struct ImageMetrics {
    /// Area under the ROC curve.
    pub auroc: f64,
    /// Average precision.
    pub average_precision: f64,
    /// Best F1 over all thresholds, and the threshold.
    pub f1_max: f64,
    /// Raw score of the best F1.
    pub f1_max_threshold: f64,
}

/// Metrics of pixel scores.
#[derive(Clone, Debug, Serialize)]
pub struct PixelMetrics {
    /// Area under the ROC curve.
    pub auroc: f64,
    /// Average precision.
    pub average_precision: f64,
    /// Best F1 over all thresholds.
    pub f1_max: f64,
    /// Raw score of the best F1.
    pub f1_max_threshold: f64,
    /// Per-region overlap up to a false positive rate of 0.3.
    pub aupro: f64,
    /// Per-region overlap up to a false positive rate of 0.05.
    pub aupro_05: f64,
}

/// What testing found.
#[derive(Clone, Debug, Serialize)]
pub struct TestReport {
    /// Good test pictures scored.
    pub good: usize,
    /// Test pictures with defects scored.
    pub bad: usize,
    /// Absent unless there are both kinds.
    pub image: Option<ImageMetrics>,
    /// Absent unless there are maps and masks.
    pub pixel: Option<PixelMetrics>,
    /// Defects called defects at the model's threshold.
    pub true_positives: u64,
    /// Good parts called defects.
    pub false_positives: u64,
    /// Good parts called good.
    pub true_negatives: u64,
    /// Defects called good.
    pub false_negatives: u64,
    /// Median time from file to verdict of a single picture, in milliseconds.
    pub latency_p50_ms: f64,
    /// 99th percentile of it.
    pub latency_p99_ms: f64,
    /// Time of the whole test, in seconds.
    pub seconds: f64,
    /// Pictures that could not be read, a line each.
    pub skipped: Vec<String>,
}

impl Engine {
    /// Scores labelled pictures; `each` sees every result in order, with the defect pixels where they are known.
    ///
    /// # Errors
    /// A mask that does not fit its picture, an interruption, or whatever `each` says. Unreadable pictures are listed.
    pub fn test(
        &self,
        model: &Model,
        samples: &[Sample],
        min_region_area: usize,
        progress: &dyn Progress,
        each: &mut Each<'_>,
    ) -> Result<TestReport> {
        let start = Instant::now();
        let session = self.session(model.seed, progress);
        let source = Files::new(samples.to_vec());
        let (mut scores, mut labels, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        let (mut pixels, mut masked) = (Aupro::new(0.3)?, 0);
        let preprocess = model.detector.preprocess().clone();
        self.score(model, &source, min_region_area, &session, "test", &mut |index, outcome| {
            let sample = &samples[index];
            let scored = match outcome {
                Ok(scored) => scored,
                Err(why) => {
                    skipped.push(format!("{}: {why}", sample.path.display()));
                    return Ok(());
                }
            };
            let bad = sample.good == Some(false);
            let mask = mask(sample, &scored.image, &preprocess)?;
            if sample.good.is_some() {
                scores.push(scored.verdict.raw as f32);
                labels.push(bad);
            }
            if let Some(map) = scored.map.as_ref().filter(|_| !bad || mask.is_some()) {
                let none = Array2::from_elem(map.dim(), false);
                pixels.update(map.view(), mask.as_ref().unwrap_or(&none).view())?;
                masked += usize::from(mask.is_some());
            }
            each(index, sample, &scored, mask.as_ref())
        })?;
        if scores.is_empty() && skipped.is_empty() {
            return Err(CoreError::TooFewImages { wanted: "test pictures".to_owned(), got: 0 }.into());
        }
        let seconds = start.elapsed().as_secs_f64();
        let bad = labels.iter().filter(|l| **l).count();
        let good = labels.len() - bad;
        let image = match (good, bad) {
            (0, _) | (_, 0) => None,
            _ => {
                let s = summary(&scores, &labels)?;
                Some(ImageMetrics {
                    auroc: s.auroc,
                    average_precision: s.average_precision,
                    f1_max: s.f1_max.f1,
                    f1_max_threshold: f64::from(s.f1_max.threshold),
                })
            }
        };
        let pixel = (masked > 0).then(|| pixels.summary(&[0.3, 0.05])).and_then(std::result::Result::ok).map(|s| {
            PixelMetrics {
                auroc: s.auroc,
                average_precision: s.average_precision,
                f1_max: s.f1_max.f1,
                f1_max_threshold: f64::from(s.f1_max.threshold),
                aupro: s.aupro[0],
                aupro_05: s.aupro[1],
            }
        });
        let c = confusion(&scores, &labels, model.decision.image.threshold as f32)?;
        let (p50, p99) = self.latency(model, &source, min_region_area);
        Ok(TestReport {
            good,
            bad,
            image,
            pixel,
            true_positives: c.true_positives,
            false_positives: c.false_positives,
            true_negatives: c.true_negatives,
            false_negatives: c.false_negatives,
            latency_p50_ms: p50,
            latency_p99_ms: p99,
            seconds,
            skipped,
        })
    }

    /// Median and 99th percentile, in milliseconds, of single pictures from file to verdict.
    fn latency(&self, model: &Model, source: &Files, min_region_area: usize) -> (f64, f64) {
        use blemish_core::ImageSource;
        let count = source.len().min(TIMED);
        let times = (0..count).filter_map(|i| {
            let at = i * source.len() / count.max(1);
            self.score_one(model, source, at, min_region_area).ok().map(|s: Scored| s.time)
        });
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        (percentile(&times, 0.5), percentile(&times, 0.99))
    }
}

/// The value below which a share of the sorted `times` lies, in milliseconds.
pub(super) fn percentile(times: &[Duration], share: f64) -> f64 {
    let rank = (share * times.len() as f64).ceil() as usize;
    times.get(rank.saturating_sub(1)).map_or(0.0, |t| t.as_secs_f64() * 1e3)
}
