use blemish_embed::Maps;
use blemish_flow::{Latent, MapFlow, PackedFlow};
use blemish_tensor::Device;
use ndarray::Array4;
use rayon::prelude::*;

use crate::Result;
use crate::device::maps::Latents;
use crate::device::{Kept, Tried};
use crate::features::borrowed;

/// The flow of each layer, and their copies on a GPU.
pub(super) struct Flows {
    flows: Vec<PackedFlow>,
    kept: Kept<Latents>,
}

impl Flows {
    pub(super) fn new(models: impl IntoIterator<Item = MapFlow>, device: &Device) -> Result<Flows> {
        let flows = models.into_iter().map(PackedFlow::new).collect::<std::result::Result<_, _>>()?;
        Ok(Flows { flows, kept: Kept::new(device) })
    }

    pub(super) fn models(&self) -> impl Iterator<Item = &MapFlow> {
        self.flows.iter().map(PackedFlow::model)
    }

    pub(super) fn use_device(&mut self, device: &Device) {
        self.kept.use_device(device);
    }

    /// Where they give latents, in words.
    pub(super) fn placement(&self) -> String {
        self.kept.words()
    }

    /// What the GPU finds, if there is one that can.
    fn there<R>(&self, work: impl FnOnce(&Latents) -> Tried<R>) -> Option<R> {
        let there = self.kept.get(|gpu| Latents::new(gpu, self.models()))?;
        self.kept.noted(work(there))
    }

    /// The latent of each layer's map of one picture.
    pub(super) fn of_picture(&self, maps: &[Vec<f32>]) -> Result<Vec<Latent>> {
        if let Some(found) = self.there(|there| there.of_picture(maps)) {
            return Ok(found);
        }
        self.flows.iter().zip(maps).map(|(flow, x)| Ok(flow.latent(x)?)).collect()
    }

    /// The latents of the maps of some pictures, for each layer those of all pictures; none if a GPU does not give those of maps that
    /// it holds.
    pub(super) fn latents(&self, maps: &Maps) -> Result<Option<Vec<Vec<Latent>>>> {
        if let Some(found) = self.there(|there| there.of(maps)) {
            return Ok(Some(found));
        }
        match maps {
            Maps::Host(maps) => self.here(maps).map(Some),
            #[cfg(feature = "cuda")]
            Maps::Gpu(_) => Ok(None),
        }
    }

    fn here(&self, maps: &[Array4<f32>]) -> Result<Vec<Vec<Latent>>> {
        let layer = |(flow, map): (&PackedFlow, &Array4<f32>)| -> Result<Vec<Latent>> {
            let picture = |i: usize| -> Result<Option<Latent>> {
                let maps = borrowed(std::slice::from_ref(map), i);
                Ok(maps.first().map(|x| flow.latent(x)).transpose()?)
            };
            let latents: Vec<Option<Latent>> = (0..map.dim().0).into_par_iter().map(picture).collect::<Result<_>>()?;
            Ok(latents.into_iter().flatten().collect())
        };
        let layers: Vec<_> = self.flows.iter().zip(maps).collect();
        layers.into_par_iter().map(layer).collect()
    }
}
