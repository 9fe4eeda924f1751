use crate::{DType, NoDevice};

/// What can go wrong with devices and tensors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A device was asked for that this program or machine does not have.
    #[error("device '{wanted}' is not available: {why}\n{}", .why.advice())]
    NoDevice {
        /// The device as the user wrote it.
        wanted: String,
        /// What was found instead.
        why: NoDevice,
    },
    /// The number of elements does not fit the shape.
    #[error("a tensor of shape {shape:?} holds {wanted} elements, but {got} were given")]
    Length {
        /// The shape asked for.
        shape: Vec<usize>,
        /// Elements of that shape.
        wanted: usize,
        /// Elements given.
        got: usize,
    },
    /// The tensor holds another element type.
    #[error("wanted a tensor of {wanted}, got one of {got}")]
    Type {
        /// Type asked for.
        wanted: DType,
        /// Type held.
        got: DType,
    },
    /// The tensor has another number of axes.
    #[error("wanted {wanted} axes, got a tensor of shape {got:?}")]
    Rank {
        /// Axes asked for.
        wanted: usize,
        /// The shape held.
        got: Vec<usize>,
    },
    /// A byte range lies outside the file or is not aligned to the element type.
    #[error("bytes {start}..{end} of a file of {length} bytes cannot be read as {dtype}")]
    Range {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
        /// Bytes in the file.
        length: usize,
        /// Element type asked for.
        dtype: DType,
    },
    /// The CUDA driver refused something.
    #[error("{what}: {code}")]
    Cuda {
        /// What was asked of it.
        what: String,
        /// The driver's answer.
        code: String,
    },
    /// The memory budget of a device does not allow an allocation.
    #[error("{wanted} more bytes on the GPU, where {used} of {budget} are in use")]
    Budget {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes in use.
        used: usize,
        /// Bytes allowed in all.
        budget: usize,
    },
    /// A kernel launch that cannot be right.
    #[error("launch of {kernel}: {what}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// What does not fit.
        what: String,
    },
    /// A file could not be read or mapped.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
}
