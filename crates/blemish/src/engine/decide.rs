use blemish_core::{Calibration, CoreError, Decision, Prediction, ThresholdSource};
use blemish_metrics::thresholds::{normal_quantile, typical};
use blemish_metrics::{Aupro, PixelSummary, f1_max};
use ndarray::Array2;

use crate::Result;

/// Raw predictions on validation pictures and what is known of them.
pub struct Evidence {
    /// The prediction.
    pub prediction: Prediction,
    /// Whether the picture shows a good part.
    pub good: bool,
    /// Its defect pixels at the size of the map, if they are known.
    pub mask: Option<Array2<bool>>,
}

impl Evidence {
    /// Whether defect pixels are known.
    pub(super) fn is_masked(&self) -> bool {
        self.mask.as_ref().is_some_and(|mask| mask.iter().any(|p| *p))
    }
}

/// The metrics of all pixels of the maps; those of pictures without a mask are good.
pub(super) fn pixel_summary(evidence: &[Evidence]) -> Result<PixelSummary> {
    let mut pixels = Aupro::new(0.3)?;
    for e in evidence {
        let Some(map) = &e.prediction.map else { continue };
        let none = Array2::from_elem(map.dim(), false);
        pixels.update(map.view(), e.mask.as_ref().unwrap_or(&none).view())?;
    }
    Ok(pixels.summary(&[0.3])?)
}

/// Where the pictures come from that thresholds are found on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Held out of the training pictures.
    HeldOut,
    /// The test set, as in the papers' protocol.
    Test,
    /// The training pictures themselves.
    Training,
}

impl Origin {
    /// The source of a quantile of `good` pictures with this share of rejects.
    fn normal(self, good: usize, false_reject_rate: f64) -> ThresholdSource {
        match self {
            Origin::Training => ThresholdSource::Training { good },
            Origin::HeldOut | Origin::Test => ThresholdSource::Normal { good, false_reject_rate },
        }
    }
}

/// Finds thresholds: the best F1 where labelled pictures of both kinds are at hand, a quantile of the good ones otherwise.
///
/// The pixel threshold from good pictures alone is the quantile of their maps' maxima: the stated share of good pictures
/// has a pixel at or above it.
///
/// # Errors
/// No good pictures at all, or scores that are not numbers.
pub fn decide(evidence: &[Evidence], false_reject_rate: f64, origin: Origin) -> Result<Decision> {
    let good: Vec<f32> = evidence.iter().filter(|e| e.good).map(|e| e.prediction.score).collect();
    let bad = evidence.len() - good.len();
    if good.is_empty() {
        let wanted = "one good picture or more".to_owned();
        return Err(CoreError::TooFewImages { wanted, got: 0 }.into());
    }
    let (image, image_source) = if bad > 0 {
        let scores: Vec<f32> = evidence.iter().map(|e| e.prediction.score).collect();
        let labels: Vec<bool> = evidence.iter().map(|e| !e.good).collect();
        (
            f1_max(&scores, &labels)?.threshold,
            ThresholdSource::F1Max { good: good.len(), bad, from_test: origin == Origin::Test },
        )
    } else {
        let found = normal_quantile(&good, false_reject_rate)?;
        (found.threshold, origin.normal(good.len(), found.false_reject_rate))
    };
    let image = Calibration::new(f64::from(typical(&good)?), f64::from(image))?;
    let (pixel, pixel_source) = pixels(evidence, bad, false_reject_rate, origin)?.unzip();
    Ok(Decision { image, pixel, image_source, pixel_source })
}

fn pixels(
    evidence: &[Evidence],
    bad: usize,
    false_reject_rate: f64,
    origin: Origin,
) -> Result<Option<(Calibration, ThresholdSource)>> {
    let good: Vec<&blemish_core::AnomalyMap> =
        evidence.iter().filter(|e| e.good).filter_map(|e| e.prediction.map.as_ref()).collect();
    if good.is_empty() {
        return Ok(None);
    }
    let medians = good.iter().map(|map| typical(&map.view().iter().copied().collect::<Vec<_>>()));
    let usual = f64::from(typical(&medians.collect::<std::result::Result<Vec<_>, _>>()?)?);
    if bad > 0 && evidence.iter().all(|e| e.good || e.is_masked()) {
        let best = pixel_summary(evidence)?.f1_max.threshold;
        let source = ThresholdSource::F1Max { good: good.len(), bad, from_test: origin == Origin::Test };
        return Ok(Some((Calibration::new(usual, f64::from(best))?, source)));
    }
    let maxima = good.iter().map(|map| map.max()).collect::<blemish_core::Result<Vec<f32>>>()?;
    let found = normal_quantile(&maxima, false_reject_rate)?;
    let source = origin.normal(good.len(), found.false_reject_rate);
    Ok(Some((Calibration::new(usual, f64::from(found.threshold))?, source)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use blemish_core::AnomalyMap;

    fn evidence(score: f32, good: bool, mask: bool) -> Evidence {
        let mut map = Array2::from_elem((4, 4), score / 10.0);
        map[[1, 1]] = score;
        let mut pixels = Array2::from_elem((4, 4), false);
        pixels[[1, 1]] = !good;
        Evidence {
            prediction: Prediction { score, map: Some(AnomalyMap::new(map)) },
            good,
            mask: mask.then_some(pixels),
        }
    }

    #[test]
    fn good_pictures_alone_give_a_stated_rate() {
        let all: Vec<Evidence> = (0..39).map(|i| evidence(i as f32, true, false)).collect();
        let decision = decide(&all, 0.05, Origin::HeldOut).unwrap();
        assert!(
            matches!(decision.image_source, ThresholdSource::Normal { good: 39, false_reject_rate } if false_reject_rate <= 0.05)
        );
        let rejected = (0..39).filter(|i| f64::from(*i) >= decision.image.threshold).count();
        assert!(rejected <= 2, "{rejected}");
        assert!(decision.pixel.is_some());
    }

    #[test]
    fn training_pictures_promise_no_rate() {
        let all: Vec<Evidence> = (0..39).map(|i| evidence(i as f32, true, false)).collect();
        let decision = decide(&all, 0.05, Origin::Training).unwrap();
        let source = ThresholdSource::Training { good: 39 };
        assert_eq!((decision.image_source.clone(), decision.pixel_source), (source.clone(), Some(source)));
        assert_eq!(decision.image.threshold, decide(&all, 0.05, Origin::HeldOut).unwrap().image.threshold);
    }

    #[test]
    fn labelled_pictures_give_the_best_f1() {
        let mut all: Vec<Evidence> = (0..10).map(|i| evidence(i as f32, true, true)).collect();
        all.extend((20..25).map(|i| evidence(i as f32, false, true)));
        let decision = decide(&all, 0.05, Origin::Test).unwrap();
        assert_eq!(decision.image.threshold, 20.0);
        assert_eq!(decision.pixel.unwrap().threshold, 20.0);
        assert_eq!(decision.image_source, ThresholdSource::F1Max { good: 10, bad: 5, from_test: true });
        assert!(decide(&all[10..], 0.05, Origin::Test).is_err(), "no good picture");
    }
}
