//! Metrics in constant memory: counts per bin of the score instead of the scores.

use crate::error::{MetricError, Result};
use crate::key::{self, key};
use crate::scores::{Metric, check};
use crate::step::{F1Max, Step, summarise};

/// The most bins a grid may have, in bits: 2^24 bins take 256 MiB.
const MAX_BITS: u32 = 24;
const MAX_BINS: usize = 1 << MAX_BITS;
/// Up to this many positives in a bin the lower bound of the average precision is summed term by term.
const SUMMED: u64 = 64;

/// How scores fall into bins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Grid {
    /// By the top `bits` (10 to 24) of the float itself, after mapping it to an integer of the same order. No range is
    /// needed: the scores of a bin differ by less than `2^-(bits - 9)` of their size, whatever their scale. Takes
    /// `16 * 2^bits` bytes.
    Key {
        /// Bits kept: one for the sign, eight for the exponent, the rest for the fraction.
        bits: u32,
    },
    /// `bins` (1 to 2^24) equal steps between `low` and `high`. Scores outside fall into the first and last bin.
    Range {
        /// Where the first bin starts.
        low: f32,
        /// Where the last bin ends.
        high: f32,
        /// Number of bins.
        bins: usize,
    },
}

impl Default for Grid {
    /// 20 bits: a million bins, 16 MiB, scores told apart to one part in 2048.
    fn default() -> Self {
        Grid::Key { bits: 20 }
    }
}

impl Grid {
    /// Number of bins, after checking the settings.
    fn bins(&self) -> Result<usize> {
        let refuse = |name, wanted, got| Err(MetricError::Setting { name, wanted, got });
        match *self {
            Grid::Key { bits } if !(10..=MAX_BITS).contains(&bits) => refuse("bits", "10 to 24", f64::from(bits)),
            Grid::Key { bits } => Ok(1 << bits),
            Grid::Range { bins, .. } if !(1..=MAX_BINS).contains(&bins) => refuse("bins", "1 to 2^24", bins as f64),
            Grid::Range { low, .. } if !low.is_finite() => refuse("low", "finite", f64::from(low)),
            Grid::Range { low, high, .. } if !(high.is_finite() && high > low) => {
                refuse("high", "finite and above low", f64::from(high))
            }
            Grid::Range { bins, .. } => Ok(bins),
        }
    }

    /// Bin of a score, monotone in it.
    #[inline]
    fn index(&self, score: f32) -> usize {
        match *self {
            Grid::Key { bits } => (key(score) >> (32 - bits)) as usize,
            Grid::Range { low, high, bins } => {
                let (low, high) = (f64::from(low), f64::from(high));
                // The cast sends what is below to 0 and infinity to the largest integer.
                (((f64::from(score) - low) / (high - low) * bins as f64) as usize).min(bins - 1)
            }
        }
    }
}

/// A value from bins, and the interval that certainly holds the exact one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounded {
    /// The metric with all scores of a bin taken as equal.
    pub value: f64,
    /// The exact metric is at least this.
    pub low: f64,
    /// The exact metric is at most this.
    pub high: f64,
}

/// What [`Binned`] gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BinnedSummary {
    /// AUROC and its bounds.
    pub auroc: Bounded,
    /// Average precision and its bounds.
    pub average_precision: Bounded,
    /// The best F1 at the edge of a bin. At that threshold F1, precision and recall are exact; only a threshold between
    /// two edges might be better, and none is by more than up to `f1_high`.
    pub f1_max: F1Max,
    /// The exact F1-max is at most this, and at least `f1_max.f1`.
    pub f1_high: f64,
    /// Number of scores labelled true.
    pub positives: u64,
    /// Number of scores labelled false.
    pub negatives: u64,
}

/// AUROC, average precision and F1-max in constant memory, for pixels of large sets.
///
/// Only the order *within* a bin is lost, so the error has a bound that follows from the counts, with `p_b` defects and
/// `n_b` good scores in bin `b` and `P`, `N` in all:
///
/// * AUROC: `|value - exact| <= sum_b p_b n_b / (2 P N)`, which is at most half of the largest `n_b / N`;
/// * average precision: between all good scores of each bin coming first, and none of them coming before a defect;
/// * F1-max: at least the best at an edge, at most the best of (all defects of a bin found, none of its good scores).
///
/// The bounds are part of the result and hold for any scores; a finer [`Grid`] narrows them.
#[derive(Debug, Clone, PartialEq)]
pub struct Binned {
    grid: Grid,
    /// Good and defect counts per bin.
    counts: Vec<[u64; 2]>,
    /// Key of the lowest score seen.
    lowest: u32,
}

impl Binned {
    /// Empty bins.
    ///
    /// # Errors
    /// [`MetricError::Setting`] for a grid outside its limits.
    pub fn new(grid: Grid) -> Result<Self> {
        Ok(Self { grid, counts: vec![[0; 2]; grid.bins()?], lowest: u32::MAX })
    }

    /// The grid in use.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Filled bins from the highest down.
    fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        let filled = |(bin, [negatives, positives]): (usize, &[u64; 2])| {
            (positives + negatives > 0).then_some(Step {
                key: bin as u32,
                positives: *positives,
                negatives: *negatives,
            })
        };
        self.counts.iter().enumerate().rev().filter_map(filled)
    }

    /// The lowest score that falls into a bin or above it (but no lower than the lowest seen).
    fn edge(&self, bin: u32) -> f32 {
        let (mut low, mut high) = (self.lowest, key(f32::INFINITY));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.grid.index(key::score(middle)) >= bin as usize { high = middle } else { low = middle + 1 }
        }
        key::score(low)
    }
}

impl Metric for Binned {
    type Output = BinnedSummary;

    fn update(&mut self, scores: &[f32], labels: &[bool]) -> Result<()> {
        check(scores, labels)?;
        for (score, label) in scores.iter().zip(labels) {
            self.counts[self.grid.index(*score)][usize::from(*label)] += 1;
            self.lowest = self.lowest.min(key(*score));
        }
        Ok(())
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        if self.grid != other.grid {
            return Err(MetricError::Merge("grid"));
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            mine[0] += theirs[0];
            mine[1] += theirs[1];
        }
        self.lowest = self.lowest.min(other.lowest);
        Ok(())
    }

    fn compute(&self) -> Result<BinnedSummary> {
        let [negatives, positives] = self.counts.iter().fold([0, 0], |sum, c| [sum[0] + c[0], sum[1] + c[1]]);
        let tied = summarise(self.steps(), positives, negatives, |bin| self.edge(bin))?;

        let (mut tp, mut fp) = (0, 0);
        let mut tied_pairs = 0_u128;
        let (mut ap_low, mut ap_high) = (0.0, 0.0);
        let mut f1_high = 0.0_f64;
        for Step { positives: p, negatives: n, .. } in self.steps() {
            tied_pairs += u128::from(p) * u128::from(n);
            if p > 0 {
                ap_low += precision_after(tp, tp + fp + n, p);
                ap_high += p as f64 * ((tp + p) as f64 / (tp + p + fp) as f64);
                f1_high = f1_high.max(2.0 * (tp + p) as f64 / (tp + p + fp + positives) as f64);
            }
            tp += p;
            fp += n;
        }
        let slack = tied_pairs as f64 / (2 * u128::from(positives) * u128::from(negatives)) as f64;
        Ok(BinnedSummary {
            auroc: Bounded { value: tied.auroc, low: tied.auroc - slack, high: tied.auroc + slack },
            average_precision: Bounded {
                value: tied.average_precision,
                low: ap_low / positives as f64,
                high: ap_high / positives as f64,
            },
            f1_max: tied.f1_max,
            f1_high,
            positives,
            negatives,
        })
    }
}

/// At most `sum_(j = 1..=p) (found + j) / (called + j)`: the precisions of `p` defects coming one by one after `called`
/// scores, `found` of them defects. Long sums are replaced by their integral from 0, which is less, as the terms grow.
fn precision_after(found: u64, called: u64, p: u64) -> f64 {
    if called == found {
        return p as f64; // no good score so far: every precision is one
    }
    if p <= SUMMED {
        return (1..=p).map(|j| (found + j) as f64 / (called + j) as f64).sum();
    }
    p as f64 - (called - found) as f64 * (p as f64 / called as f64).ln_1p()
}
