/// What a kernel refuses to compute.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Shapes that do not belong together.
    #[error("{op}: wanted {wanted}, got {got}")]
    Shape {
        /// The function.
        op: &'static str,
        /// What it needs.
        wanted: String,
        /// What it was given.
        got: String,
    },
    /// A parameter outside its range.
    #[error("{op}: {what}")]
    Parameter {
        /// The function.
        op: &'static str,
        /// The parameter, its value and its range.
        what: String,
    },
    /// NaN or infinity where the result would be meaningless.
    #[error("{op}: {what} holds a value that is not finite at index {index}")]
    NotFinite {
        /// The function.
        op: &'static str,
        /// The argument.
        what: &'static str,
        /// Flat index of the first such value.
        index: usize,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, KernelError>;

/// A shape error, for the first lines of a public function.
pub(crate) fn shape_error(op: &'static str, wanted: impl Into<String>, got: impl std::fmt::Debug) -> KernelError {
    KernelError::Shape { op, wanted: wanted.into(), got: format!("{got:?}") }
}
