//! Metrics of anomaly detection: how well scores and maps tell defects from good parts, and where to cut.
//!
//! | Item | What it is |
//! |---|---|
//! | [`Metric`] | `update(scores, labels)`, `merge`, `compute` |
//! | [`Auroc`], [`AveragePrecision`], [`F1`], [`Scores`] | exact with ties; [`Scores`] gives all three with one sort, and the curves |
//! | [`auroc()`], [`average_precision()`], [`f1_max()`], [`summary()`], [`confusion()`] | the same in one call, on slices |
//! | [`RocCurve`], [`PrCurve`], [`ProCurve`] | whole curves |
//! | [`Aupro`] | per-region overlap up to an FPR limit, with all other pixel metrics of the same pixels |
//! | [`Binned`] | pixel metrics in constant memory, each with a certain interval |
//! | [`label_components`] | 8-connected regions of a mask |
//! | [`thresholds`] | F1-max; a stated false-reject rate from good parts alone; the typical score |
//!
//! Everywhere: label `true` is a defect; a score is called a defect iff `score >= threshold`; scores are used as they
//! are, on any scale (no sigmoid, no normalisation); counts are integers and values `f64`; NaN, lengths that differ, and
//! data of one class are a [`MetricError`], never a number. Nothing here panics on any input.
#![doc = include_str!("../README.md")]
mod aupro;
mod binned;
mod components;
mod confusion;
mod curve;
mod error;
mod key;
mod scores;
mod step;

pub mod thresholds;

pub use aupro::{Aupro, PixelSummary, ProCurve};
pub use binned::{Binned, BinnedSummary, Bounded, Grid};
pub use components::{Component, label_components};
pub use confusion::{Confusion, confusion};
pub use curve::{PrCurve, RocCurve};
pub use error::{MetricError, Result};
pub use scores::{Auroc, AveragePrecision, F1, Metric, Scores, auroc, average_precision, f1_max, summary};
pub use step::{F1Max, Summary};
pub use thresholds::{NormalThreshold, normal_quantile, typical};
