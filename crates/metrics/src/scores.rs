//! Scores with labels, and the exact metrics over them.

use ndarray::ArrayView2;

use crate::curve::{PrCurve, RocCurve};
use crate::error::{MetricError, Result};
use crate::key::{self, key, sorted_by_key};
use crate::step::{F1Max, Steps, Summary, need_both, summarise_sorted};

/// A metric over scores and labels (`true` is a defect), fed in parts and mergeable across workers.
///
/// The value depends on what was fed alone, to the last bit: not on the order, nor on how it was cut into updates.
/// ([`crate::Aupro`] has the same methods, but takes maps and masks, since it needs neighbourhoods.)
pub trait Metric: Sized {
    /// What [`Metric::compute`] gives.
    type Output;

    /// Adds scores `[n]` and labels `[n]`.
    ///
    /// # Errors
    /// [`MetricError::Length`] or [`MetricError::Nan`]; nothing is added then.
    fn update(&mut self, scores: &[f32], labels: &[bool]) -> Result<()>;

    /// Adds what another instance has seen.
    ///
    /// # Errors
    /// [`MetricError::Merge`] where the settings differ.
    fn merge(&mut self, other: Self) -> Result<()>;

    /// The value over everything seen so far.
    ///
    /// # Errors
    /// [`MetricError::Empty`] or [`MetricError::OneClass`].
    fn compute(&self) -> Result<Self::Output>;

    /// Adds every pixel of a map `[h, w]` with its mask `[h, w]`.
    ///
    /// # Errors
    /// [`MetricError::Shape`] or [`MetricError::Nan`]; nothing is added then.
    fn update_map(&mut self, map: ArrayView2<'_, f32>, mask: ArrayView2<'_, bool>) -> Result<()> {
        same_shape(map, mask)?;
        match (map.as_slice(), mask.as_slice()) {
            (Some(scores), Some(labels)) => self.update(scores, labels),
            _ => {
                let (scores, labels): (Vec<f32>, Vec<bool>) = map.iter().copied().zip(mask.iter().copied()).unzip();
                self.update(&scores, &labels)
            }
        }
    }
}

/// Errs unless map and mask are of one size.
pub(crate) fn same_shape(map: ArrayView2<'_, f32>, mask: ArrayView2<'_, bool>) -> Result<()> {
    if map.dim() != mask.dim() {
        let (map, mask) = (map.dim(), mask.dim());
        return Err(MetricError::Shape { map: [map.0, map.1], mask: [mask.0, mask.1] });
    }
    Ok(())
}

/// Errs unless there is one label per score and no score is NaN.
pub(crate) fn check(scores: &[f32], labels: &[bool]) -> Result<()> {
    if scores.len() != labels.len() {
        return Err(MetricError::Length { scores: scores.len(), labels: labels.len() });
    }
    key::refuse_nan(scores)
}

/// Every score seen, by class: four bytes per score. All exact metrics come from here, with one sort.
///
/// Infinite scores are allowed; `-0.0` and `0.0` are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scores {
    positive: Vec<u32>,
    negative: Vec<u32>,
}

impl Scores {
    /// No scores.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of scores seen.
    pub fn len(&self) -> usize {
        self.positive.len() + self.negative.len()
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole ROC curve, one point per distinct score.
    ///
    /// # Errors
    /// [`MetricError::Empty`] or [`MetricError::OneClass`].
    pub fn roc(&self) -> Result<RocCurve> {
        let (positive, negative) = self.sorted()?;
        Ok(RocCurve::new(Steps { positive: &positive, negative: &negative }, positive.len(), negative.len()))
    }

    /// The whole precision-recall curve, one point per distinct score.
    ///
    /// # Errors
    /// [`MetricError::Empty`] or [`MetricError::OneClass`].
    pub fn pr(&self) -> Result<PrCurve> {
        let (positive, negative) = self.sorted()?;
        Ok(PrCurve::new(Steps { positive: &positive, negative: &negative }, positive.len()))
    }

    fn sorted(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        need_both(self.positive.len() as u64, self.negative.len() as u64)?;
        Ok((sorted_by_key(&self.positive, |k| *k), sorted_by_key(&self.negative, |k| *k)))
    }
}

impl Metric for Scores {
    type Output = Summary;

    fn update(&mut self, scores: &[f32], labels: &[bool]) -> Result<()> {
        check(scores, labels)?;
        let positives = labels.iter().filter(|l| **l).count();
        self.positive.reserve(positives);
        self.negative.reserve(labels.len() - positives);
        for (score, label) in scores.iter().zip(labels) {
            if *label { &mut self.positive } else { &mut self.negative }.push(key(*score));
        }
        Ok(())
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        self.positive.extend_from_slice(&other.positive);
        self.negative.extend_from_slice(&other.negative);
        Ok(())
    }

    fn compute(&self) -> Result<Summary> {
        let (positive, negative) = self.sorted()?;
        summarise_sorted(&positive, &negative)
    }
}

/// A metric that is one field of [`Summary`].
macro_rules! field_of_summary {
    ($(#[$doc:meta])* $name:ident, $field:ident: $output:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name(Scores);

        impl $name {
            /// No scores.
            pub fn new() -> Self {
                Self::default()
            }
        }

        impl Metric for $name {
            type Output = $output;

            fn update(&mut self, scores: &[f32], labels: &[bool]) -> Result<()> {
                self.0.update(scores, labels)
            }

            fn merge(&mut self, other: Self) -> Result<()> {
                self.0.merge(other.0)
            }

            fn compute(&self) -> Result<$output> {
                Ok(self.0.compute()?.$field)
            }
        }
    };
}

field_of_summary! {
    /// Area under the ROC curve: the Mann-Whitney statistic, ties counting half, summed in integers and so exact.
    Auroc, auroc: f64
}
field_of_summary! {
    /// Average precision, the step-wise area under the precision-recall curve (not the trapezoid).
    AveragePrecision, average_precision: f64
}
field_of_summary! {
    /// Best F1 over all thresholds; gives [`F1Max`].
    F1, f1_max: F1Max
}

/// AUROC, average precision and F1-max of scores `[n]` with labels `[n]` (`true` is a defect).
///
/// # Errors
/// [`MetricError::Length`], [`MetricError::Nan`], [`MetricError::Empty`] or [`MetricError::OneClass`].
pub fn summary(scores: &[f32], labels: &[bool]) -> Result<Summary> {
    let mut all = Scores::new();
    all.update(scores, labels)?;
    all.compute()
}

/// [`Auroc`] of scores `[n]` with labels `[n]`; errors as for [`summary`].
pub fn auroc(scores: &[f32], labels: &[bool]) -> Result<f64> {
    Ok(summary(scores, labels)?.auroc)
}

/// [`AveragePrecision`] of scores `[n]` with labels `[n]`; errors as for [`summary`].
pub fn average_precision(scores: &[f32], labels: &[bool]) -> Result<f64> {
    Ok(summary(scores, labels)?.average_precision)
}

/// [`F1Max`] of scores `[n]` with labels `[n]`; errors as for [`summary`].
pub fn f1_max(scores: &[f32], labels: &[bool]) -> Result<F1Max> {
    Ok(summary(scores, labels)?.f1_max)
}
