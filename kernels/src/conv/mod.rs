//! Frozen 2-D convolution on NHWC maps.

mod conv2d;
mod direct;
mod spec;

pub use conv2d::Conv2d;
pub use spec::{Activation, ConvSpec};
