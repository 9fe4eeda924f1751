//! Devices and tensors shared by the blemish crates.
//!
//! | item | what it is |
//! |---|---|
//! | [`Device`] | where the work is done, chosen at run time |
//! | [`NoDevice`] | why there is no GPU, and what to do about it |
//! | [`Tensor`] | numbers with a shape, owned or memory-mapped, cheap to clone |
//! | [`DType`], [`Element`] | the element types a tensor may hold |
//! | `cuda` (feature `cuda`) | GPUs: discovery, memory, launches |
//!
//! ```
//! use blemish_tensor::Tensor;
//! let t = Tensor::from_vec(vec![2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! assert_eq!(t.view::<f32, ndarray::Ix2>()?[[1, 0]], 4.0);
//! # Ok::<(), blemish_tensor::TensorError>(())
//! ```

#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
mod dtype;
mod error;
mod mapped;
mod no_device;
mod tensor;

pub use device::Device;
pub use dtype::{DType, Element};
pub use error::TensorError;
pub use mapped::MappedFile;
pub use no_device::NoDevice;
pub use tensor::Tensor;

/// Results of this crate.
pub type Result<T, E = TensorError> = std::result::Result<T, E>;
