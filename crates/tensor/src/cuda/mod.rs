//! NVIDIA GPUs through the CUDA driver, which is looked for at run time.
//!
//! | item | what it is |
//! |---|---|
//! | [`devices`], [`DeviceInfo`], [`NoDevice`] | what is there, or why nothing is; never panics |
//! | [`Cuda`] | one GPU: context, stream, loaded modules, memory budget |
//! | [`Buffer`], [`Plain`] | numbers in its memory |
//! | [`Feed`] | values streamed through page-locked memory while kernels work |
//! | [`Module`] | kernels as PTX text |
//! | [`Launch`] | a kernel with its arguments, checked against the PTX before it starts |
//! | [`Recording`] | launches that start again together, as one graph |
//! | [`Event`], [`Span`] | times on the GPU, between two points or of each launch |
//!
//! All work of a [`Cuda`] but the copies of a [`Feed`] goes through one stream, so it happens in the order in which it was
//! asked for; reading a buffer waits for all of it.
//!
//! ```
//! match blemish_tensor::cuda::Cuda::open(0) {
//!     Ok(cuda) => println!("{}", cuda.info()),
//!     Err(why) => println!("no GPU: {why}"),
//! }
//! ```

mod budget;
mod buffer;
mod context;
mod discover;
mod event;
mod feed;
mod launch;
mod recording;
mod staging;

pub use crate::NoDevice;
pub use buffer::{Buffer, Plain};
pub use context::Cuda;
pub use discover::{DeviceInfo, devices};
pub use event::{Event, Span};
pub use feed::Feed;
pub use launch::{Launch, Module};
pub use recording::Recording;

use crate::TensorError;
use cudarc::driver::DriverError;

/// The driver's error with what was asked of it.
fn refused(what: impl Into<String>) -> impl FnOnce(DriverError) -> TensorError {
    move |error| TensorError::Cuda { what: what.into(), code: name(error) }
}

/// The driver's name for an error.
fn name(error: DriverError) -> String {
    match error.error_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => format!("CUDA error {}", error.0 as u32),
    }
}
