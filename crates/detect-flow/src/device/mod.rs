//! Flows on the device asked for; where a GPU cannot, on the CPU, and why.
//!
//! | module | what it has |
//! |---|---|
//! | `linear` | CFlow-AD's flows on a GPU; in a program without GPU code a type without values |
//! | `maps` | FastFlow's, likewise |

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

use crate::FlowDetectorError;

pub(crate) use blemish_embed::device::{Gpu, Kept, Refused, Tried, gpu};

/// The reason, if an error of training is a GPU's: it, its memory or its driver failed.
pub(crate) fn failure(error: &FlowDetectorError) -> Option<String> {
    match error {
        #[cfg(feature = "cuda")]
        FlowDetectorError::Flow(blemish_flow::FlowError::Gpu(blemish_kernels::cuda::CudaError::Device(error))) => {
            Some(error.to_string())
        }
        _ => None,
    }
}

/// A flow's error as what a GPU refused.
#[cfg(feature = "cuda")]
fn refused(error: blemish_flow::FlowError) -> Refused {
    use blemish_flow::FlowError;
    match error {
        FlowError::Gpu(error) => error.into(),
        FlowError::Params { .. } => Refused::Device(error.to_string()),
        _ => Refused::Arguments,
    }
}
