//! Numeric primitives of blemish, on slices and `ndarray` views; nothing here knows of images or detectors.
//!
//! | module | what it computes |
//! |---|---|
//! | [`gemm`] | single-precision matrix products on packed operands |
//! | [`conv`] | frozen 2-D convolution, NHWC, with bias, activation and residual fused |
//! | [`pool`] | max, average and global pooling, channel gates |
//! | [`product`] | matrix products of any layout, for training |
//! | [`coupling`] | the pointwise part of invertible blocks, and its gradients |
//! | [`adam`] | the step of Adam |
//! | [`resize`] | antialiased, bilinear and nearest resizing |
//! | [`blur`] | Gaussian blur with reflected borders |
//! | [`mahalanobis`] | batched Mahalanobis distance: packed triangle, nested and low-rank forms |
//! | [`nearest`] | exact k nearest rows of a bank |
//! | [`kcenter`] | exact greedy k-center and sparse random projection |
//! | [`ceiling`] | the rates of this machine that benchmarks are measured against |
//!
//! Results never depend on the number of threads, nor on what else is in the batch.

mod error;

pub mod adam;
pub mod blur;
pub mod ceiling;
pub mod conv;
pub mod coupling;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod gemm;
pub mod kcenter;
pub mod mahalanobis;
pub mod nearest;
pub mod pool;
pub mod product;
pub mod resize;

pub use error::{KernelError, Result};

/// Where a kernel runs. The result is the same bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Par {
    /// On the calling thread alone.
    Serial,
    /// On the current rayon pool.
    #[default]
    Rayon,
}
