//! Which device computes.

use blemish_tensor::Device;
use ndarray::{Array4, ArrayView4};

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
    pub fn with_device(mut self, device: &Device, precision: GpuPrecision) -> Result<Self> {
        self.set_device(device, precision)?;
        Ok(self)
    }

    /// As [`with_device`](Self::with_device), in place; after an error the network is on the CPU.
    ///
    /// # Errors
    /// As [`with_device`](Self::with_device).
    pub fn set_device(&mut self, device: &Device, precision: GpuPrecision) -> Result<()> {
        #[cfg(feature = "cuda")]
        {
            self.gpu = None;
            if let Some(cuda) = device.as_cuda() {
                self.gpu = Some(super::gpu::Gpu::new(self, cuda, precision)?);
            }
        }
        // Without the feature there is one device and one precision.
        #[cfg(not(feature = "cuda"))]
        let _ = (device, precision);
        Ok(())
    }

    /// As [`features`](Self::features), on the CPU wherever the network is.
    ///
    /// # Errors
    /// As [`features`](Self::features).
    pub fn features_on_cpu(&self, input: ArrayView4<'_, f32>) -> Result<Vec<Array4<f32>>> {
        let mut maps = Vec::new();
        self.on_cpu(input, &mut maps)?;
        Ok(maps)
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
