use blemish_grad::GradError;

/// What can go wrong in a flow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// A tensor operation refused its arguments.
    #[error(transparent)]
    Grad(#[from] GradError),
    /// A GPU refused.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Gpu(#[from] blemish_kernels::cuda::CudaError),
    /// Shapes that do not belong together.
    #[error("{what}: wanted {wanted}, got {got}")]
    Shape {
        /// The value.
        what: &'static str,
        /// Its documented shape.
        wanted: String,
        /// The shape found.
        got: String,
    },
    /// A setting outside its range.
    #[error("{name}: {why}")]
    Params {
        /// The field.
        name: &'static str,
        /// Its value and its range.
        why: String,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, FlowError>;
