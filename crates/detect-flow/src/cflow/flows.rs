use blemish_embed::Maps;
use blemish_flow::Flow;
use blemish_tensor::Device;
use ndarray::Array4;
use rayon::prelude::*;

use crate::Result;
use crate::device::linear::Likelihoods;
use crate::device::{Kept, Tried};
use crate::features::{Size, borrowed};

/// The flow of each layer, and their copies on a GPU.
pub(super) struct Flows {
    flows: Vec<Flow>,
    kept: Kept<Likelihoods>,
}

impl Flows {
    pub(super) fn new(flows: Vec<Flow>, device: &Device) -> Flows {
        Flows { flows, kept: Kept::new(device) }
    }

    pub(super) fn all(&self) -> &[Flow] {
        &self.flows
    }

    pub(super) fn use_device(&mut self, device: &Device) {
        self.kept.use_device(device);
    }

    /// Where they give likelihoods, in words.
    pub(super) fn placement(&self) -> String {
        self.kept.words()
    }

    /// What the GPU finds, if there is one that can.
    fn there<R>(&self, work: impl FnOnce(&Likelihoods) -> Tried<R>) -> Option<R> {
        let there = self.kept.get(|gpu| Likelihoods::new(gpu, &self.flows))?;
        self.kept.noted(work(there))
    }

    /// Log-likelihoods of each layer's map of one picture, of these sizes, with the layer's codes.
    pub(super) fn of_picture(&self, maps: &[Vec<f32>], sizes: &[Size], codes: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        if let Some(found) = self.there(|there| there.of_picture(maps, sizes, codes)) {
            return Ok(found);
        }
        let layers = self.flows.iter().zip(maps).zip(codes);
        layers.map(|((flow, x), codes)| Ok(flow.log_likelihoods(x, codes)?)).collect()
    }

    /// Log-likelihoods of the maps of some pictures, for each layer `[n h w]`; none if a GPU does not give those of maps that it holds.
    pub(super) fn of_maps(&self, maps: &Maps, codes: &[Vec<f32>]) -> Result<Option<Vec<Vec<f32>>>> {
        if let Some(found) = self.there(|there| there.of(maps, codes)) {
            return Ok(Some(found));
        }
        match maps {
            Maps::Host(maps) => self.here(maps, codes).map(Some),
            #[cfg(feature = "cuda")]
            Maps::Gpu(_) => Ok(None),
        }
    }

    fn here(&self, maps: &[Array4<f32>], codes: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        let layer = |((flow, map), codes): ((&Flow, &Array4<f32>), &Vec<f32>)| -> Result<Vec<f32>> {
            let picture = |i: usize| match borrowed(std::slice::from_ref(map), i).first() {
                Some(x) => Ok(flow.log_likelihoods(x, codes)?),
                None => Ok(Vec::new()),
            };
            Ok((0..map.dim().0).into_par_iter().map(picture).collect::<Result<Vec<_>>>()?.concat())
        };
        let layers: Vec<_> = self.flows.iter().zip(maps).zip(codes).collect();
        layers.into_par_iter().map(layer).collect()
    }
}
