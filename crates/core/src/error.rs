use std::path::PathBuf;

/// What can go wrong between a picture and a verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// A picture could not be read; says which and why.
    #[error("{path}: {why}")]
    Image {
        /// The picture, as the source names it.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not enough pictures to learn from.
    #[error("{wanted} are needed to learn, {got} given")]
    TooFewImages {
        /// Least number, in words.
        wanted: String,
        /// Pictures at hand.
        got: usize,
    },
    /// An array of another shape than the contract says.
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
        /// The field, as in the configuration.
        name: &'static str,
        /// Its value and its range.
        why: String,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The file is not a blemish model, or a damaged one.
    #[error("{path} is not a usable model file: {why}")]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file was written by a later version.
    #[error("{path} has model format {got}, this program reads up to {newest}; use a newer blemish")]
    FutureModel {
        /// The file.
        path: PathBuf,
        /// Its format version.
        got: u64,
        /// The newest version read here.
        newest: u64,
    },
    /// A value that must be a number is NaN or infinite.
    #[error("{what} holds values that are not finite numbers")]
    NotFinite {
        /// The value.
        what: String,
    },
    /// A detector failed in its own way.
    #[error("{kind}: {source}")]
    Detector {
        /// The detector.
        kind: &'static str,
        /// Its error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A tensor of the wrong type or shape.
    #[error(transparent)]
    Tensor(#[from] blemish_tensor::TensorError),
    /// A primitive refused its arguments.
    #[error(transparent)]
    Kernel(#[from] blemish_kernels::KernelError),
}
