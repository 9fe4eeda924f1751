use std::path::PathBuf;

/// What can go wrong with networks and their weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackboneError {
    /// No network of that name.
    #[error("unknown backbone '{got}'; the choices are {}", .choices.join(", "))]
    UnknownNet {
        /// The name as given.
        got: String,
        /// Every name known.
        choices: Vec<&'static str>,
    },
    /// No layer of that name, the same one twice, or none at all.
    #[error("backbone {net}: {what}; the layers are {}", .choices.join(", "))]
    Layers {
        /// The network.
        net: &'static str,
        /// What is wrong with the list.
        what: String,
        /// Every layer of the network.
        choices: Vec<&'static str>,
    },
    /// Weights that do not fit the network.
    #[error("the weights do not fit {net}: {}", list(.problems))]
    Weights {
        /// The network.
        net: &'static str,
        /// One line for each missing, unknown, misshapen or unusable tensor.
        problems: Vec<String>,
    },
    /// A weight file that cannot be read.
    #[error("{}: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An input the network cannot take.
    #[error("backbone {net}: wanted {wanted}, got an input of {got:?}")]
    Input {
        /// The network.
        net: &'static str,
        /// What it takes.
        wanted: String,
        /// Shape of the input, `[n, h, w, c]`.
        got: [usize; 4],
    },
    /// Work for a GPU was asked of a network that is not on one.
    #[cfg(feature = "cuda")]
    #[error("backbone {net} is on the CPU; move it to a GPU first")]
    NoGpu {
        /// The network.
        net: &'static str,
    },
    /// A GPU refused.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Gpu(#[from] blemish_kernels::cuda::CudaError),
    /// Ranges that are not those of this network.
    #[error("the calibration does not fit {net}: wanted {wanted} finite ranges, got {got}")]
    Calibration {
        /// The network.
        net: &'static str,
        /// Maps it has.
        wanted: usize,
        /// Ranges there are.
        got: usize,
    },
    /// A kernel refused its operands.
    #[error(transparent)]
    Kernel(#[from] blemish_kernels::KernelError),
    /// A tensor could not be made or read.
    #[error(transparent)]
    Tensor(#[from] blemish_tensor::TensorError),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, BackboneError>;

/// Lines shown of a list of problems; the rest is counted.
const SHOWN: usize = 20;

fn list(problems: &[String]) -> String {
    let mut text: String = problems.iter().take(SHOWN).map(|line| format!("\n  {line}")).collect();
    if problems.len() > SHOWN {
        text += &format!("\n  and {} more", problems.len() - SHOWN);
    }
    text
}
