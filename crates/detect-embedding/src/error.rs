use blemish_core::CoreError;
use blemish_embed::EmbedError;

/// What can go wrong in an embedding detector.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddingError {
    /// A picture, a session, a file.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The network or its features.
    #[error(transparent)]
    Embed(EmbedError),
    /// A primitive refused its arguments.
    #[error(transparent)]
    Kernel(#[from] blemish_kernels::KernelError),
    /// A factorisation failed.
    #[error(transparent)]
    Linalg(#[from] blemish_linalg::LinalgError),
    /// A tensor of the wrong type or shape.
    #[error(transparent)]
    Tensor(#[from] blemish_tensor::TensorError),
    /// A setting outside its range.
    #[error("{name}: {why}")]
    Params {
        /// The field, as in the configuration.
        name: &'static str,
        /// Its value and its range.
        why: String,
    },
}

impl From<EmbedError> for EmbeddingError {
    fn from(error: EmbedError) -> Self {
        match error {
            EmbedError::Core(error) => EmbeddingError::Core(error),
            other => EmbeddingError::Embed(other),
        }
    }
}

impl EmbeddingError {
    /// As the error of the traits in `blemish-core`; its own errors pass through unwrapped.
    pub fn into_core(self, kind: &'static str) -> CoreError {
        match self {
            EmbeddingError::Core(error) => error,
            EmbeddingError::Embed(error) => error.into_core(kind),
            EmbeddingError::Kernel(error) => CoreError::Kernel(error),
            EmbeddingError::Tensor(error) => CoreError::Tensor(error),
            EmbeddingError::Params { name, why } => CoreError::Params { name, why },
            other => CoreError::Detector { kind, source: Box::new(other) },
        }
    }
}
