//! What all GPU forms share; the forms themselves are `cuda` modules beside their CPU forms.
//!
//! | module | kernels |
//! |---|---|
//! | [`adam::cuda`](crate::adam::cuda) | `adam.cu` |
//! | [`blur::cuda`](crate::blur::cuda) | `blur.cu` |
//! | [`conv::cuda`](crate::conv::cuda) | `conv.cu`, `depthwise.cu`; in training also `window.cu` |
//! | [`coupling::cuda`](crate::coupling::cuda) | `coupling.cu`, `flow.cu`: flows |
//! | [`element`] | maps of a network in and out |
//! | [`ceiling::cuda`](crate::ceiling::cuda) | `ceiling.cu` |
//! | [`embed`] | `embed.cu`: patch embeddings |
//! | [`kcenter::cuda`](crate::kcenter::cuda) | `kcenter.cu`, `projection.cu` |
//! | [`mahalanobis::cuda`](crate::mahalanobis::cuda) | `mahalanobis.cu`, `moments.cu` |
//! | [`nearest::cuda`](crate::nearest::cuda) | `nearest.cu`, `pairwise.cu` |
//! | [`norm`] | `norm.cu`: layer norm over whole maps |
//! | [`pool::cuda`](crate::pool::cuda) | `pool.cu` |
//! | [`product::cuda`](crate::product::cuda) | `product.cu`: linear layers in training |
//! | [`resize::cuda`](crate::resize::cuda) | `resize.cu` |
//! | [`rows`] | none: matrices with a pitch, which those of flows take |
//!
//! The PTX is part of the program; the driver compiles it for the chip at hand when a kernel is first used. Results are the
//! bits of the CPU, but for [`mahalanobis::cuda`](crate::mahalanobis::cuda), flows and the convolutions, whose sums run in another
//! order, and what is stored in fp16.

pub mod element;
pub mod embed;
pub mod norm;
pub mod rows;

use blemish_tensor::TensorError;
use blemish_tensor::cuda::Module;

use crate::KernelError;
use crate::error::shape_error;

/// What goes wrong on a GPU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// Arguments that the CPU form refuses as well.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The GPU, its memory budget or its driver.
    #[error(transparent)]
    Device(#[from] TensorError),
}

/// Results of the GPU forms.
pub type CudaResult<T> = Result<T, CudaError>;

/// The modules, one for each PTX file; written by `cargo xtask ptx`.
mod modules {
    use super::Module;

    include!("../../ptx/modules.rs");
}

pub(crate) use modules::*;

/// Threads of a block of the elementwise kernels.
pub(crate) const THREADS: u32 = 256;

/// The product of the sizes, if a buffer of so many numbers was given and kernels can count them.
pub(crate) fn check(op: &'static str, sizes: &[usize], len: usize) -> Result<usize, KernelError> {
    let product = sizes.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
    match product.filter(|&n| n == len && n <= i32::MAX as usize) {
        Some(n) => Ok(n),
        None => Err(shape_error(op, format!("a buffer of {sizes:?}, below 2^31 numbers"), len)),
    }
}

/// A grid of one block for each `each` of `n`.
pub(crate) fn grid(n: usize, each: usize) -> u32 {
    u32::try_from(n.div_ceil(each)).unwrap_or(u32::MAX)
}

/// Rows of a grid for `n` of something, which kernels walk over.
pub(crate) fn strips(n: usize) -> u32 {
    n.min(65_535) as u32
}

/// Numbers for the tables of kernels.
pub(crate) fn ints(op: &'static str, values: impl IntoIterator<Item = usize>) -> Result<Vec<i32>, KernelError> {
    let narrow = |v| i32::try_from(v).map_err(|_| shape_error(op, "sizes below 2^31", v));
    values.into_iter().map(narrow).collect()
}
