//! Which device a network is on.
//!
//! | precision | on a GPU |
//! |---|---|
//! | `f32` | `f32` throughout |
//! | bf16 | fp16 on tensor cores, which rounds less; `f32` on chips without them |
//! | int8 | not at all: its features are learnt from as they are, and there are no kernels for bytes |
//!
//! Where a GPU refuses, for want of memory mostly, the network goes on on the CPU and says why.

use std::sync::OnceLock;

use blemish_backbone::{Backbone, BackboneError, GpuPrecision, Precision};
use blemish_core::Arithmetic;
use blemish_tensor::Device;
use ndarray::{Array4, ArrayView4, Axis, concatenate};

use crate::{Maps, Result};

/// The outcome of moving a network.
#[derive(Debug, Default)]
pub(crate) struct Place {
    precision: GpuPrecision,
    /// Why it computes on the CPU, or not as asked for.
    why: OnceLock<String>,
    /// Set where the GPU has failed and is not asked again.
    failed: OnceLock<()>,
}

impl Place {
    /// Moves `backbone`, as far as that can be done.
    pub(crate) fn new(backbone: &mut Backbone, device: &Device) -> Place {
        let place = Place::default();
        if device.is_cpu() || backbone.precision() == Precision::Int8 {
            // To the CPU nothing can fail.
            let _ = backbone.set_device(&Device::cpu(), GpuPrecision::Single);
            return if device.is_cpu() { place } else { place.because("int8 has no form for GPUs".to_owned()) };
        }
        let ways: &[GpuPrecision] = match backbone.precision() {
            Precision::Bf16 => &[GpuPrecision::Half, GpuPrecision::Single],
            _ => &[GpuPrecision::Single],
        };
        let mut why = None;
        for &precision in ways {
            match backbone.set_device(device, precision) {
                Ok(()) => {
                    let place = Place { precision, ..place };
                    return match why {
                        Some(why) => place.because(why),
                        None => place,
                    };
                }
                Err(error) => why = Some(error.to_string()),
            }
        }
        place.because(why.unwrap_or_default())
    }

    fn because(self, why: String) -> Place {
        let _ = self.why.set(why);
        self
    }

    /// Whether the next pictures are computed on a GPU.
    pub(crate) fn on_gpu(&self, backbone: &Backbone) -> bool {
        !backbone.device().is_cpu() && self.failed.get().is_none()
    }

    pub(crate) fn arithmetic(&self, backbone: &Backbone) -> Arithmetic {
        match (self.on_gpu(backbone), self.precision, backbone.computes_in()) {
            (true, GpuPrecision::Half, _) => Arithmetic::F16,
            (true, GpuPrecision::Single, _) | (false, _, Precision::F32) => Arithmetic::F32,
            (false, _, Precision::Bf16) => Arithmetic::Bf16,
            (false, _, Precision::Int8) => Arithmetic::Int8,
        }
    }

    /// In words, such as `on cuda:0 in fp16` or `on the CPU in int8 (int8 has no form for GPUs)`.
    pub(crate) fn words(&self, backbone: &Backbone) -> String {
        let device = if self.on_gpu(backbone) { backbone.device().to_string() } else { "the CPU".to_owned() };
        let why = self.why.get().map_or_else(String::new, |why| format!(" ({why})"));
        format!("on {device} in {}{why}", self.arithmetic(backbone))
    }

    /// The features of pictures `[n, h, w, 3]`, on the GPU if it can, else on the CPU.
    pub(crate) fn maps(&self, backbone: &Backbone, input: ArrayView4<'_, f32>) -> Result<Maps> {
        if self.on_gpu(backbone) && !input.is_empty() {
            match on_gpu(backbone, input) {
                Err(error) if refused(&error) => {
                    if let Some(maps) = self.smaller(backbone, input, &error)? {
                        return Ok(Maps::Host(maps));
                    }
                }
                other => return Ok(other?),
            }
        }
        Ok(Maps::Host(backbone.features_on_cpu(input)?))
    }

    /// The features from the CPU, now and from now on.
    #[cfg(feature = "cuda")]
    pub(crate) fn give_up(
        &self,
        backbone: &Backbone,
        input: ArrayView4<'_, f32>,
        error: &crate::EmbedError,
    ) -> Result<Vec<Array4<f32>>> {
        let _ = self.why.set(error.to_string());
        let _ = self.failed.set(());
        Ok(backbone.features_on_cpu(input)?)
    }

    /// What did not fit at once, in parts; `None` once the GPU is given up. A picture's features do not depend on the batch.
    fn smaller(
        &self,
        backbone: &Backbone,
        input: ArrayView4<'_, f32>,
        error: &BackboneError,
    ) -> Result<Option<Vec<Array4<f32>>>> {
        let n = input.dim().0;
        if n < 2 {
            let _ = self.why.set(error.to_string());
            let _ = self.failed.set(());
            return Ok(None);
        }
        let (head, tail) = input.split_at(Axis(0), n / 2);
        let (head, tail) = (self.maps(backbone, head)?.into_host()?, self.maps(backbone, tail)?.into_host()?);
        let join = |(a, b): (&Array4<f32>, &Array4<f32>)| concatenate(Axis(0), &[a.view(), b.view()]);
        // They differ in the number of pictures alone.
        Ok(head.iter().zip(&tail).map(join).collect::<std::result::Result<_, _>>().ok())
    }
}

/// Whether it is the GPU's fault.
fn refused(error: &BackboneError) -> bool {
    #[cfg(feature = "cuda")]
    if let BackboneError::Gpu(_) = error {
        return true;
    }
    matches!(error, BackboneError::Tensor(_))
}

#[cfg(feature = "cuda")]
fn on_gpu(backbone: &Backbone, input: ArrayView4<'_, f32>) -> std::result::Result<Maps, BackboneError> {
    let device = backbone.device();
    let Some(cuda) = device.as_cuda() else { return Ok(Maps::Host(backbone.features_on_cpu(input)?)) };
    let (n, h, w, channels) = input.dim();
    if channels != 3 {
        // Refused there in the network's words.
        return Ok(Maps::Host(backbone.features_on_cpu(input)?));
    }
    let standard = input.as_standard_layout();
    let pixels = cuda.upload(standard.as_slice().unwrap_or_default())?;
    Ok(Maps::Gpu(backbone.features_on_gpu(&pixels, [n, h, w])?))
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(backbone: &Backbone, input: ArrayView4<'_, f32>) -> std::result::Result<Maps, BackboneError> {
    Ok(Maps::Host(backbone.features_on_cpu(input)?))
}
