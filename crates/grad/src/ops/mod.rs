//! Operations, each with its forward and backward in one file. Images are `[n, h, w, c]`; weights have PyTorch's shapes.
//!
//! | file | operations |
//! |---|---|
//! | `linear` | [`linear`] |
//! | `conv2d`, `conv_transpose2d` | [`conv2d`], [`conv_transpose2d`] |
//! | `norm` | [`batch_norm`], [`layer_norm`] |
//! | `pointwise` | [`unary`] with a [`Unary`] |
//! | `arithmetic` | [`add`], [`sub`], [`mul`], [`scale`], [`affine`] |
//! | `shape` | [`reshape`], [`permute`], [`concat`], [`slice`], [`select_channels`] |
//! | `reduce` | [`sum`], [`mean`], [`sum_rows`], [`softmax`], [`logsumexp`] |
//! | `pool` | [`max_pool`], [`avg_pool`], [`global_avg_pool`] |
//! | `interpolate` | [`interpolate`], [`pad_reflect`] |
//! | `loss` | [`mse_loss`], [`l1_loss`], [`smooth_l1_loss`], [`bce_loss`], [`cross_entropy`] |
//! | `ssim` | [`ssim_loss`] |

mod arithmetic;
mod conv2d;
mod conv_transpose2d;
mod interpolate;
mod linear;
mod loss;
mod norm;
mod patches;
mod pointwise;
mod pool;
mod reduce;
mod shape;
mod ssim;

pub use arithmetic::{add, affine, mul, scale, sub};
pub use conv_transpose2d::{ConvTranspose, conv_transpose2d};
pub use conv2d::{Conv, conv2d};
pub use interpolate::{Interpolation, interpolate, pad_reflect};
pub use linear::linear;
pub use loss::{bce_loss, cross_entropy, l1_loss, mse_loss, smooth_l1_loss};
pub use norm::{BatchStatistics, batch_norm, layer_norm};
pub use pointwise::{Unary, unary};
pub use pool::{avg_pool, global_avg_pool, max_pool};
pub use reduce::{logsumexp, mean, softmax, sum, sum_rows};
pub use shape::{concat, permute, reshape, select_channels, slice};
pub use ssim::ssim_loss;

use crate::{Result, Var, error::shape_error};

/// `[n, h, w, c]` of an image batch.
pub(crate) fn image_dim(op: &'static str, x: &Var) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(x.shape()).map_err(|_| shape_error(op, "[n, h, w, c]", x.shape()))
}

/// Makes a value of `shape` from values in C order.
pub(crate) fn value(op: &'static str, shape: &[usize], values: Vec<f32>) -> Result<crate::Value> {
    let got = values.len();
    ndarray::ArrayD::from_shape_vec(ndarray::IxDyn(shape), values)
        .map(ndarray::ArrayBase::into_shared)
        .map_err(|_| shape_error(op, format!("values for {shape:?}"), got))
}
