//! Frozen 2-D convolution on NHWC maps, with bias, residual and activation fused.
//!
//! | algorithm | for |
//! |---|---|
//! | Winograd F(4x4, 3x3) | dense 3x3, stride 1, where it saves time |
//! | pieces | any other dense convolution: a matrix product whose rows are gathered where they lie |
//! | depthwise | one channel a group |
//! | direct | other groups |
//!
//! Maps are `f32`, or bf16 for [`Conv2d::bf16`]; [`Conv2d::int8`] rounds its input to bytes on the way in.
//!
//! ```
//! use blemish_kernels::{Par, conv::{Activation, Conv2d, ConvSpec}};
//! let spec = ConvSpec { in_channels: 1, out_channels: 1, kernel: [3, 3], stride: [1, 1], padding: [1; 4], groups: 1 };
//! let conv = Conv2d::new(spec, &[1.0; 9], &[0.0], Activation::None)?;
//! let mut out = [0.0; 4];
//! let mut scratch = vec![0.0; conv.workspace(1, 2, 2)];
//! conv.forward(&[1.0, 2.0, 3.0, 4.0], 1, 2, 2, None, &mut out, &mut scratch, Par::Serial)?;
//! assert_eq!(out, [10.0; 4]);
//! # Ok::<(), blemish_kernels::KernelError>(())
//! ```

mod conv2d;
mod cost;
mod cpu_depthwise;
mod cpu_winograd;
mod cpu_winograd_tiles;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cuda")]
mod cuda_layer;
mod dense;
mod direct;
mod quantise;
mod spec;

pub use conv2d::{Algorithm, Conv2d, Maps};
pub use quantise::Levels;
pub use spec::{Activation, ConvSpec};
