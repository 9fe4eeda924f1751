use serde::{Deserialize, Serialize};

use crate::{CoreError, Result};

/// Where a threshold came from, so that its number can be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
pub enum ThresholdSource {
    /// The score that separates labelled validation pictures (or pixels) with the best F1.
    F1Max {
        /// Good pictures used.
        good: usize,
        /// Pictures with defects used.
        bad: usize,
        /// Whether those pictures were the test set (the papers' protocol, optimistic).
        from_test: bool,
    },
    /// A quantile of the scores of good pictures that were not learnt from.
    Normal {
        /// Good pictures used.
        good: usize,
        /// Share of good pictures expected at or above the threshold.
        false_reject_rate: f64,
    },
    /// A quantile of the scores of the pictures learnt from, since there were no others: lower than new good pictures score, so
    /// that no rate can be promised.
    Training {
        /// Pictures used.
        good: usize,
    },
    /// Given by the user.
    Given,
}

/// Maps raw scores to 0..1: a logistic curve through 0.1 at the typical good score and 0.5 at the threshold; strictly
/// rising, so it makes no ties where raw scores differ noticeably.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Median raw score of good pictures (or pixels).
    pub typical: f64,
    /// Raw score at and above which it is a defect.
    pub threshold: f64,
}

impl Calibration {
    /// Checks the two numbers.
    ///
    /// # Errors
    /// [`CoreError::NotFinite`] if one is NaN or infinite.
    pub fn new(typical: f64, threshold: f64) -> Result<Self> {
        if typical.is_finite() && threshold.is_finite() {
            Ok(Calibration { typical, threshold })
        } else {
            Err(CoreError::NotFinite { what: format!("typical score {typical}, threshold {threshold}") })
        }
    }

    /// The calibrated score of a raw one; at least 0.5 exactly where `raw >= threshold`.
    pub fn score(&self, raw: f64) -> f64 {
        let least = self.threshold.abs().max(1.0) * 1e-6;
        let scale = ((self.threshold - self.typical) / 9f64.ln()).max(least);
        1.0 / (1.0 + (-(raw - self.threshold) / scale).exp())
    }

    /// Raw score, calibrated score, threshold and label.
    ///
    /// # Errors
    /// [`CoreError::NotFinite`] for a raw score that is no number.
    pub fn verdict(&self, raw: f32) -> Result<Verdict> {
        let raw = f64::from(raw);
        if !raw.is_finite() {
            return Err(CoreError::NotFinite { what: "the score".to_owned() });
        }
        let label = if raw >= self.threshold { Label::Defect } else { Label::Good };
        Ok(Verdict { label, score: self.score(raw), raw, threshold: self.threshold })
    }
}

/// The thresholds of a model and where they came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// For image scores.
    pub image: Calibration,
    /// For pixels of the anomaly map; absent if the detector gives no map.
    pub pixel: Option<Calibration>,
    /// Origin of the image threshold.
    pub image_source: ThresholdSource,
    /// Origin of the pixel threshold.
    pub pixel_source: Option<ThresholdSource>,
}

/// Good or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Below the threshold.
    Good,
    /// At or above the threshold.
    Defect,
}

/// A score never without its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The verdict itself.
    pub label: Label,
    /// Calibrated score, 0..1, at least 0.5 for a defect.
    pub score: f64,
    /// Raw score, on the detector's own scale.
    pub raw: f64,
    /// Raw threshold.
    pub threshold: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rises_and_agrees_with_the_label(typical in -100.0..100.0f64, gap in 0.0..50.0f64, a in -200.0..200.0f32, b in -200.0..200.0f32) {
            let c = Calibration::new(typical, typical + gap).unwrap();
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            let (vl, vh) = (c.verdict(low).unwrap(), c.verdict(high).unwrap());
            prop_assert!(vl.score <= vh.score);
            for v in [vl, vh] {
                prop_assert!((0.0..=1.0).contains(&v.score));
                prop_assert_eq!(v.label == Label::Defect, v.score >= 0.5);
            }
        }
    }

    #[test]
    fn fixed_points() {
        let c = Calibration::new(2.0, 5.0).unwrap();
        assert!((c.score(2.0) - 0.1).abs() < 1e-12);
        assert_eq!(c.score(5.0), 0.5);
        assert!(c.verdict(f32::NAN).is_err());
        assert!(Calibration::new(f64::NAN, 1.0).is_err());
    }
}
