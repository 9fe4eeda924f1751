use blemish_backbone::BackboneError;
use blemish_core::CoreError;

/// What can go wrong between pictures and features.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// A picture, a session, a file.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The network or its weights.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
}

impl EmbedError {
    /// As the error of the traits in `blemish-core`; its own errors pass through unwrapped.
    pub fn into_core(self, kind: &'static str) -> CoreError {
        match self {
            EmbedError::Core(error) => error,
            other => CoreError::Detector { kind, source: Box::new(other) },
        }
    }
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, EmbedError>;
