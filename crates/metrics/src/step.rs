//! What all rank metrics share: counts per distinct score, walked from the highest score down.

use crate::error::{MetricError, Result};
use crate::key;

/// One distinct score (or one bin) and how many of each class have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Key of the score, or number of the bin.
    pub(crate) key: u32,
    pub(crate) positives: u64,
    pub(crate) negatives: u64,
}

/// Steps of two ascending lists of keys, highest key first.
#[derive(Debug, Clone)]
pub(crate) struct Steps<'a> {
    pub(crate) positive: &'a [u32],
    pub(crate) negative: &'a [u32],
}

impl Iterator for Steps<'_> {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        let key = match (self.positive.last(), self.negative.last()) {
            (Some(p), Some(n)) => *p.max(n),
            (Some(k), None) | (None, Some(k)) => *k,
            (None, None) => return None,
        };
        Some(Step { key, positives: take(&mut self.positive, key), negatives: take(&mut self.negative, key) })
    }
}

/// Drops the entries equal to `key` from the end and counts them.
#[inline]
pub(crate) fn take(list: &mut &[u32], key: u32) -> u64 {
    let before = list.len();
    while let Some((last, rest)) = list.split_last()
        && *last == key
    {
        *list = rest;
    }
    (before - list.len()) as u64
}

/// The best F1 over all thresholds and where it is reached.
///
/// A score is called a defect iff `score >= threshold`. Several thresholds may reach the same F1: this is the lowest,
/// so that fewer defects pass. The comparison is exact, in integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct F1Max {
    /// `2 tp / (2 tp + fp + fn)`.
    pub f1: f64,
    /// A score of the data (of [`crate::Binned`]: the lower edge of a bin).
    pub threshold: f32,
    /// Share of true defects among those called defects.
    pub precision: f64,
    /// Share of the defects that are found.
    pub recall: f64,
}

/// AUROC, average precision and F1-max of the same scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Probability that a defect scores above a good one, ties counting half.
    pub auroc: f64,
    /// `sum_k (R_k - R_{k-1}) P_k` over distinct scores, from high to low.
    pub average_precision: f64,
    /// Best F1 and its threshold.
    pub f1_max: F1Max,
    /// Number of scores labelled true.
    pub positives: u64,
    /// Number of scores labelled false.
    pub negatives: u64,
}

/// Errs unless there is at least one of each class.
pub(crate) fn need_both(positives: u64, negatives: u64) -> Result<()> {
    match (positives, negatives) {
        (0, 0) => Err(MetricError::Empty),
        (0, _) | (_, 0) => Err(MetricError::OneClass { positives, negatives }),
        _ => Ok(()),
    }
}

/// Walks the steps once. `positives` and `negatives` are their sums; `threshold` turns a step's key into a score.
pub(crate) fn summarise(
    steps: impl Iterator<Item = Step>,
    positives: u64,
    negatives: u64,
    threshold: impl Fn(u32) -> f32,
) -> Result<Summary> {
    need_both(positives, negatives)?;
    let (mut tp, mut fp) = (0_u64, 0_u64);
    // Twice the Mann-Whitney U, an integer: a pair counts 2 when ordered rightly and 1 when tied.
    let mut pairs = 0_u128;
    let mut precision_sum = 0.0_f64;
    let mut best = (0_u32, 0_u64, 0_u64);
    for step in steps {
        let ahead = 2 * u128::from(negatives - fp) - u128::from(step.negatives);
        tp += step.positives;
        fp += step.negatives;
        // Only a step with a positive can raise recall or F1.
        if step.positives == 0 {
            continue;
        }
        pairs += u128::from(step.positives) * ahead;
        precision_sum += step.positives as f64 * (tp as f64 / (tp + fp) as f64);
        // F1 = 2 tp / (tp + fp + P), compared by cross multiplication; `>=` takes the lower score.
        let (_, best_tp, best_fp) = best;
        if u128::from(tp) * u128::from(best_tp + best_fp + positives)
            >= u128::from(best_tp) * u128::from(tp + fp + positives)
        {
            best = (step.key, tp, fp);
        }
    }
    let (best_key, best_tp, best_fp) = best;
    Ok(Summary {
        auroc: pairs as f64 / (2 * u128::from(positives) * u128::from(negatives)) as f64,
        average_precision: precision_sum / positives as f64,
        f1_max: F1Max {
            f1: 2.0 * best_tp as f64 / (best_tp + best_fp + positives) as f64,
            threshold: threshold(best_key),
            precision: best_tp as f64 / (best_tp + best_fp) as f64,
            recall: best_tp as f64 / positives as f64,
        },
        positives,
        negatives,
    })
}

/// The exact summary of two ascending lists of keys.
pub(crate) fn summarise_sorted(positive: &[u32], negative: &[u32]) -> Result<Summary> {
    summarise(Steps { positive, negative }, positive.len() as u64, negative.len() as u64, key::score)
}
