use ndarray::Array4;

use crate::Result;

#[cfg(feature = "cuda")]
use blemish_backbone::GpuMap;

/// The feature maps of some pictures, one for each layer, where the network left them.
#[derive(Debug)]
pub enum Maps {
    /// In the CPU's memory, `[n, h, w, c]` each.
    Host(Vec<Array4<f32>>),
    /// In a GPU's memory; work that reads them there needs no copy.
    #[cfg(feature = "cuda")]
    Gpu(Vec<GpuMap>),
}

impl Maps {
    /// Pictures, height, width and channels of each map.
    pub fn shapes(&self) -> Vec<[usize; 4]> {
        match self {
            Maps::Host(maps) => maps.iter().map(|map| map.dim().into()).collect(),
            #[cfg(feature = "cuda")]
            Maps::Gpu(maps) => maps.iter().map(GpuMap::shape).collect(),
        }
    }

    /// The maps in the CPU's memory; a copy if they are on a GPU.
    ///
    /// # Errors
    /// What went wrong on the GPU.
    pub fn into_host(self) -> Result<Vec<Array4<f32>>> {
        match self {
            Maps::Host(maps) => Ok(maps),
            #[cfg(feature = "cuda")]
            Maps::Gpu(maps) => Ok(maps.iter().map(GpuMap::download).collect::<std::result::Result<_, _>>()?),
        }
    }
}
