use blemish_core::CoreError;
use blemish_embed::EmbedError;
use blemish_flow::FlowError;
use blemish_grad::GradError;

/// What can go wrong in a detector made of flows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlowDetectorError {
    /// A picture, a session, a file.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The network or its features.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// A flow refused its arguments.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// A primitive refused its arguments.
    #[error(transparent)]
    Kernel(#[from] blemish_kernels::KernelError),
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
    /// The loss is no longer a number.
    #[error("the loss of {what} became NaN or infinite in epoch {epoch}; a lower learning rate may help")]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The layer whose flow it is, or the pictures held out.
        what: String,
    },
    /// A checkpoint of something else.
    #[error("{path} cannot be resumed: {why}")]
    Checkpoint {
        /// The file.
        path: std::path::PathBuf,
        /// What is different.
        why: String,
    },
}

impl FlowDetectorError {
    /// As the error of the traits in `blemish-core`; its own errors pass through unwrapped.
    pub fn into_core(self, kind: &'static str) -> CoreError {
        match self {
            FlowDetectorError::Core(error) => error,
            FlowDetectorError::Embed(error) => error.into_core(kind),
            FlowDetectorError::Kernel(error) => CoreError::Kernel(error),
            FlowDetectorError::Tensor(error) => CoreError::Tensor(error),
            FlowDetectorError::Params { name, why } => CoreError::Params { name, why },
            other => CoreError::Detector { kind, source: Box::new(other) },
        }
    }

    /// An error of a training step: a loss that is no number becomes [`Diverged`](Self::Diverged).
    pub(crate) fn in_epoch(error: FlowError, epoch: usize, layer: &str) -> FlowDetectorError {
        match error {
            FlowError::Grad(GradError::NotFinite { .. }) => {
                FlowDetectorError::Diverged { epoch, what: format!("layer {layer}") }
            }
            other => other.into(),
        }
    }
}
