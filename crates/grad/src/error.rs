/// What can go wrong while computing or training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GradError {
    /// Shapes that do not belong together.
    #[error("{op}: wanted {wanted}, got {got}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What it needs.
        wanted: String,
        /// What it was given.
        got: String,
    },
    /// A setting outside its range.
    #[error("{op}: {what}")]
    Parameter {
        /// The operation or optimiser.
        op: &'static str,
        /// The setting, its value and its range.
        what: String,
    },
    /// The loss or a gradient is NaN or infinite: training has diverged.
    #[error("{what} is not a finite number; a lower learning rate may help")]
    NotFinite {
        /// The value.
        what: String,
    },
    /// A stored parameter is missing or of another shape.
    #[error("parameter '{name}': wanted {wanted}, got {got}")]
    State {
        /// The parameter.
        name: String,
        /// Its shape here.
        wanted: String,
        /// What was found.
        got: String,
    },
    /// A primitive refused its arguments.
    #[error(transparent)]
    Kernel(#[from] blemish_kernels::KernelError),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, GradError>;

/// A shape error, for the first lines of an operation.
pub(crate) fn shape_error(op: &'static str, wanted: impl Into<String>, got: impl std::fmt::Debug) -> GradError {
    GradError::Shape { op, wanted: wanted.into(), got: format!("{got:?}") }
}
