//! Thresholds. The decision is everywhere `score >= threshold` means defect.

use crate::error::{MetricError, Result};

pub use crate::scores::f1_max;

/// A threshold from good parts alone, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormalThreshold {
    /// Scores from here on are defects.
    pub threshold: f32,
    /// The share of new good parts expected above the threshold, at most. It is greater than the rate asked for where
    /// there were too few scores to promise that.
    pub false_reject_rate: f64,
}

/// The smallest threshold that is expected to reject at most `false_reject_rate` of new good parts.
///
/// `scores_of_good` `[n]` must come from good parts **held out** from training. If they and a new good part are
/// exchangeable, the new score is equally likely to take any of the `n + 1` ranks, so it exceeds the `k`-th smallest
/// with probability at most `(n + 1 - k) / (n + 1)`, whatever the distribution (split conformal prediction: Vovk,
/// Gammerman, Shafer 2005; Papadopoulos et al. 2002). The threshold is the next `f32` above the smallest score for which
/// that is within the rate.
///
/// With `n + 1 < 1 / false_reject_rate` no threshold can promise the rate: it is then just above the maximum, and the
/// rate stated is `1 / (n + 1)`.
///
/// # Errors
/// [`MetricError::Empty`], [`MetricError::Nan`], [`MetricError::Infinite`], or [`MetricError::Setting`] for a rate
/// outside `0..1`.
pub fn normal_quantile(scores_of_good: &[f32], false_reject_rate: f64) -> Result<NormalThreshold> {
    if !(0.0..1.0).contains(&false_reject_rate) {
        let wanted = "at least 0 and below 1";
        return Err(MetricError::Setting { name: "false_reject_rate", wanted, got: false_reject_rate });
    }
    let scores = sorted_finite(scores_of_good)?;
    let n = scores.len();
    let rate_of = |rejected: usize| rejected as f64 / (n + 1) as f64;
    // The most ranks that may lie above: floor(rate (n + 1)), immune to the rounding of the product.
    let mut rejected = (false_reject_rate * (n + 1) as f64) as usize;
    if rate_of(rejected + 1) <= false_reject_rate {
        rejected += 1;
    } else if rate_of(rejected) > false_reject_rate {
        rejected = rejected.saturating_sub(1);
    }
    let rejected = rejected.clamp(1, n);
    let score = scores[n - rejected];
    // Equal scores above fall below the threshold together.
    let above = n - scores.partition_point(|s| *s <= score);
    Ok(NormalThreshold { threshold: score.next_up(), false_reject_rate: rate_of(above + 1) })
}

/// The typical score: the median, the mean of the middle two for an even number.
///
/// # Errors
/// [`MetricError::Empty`], [`MetricError::Nan`] or [`MetricError::Infinite`].
pub fn typical(scores: &[f32]) -> Result<f32> {
    let scores = sorted_finite(scores)?;
    let (low, high) = (scores[(scores.len() - 1) / 2], scores[scores.len() / 2]);
    Ok(low.midpoint(high))
}

/// A sorted copy, never empty.
fn sorted_finite(scores: &[f32]) -> Result<Vec<f32>> {
    if scores.is_empty() {
        return Err(MetricError::Empty);
    }
    crate::key::refuse_nan(scores)?;
    if let Some((index, value)) = scores.iter().copied().enumerate().find(|(_, s)| s.is_infinite()) {
        return Err(MetricError::Infinite { index, value });
    }
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    Ok(sorted)
}
