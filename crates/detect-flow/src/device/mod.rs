//! Flows on the device asked for; where a GPU cannot, on the CPU, and why.
//!
//! | module | what it has |
//! |---|---|
//! | [`kept`] | a copy of flows on a GPU, made when it is first needed |
//! | `linear` | CFlow-AD's flows on a GPU; in a program without GPU code a type without values |
//! | `maps` | FastFlow's, likewise |

mod kept;
#[cfg(feature = "cuda")]
pub(crate) mod linear;
#[cfg(not(feature = "cuda"))]
#[path = "linear_none.rs"]
pub(crate) mod linear;
#[cfg(feature = "cuda")]
pub(crate) mod maps;
#[cfg(not(feature = "cuda"))]
#[path = "maps_none.rs"]
pub(crate) mod maps;

pub(crate) use kept::Kept;

#[cfg(feature = "cuda")]
pub(crate) type Gpu = blemish_tensor::cuda::Cuda;
/// In a program without GPU code there is none.
#[cfg(not(feature = "cuda"))]
pub(crate) enum Gpu {}

#[cfg(feature = "cuda")]
pub(crate) fn gpu(device: &blemish_tensor::Device) -> Option<&Gpu> {
    device.as_cuda()
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn gpu(_: &blemish_tensor::Device) -> Option<&Gpu> {
    None
}

/// Why there is no result from a GPU.
#[derive(Debug)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(crate) enum Refused {
    /// The GPU: for want of memory, or what it has no form for.
    Device(String),
    /// The arguments; the form for the CPU says what is wrong with them.
    Arguments,
}

pub(crate) type Tried<T> = Result<T, Refused>;

#[cfg(feature = "cuda")]
impl From<blemish_flow::FlowError> for Refused {
    fn from(error: blemish_flow::FlowError) -> Self {
        use blemish_flow::FlowError;
        use blemish_kernels::cuda::CudaError;
        match error {
            FlowError::Gpu(CudaError::Device(error)) => Refused::Device(error.to_string()),
            FlowError::Params { .. } => Refused::Device(error.to_string()),
            _ => Refused::Arguments,
        }
    }
}

#[cfg(feature = "cuda")]
impl From<blemish_tensor::TensorError> for Refused {
    fn from(error: blemish_tensor::TensorError) -> Self {
        Refused::Device(error.to_string())
    }
}
