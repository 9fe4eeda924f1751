//! Whole ROC and precision-recall curves.

use crate::key;
use crate::step::Steps;

/// ROC curve, thresholds descending. The first point is (0, 0) at threshold infinity, the last (1, 1).
#[derive(Debug, Clone, PartialEq)]
pub struct RocCurve {
    /// False positive rate at `score >= threshold`, ascending.
    pub fpr: Vec<f64>,
    /// True positive rate at `score >= threshold`, ascending.
    pub tpr: Vec<f64>,
    /// Distinct scores, descending, after an infinity.
    pub thresholds: Vec<f32>,
}

impl RocCurve {
    pub(crate) fn new(steps: Steps<'_>, positives: usize, negatives: usize) -> Self {
        let mut curve = Self { fpr: vec![0.0], tpr: vec![0.0], thresholds: vec![f32::INFINITY] };
        let (mut tp, mut fp) = (0, 0);
        for step in steps {
            tp += step.positives;
            fp += step.negatives;
            curve.fpr.push(fp as f64 / negatives as f64);
            curve.tpr.push(tp as f64 / positives as f64);
            curve.thresholds.push(key::score(step.key));
        }
        curve
    }
}

/// Precision-recall curve, thresholds descending. The first point is precision 1, recall 0 at threshold infinity.
#[derive(Debug, Clone, PartialEq)]
pub struct PrCurve {
    /// Share of defects among the scores `>= threshold`.
    pub precision: Vec<f64>,
    /// Share of the defects with a score `>= threshold`, ascending.
    pub recall: Vec<f64>,
    /// Distinct scores, descending, after an infinity.
    pub thresholds: Vec<f32>,
}

impl PrCurve {
    pub(crate) fn new(steps: Steps<'_>, positives: usize) -> Self {
        let mut curve = Self { precision: vec![1.0], recall: vec![0.0], thresholds: vec![f32::INFINITY] };
        let (mut tp, mut fp) = (0, 0);
        for step in steps {
            tp += step.positives;
            fp += step.negatives;
            curve.precision.push(tp as f64 / (tp + fp) as f64);
            curve.recall.push(tp as f64 / positives as f64);
            curve.thresholds.push(key::score(step.key));
        }
        curve
    }
}
