//! Which device computes.

use blemish_tensor::Device;

use super::Backbone;
use crate::Result;

/// How a network computes on a GPU; for the CPU there is [`Precision`](crate::Precision).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum GpuPrecision {
    /// `f32` throughout: the CPU's features, but for the order of sums.
    #[default]
    Single,
    /// Maps and weights in fp16 on tensor cores, sums in `f32`; wants compute capability 8.0. Each layer is rounded to 11 bits,
    /// and what is beyond 65504 becomes infinite.
    Half,
}

impl Backbone {
    /// The same network on `device`, where its weights are copied once. `precision` is for GPUs.
    ///
    /// On a GPU, [`features`](Backbone::features) keeps buffers for the last few input shapes; the first call with a shape
    /// records all launches as one CUDA graph, which later calls start again. A picture's features do not depend on the rest
    /// of the batch.
    ///
    /// # Errors
    /// [`BackboneError::Gpu`](crate::BackboneError) or `Tensor` if the memory budget is too small or the chip cannot do fp16 on
    /// tensor cores; never for the CPU.
    pub fn with_device(self, device: &Device, precision: GpuPrecision) -> Result<Self> {
        #[cfg(feature = "cuda")]
        {
            let mut backbone = self;
            backbone.gpu = None;
            if let Some(cuda) = device.as_cuda() {
                backbone.gpu = Some(super::gpu::Gpu::new(&backbone, cuda, precision)?);
            }
            Ok(backbone)
        }
        #[cfg(not(feature = "cuda"))]
        {
            // Without the feature there is one device and one precision.
            let _ = (device, precision);
            Ok(self)
        }
    }

    /// Where the network computes.
    pub fn device(&self) -> Device {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = &self.gpu {
            return Device::cuda(gpu.cuda().clone());
        }
        Device::cpu()
    }
}
