//! Counts at one threshold.

use crate::error::{MetricError, Result};
use crate::scores::check;

/// What a threshold does to labelled scores. A score is called a defect iff `score >= threshold`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Defects called defects.
    pub true_positives: u64,
    /// Good ones called defects.
    pub false_positives: u64,
    /// Good ones called good.
    pub true_negatives: u64,
    /// Defects called good.
    pub false_negatives: u64,
}

impl Confusion {
    /// Number of scores.
    pub fn total(&self) -> u64 {
        self.true_positives + self.false_positives + self.true_negatives + self.false_negatives
    }

    /// Share called rightly; `None` without scores.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.true_positives + self.true_negatives, self.total())
    }

    /// Share of true defects among those called defects; `None` where nothing was called a defect.
    pub fn precision(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Share of the defects that were found; `None` without defects.
    pub fn recall(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Share of the good ones called defects; `None` without good ones.
    pub fn false_reject_rate(&self) -> Option<f64> {
        share(self.false_positives, self.false_positives + self.true_negatives)
    }

    /// `2 tp / (2 tp + fp + fn)`; `None` where there are no defects and none were called.
    pub fn f1(&self) -> Option<f64> {
        share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }

    /// Adds the counts of another part of the data.
    pub fn merge(&mut self, other: Self) {
        self.true_positives += other.true_positives;
        self.false_positives += other.false_positives;
        self.true_negatives += other.true_negatives;
        self.false_negatives += other.false_negatives;
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Counts of scores `[n]` with labels `[n]` (`true` is a defect) at a threshold. One class alone is fine here.
///
/// # Errors
/// [`MetricError::Length`], [`MetricError::Nan`], [`MetricError::Empty`], or [`MetricError::Setting`] for a threshold
/// that is NaN.
pub fn confusion(scores: &[f32], labels: &[bool], threshold: f32) -> Result<Confusion> {
    check(scores, labels)?;
    if threshold.is_nan() {
        return Err(MetricError::Setting { name: "threshold", wanted: "a number", got: f64::from(threshold) });
    }
    if scores.is_empty() {
        return Err(MetricError::Empty);
    }
    let mut counts = Confusion::default();
    for (score, label) in scores.iter().zip(labels) {
        match (*score >= threshold, *label) {
            (true, true) => counts.true_positives += 1,
            (true, false) => counts.false_positives += 1,
            (false, false) => counts.true_negatives += 1,
            (false, true) => counts.false_negatives += 1,
        }
    }
    Ok(counts)
}
