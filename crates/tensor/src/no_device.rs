/// Why there is no GPU to work on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoDevice {
    /// The word names no device.
    #[error("the choices are auto, cpu, cuda and cuda:N")]
    Word,
    /// The program has no GPU code.
    #[error("this program was built without the feature `cuda`")]
    NotBuilt,
    /// No driver is installed.
    #[error("the NVIDIA driver's library (libcuda.so, nvcuda.dll) was not found")]
    Library,
    /// The driver does not know the PTX in use.
    #[error("the NVIDIA driver speaks CUDA {}.{}, {}.{} or newer is needed", .found.0, .found.1, .wanted.0, .wanted.1)]
    TooOld {
        /// CUDA version of the driver.
        found: (i32, i32),
        /// The oldest that does.
        wanted: (i32, i32),
    },
    /// The driver did not start.
    #[error("the NVIDIA driver did not start: {code}")]
    Init {
        /// What it said.
        code: String,
    },
    /// The driver knows of no device.
    #[error("the NVIDIA driver finds no GPU")]
    None,
    /// There are fewer devices.
    #[error("there is no GPU {wanted}; {count} found, counted from 0")]
    Ordinal {
        /// The number asked for.
        wanted: usize,
        /// Devices there are.
        count: usize,
    },
    /// The chip is older than the kernels.
    #[error("{name} has compute capability {}.{}; {}.{} or newer is needed", .capability.0, .capability.1, .wanted.0, .wanted.1)]
    TooOldChip {
        /// The device's name.
        name: String,
        /// What it has.
        capability: (i32, i32),
        /// The least that does.
        wanted: (i32, i32),
    },
    /// The device is there and refuses work.
    #[error("GPU {ordinal} cannot be used: {code}")]
    Device {
        /// Its number.
        ordinal: usize,
        /// What the driver said.
        code: String,
    },
}

impl NoDevice {
    /// What the user can do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            NoDevice::Word => "cuda:1 is the second GPU",
            NoDevice::NotBuilt => {
                "build it with `cargo build --release --features cuda` (no CUDA toolkit is needed), or use --device cpu"
            }
            NoDevice::Library => {
                "install the NVIDIA driver, in a container give it access to the GPU, or use --device cpu"
            }
            NoDevice::TooOld { .. } => "update the NVIDIA driver, or use --device cpu",
            NoDevice::Init { .. } => {
                "see whether `nvidia-smi` works (after an update of the driver: restart), or use --device cpu"
            }
            NoDevice::None => {
                "see whether `nvidia-smi` lists a GPU and CUDA_VISIBLE_DEVICES does not hide it, or use --device cpu"
            }
            NoDevice::Ordinal { .. } => "`blemish doctor` lists the GPUs found",
            NoDevice::TooOldChip { .. } => "use a newer GPU, or --device cpu",
            NoDevice::Device { .. } => {
                "see whether another program holds it and `nvidia-smi` works, or use --device cpu"
            }
        }
    }
}
