//! Pooling and channel gates on NHWC maps.
//!
//! | function | what it computes |
//! |---|---|
//! | [`max_pool`], [`avg_pool`] | the largest value or the mean of each window |
//! | [`global_avg`] | the mean of each channel over a map |
//! | [`scale_channels`] | each channel of each map times its gate |
//! | [`relu`], [`hard_sigmoid`], [`sigmoid`], [`silu`], [`hard_swish`] | activations in place, for squeeze and excite |

mod activation;
mod cpu_channels;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(test)]
mod tests;
mod window;

pub use activation::{hard_sigmoid, hard_swish, relu, sigmoid, silu};
pub use window::{PoolSpec, avg_pool, global_avg, max_pool, scale_channels};
