//! Where the products of operations run: the only place of this crate that knows of GPUs.
//!
//! Values stay in the CPU's memory; the operands of a product that is worth it go to the GPU and its result comes back. Every
//! product has a CPU form, which computes whatever the GPU does not take, or fails at.

#[cfg(feature = "cuda")]
mod gpu;

use blemish_tensor::Device;

/// The GPU, if there is one, and the number of multiply-adds from which a product goes there.
#[derive(Clone, Debug)]
pub(crate) struct Products {
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    device: Device,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    least: usize,
}

impl Default for Products {
    fn default() -> Self {
        Products { device: Device::cpu(), least: usize::MAX }
    }
}

/// A convolution of stride 1 with a square kernel of odd side and as many output as input pixels, in one group.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(crate) struct Same {
    /// Pictures, height and width.
    pub(crate) size: [usize; 3],
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
}

/// A linear layer on rows.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(crate) struct Rows {
    pub(crate) rows: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

impl Products {
    pub(crate) fn on(device: &Device, least: usize) -> Products {
        Products { device: device.clone(), least }
    }
}

/// Without a GPU nothing is taken.
#[cfg(not(feature = "cuda"))]
impl Products {
    pub(crate) fn linear(&self, _: Rows, _: &[f32], _: &[f32], _: Option<&[f32]>) -> Option<Vec<f32>> {
        None
    }

    pub(crate) fn linear_input(&self, _: Rows, _: &[f32], _: &[f32]) -> Option<Vec<f32>> {
        None
    }

    pub(crate) fn linear_weight(&self, _: Rows, _: &[f32], _: &[f32], _: &[f32]) -> Option<Vec<f32>> {
        None
    }

    pub(crate) fn conv(&self, _: Same, _: &[f32], _: &[f32], _: Option<&[f32]>) -> Option<Vec<f32>> {
        None
    }

    pub(crate) fn conv_input(&self, _: Same, _: &[f32], _: &[f32]) -> Option<Vec<f32>> {
        None
    }

    pub(crate) fn conv_weight(&self, _: Same, _: &[f32], _: &[f32]) -> Option<Vec<f32>> {
        None
    }
}
