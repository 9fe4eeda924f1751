//! The one error type of this crate.

/// Why a metric cannot be computed or updated. A failed `update` or `merge` leaves the metric as it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// Nothing has been seen yet.
    #[error("no scores were given")]
    Empty,
    /// The metric compares defects with good, and one of them is missing.
    #[error("both classes are needed, got {positives} defect and {negatives} good scores")]
    OneClass {
        /// Scores whose label is true.
        positives: u64,
        /// Scores whose label is false.
        negatives: u64,
    },
    /// One label per score is wanted.
    #[error("one label per score is needed, got {scores} scores and {labels} labels")]
    Length {
        /// Number of scores given.
        scores: usize,
        /// Number of labels given.
        labels: usize,
    },
    /// Map and mask must be of one size.
    #[error("map and mask must be of one size, got a map of {map:?} and a mask of {mask:?} (height, width)")]
    Shape {
        /// Height and width of the map.
        map: [usize; 2],
        /// Height and width of the mask.
        mask: [usize; 2],
    },
    /// NaN has no place in an order.
    #[error("scores must not be NaN, the one at index {index} is")]
    Nan {
        /// Position in the slice, or in row-major order in the map.
        index: usize,
    },
    /// A threshold above an infinite score does not exist.
    #[error("scores must be finite, the one at index {index} is {value}")]
    Infinite {
        /// Position in the slice.
        index: usize,
        /// The score.
        value: f32,
    },
    /// A setting outside its range.
    #[error("{name} must be {wanted}, got {got}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Its range, in words.
        wanted: &'static str,
        /// What was given.
        got: f64,
    },
    /// Two metrics with different settings cannot be merged.
    #[error("only metrics with the same {0} can be merged")]
    Merge(&'static str),
}

/// Result of this crate.
pub type Result<T, E = MetricError> = std::result::Result<T, E>;
