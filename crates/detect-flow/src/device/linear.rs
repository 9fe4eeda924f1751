//! CFlow-AD's flows on a GPU.

use std::sync::{Mutex, PoisonError};

use blemish_embed::Maps;
use blemish_flow::gpu::{Batches, LinearModel};
use blemish_flow::{Flow, Products};
use blemish_grad::optim::Adam;
use blemish_tensor::cuda::{Buffer, Cuda};

use super::{Refused, Tried};

pub(crate) use blemish_flow::gpu::LinearTrainer;

/// A trainer with all its memory; see [`Batches`] for codes, pictures and samples.
pub(crate) fn trainer(
    cuda: &Cuda,
    flow: Flow,
    adam: Adam,
    products: Products,
    (codes, pictures, samples): (&[f32], usize, usize),
) -> Tried<LinearTrainer> {
    Ok(LinearTrainer::new(cuda, flow, adam, products, Batches { codes, pictures, samples })?)
}

/// The flow of each layer.
pub(crate) struct Likelihoods {
    cuda: Cuda,
    models: Vec<LinearModel>,
    codes: Mutex<Codes>,
}

/// The codes of each layer as they were last used.
#[derive(Default)]
struct Codes {
    /// Height and width of each map.
    sizes: Vec<[usize; 2]>,
    there: Vec<Buffer<f32>>,
}

impl Likelihoods {
    pub(crate) fn new(cuda: &Cuda, flows: &[Flow]) -> Tried<Likelihoods> {
        let models = flows.iter().map(|flow| LinearModel::new(cuda, flow)).collect::<Result<_, _>>()?;
        Ok(Likelihoods { cuda: cuda.clone(), models, codes: Mutex::default() })
    }

    /// Log-likelihoods of maps, for each layer `[n h w]`; `codes` are `[h, w, condition]` each.
    pub(crate) fn of(&self, maps: &Maps, codes: &[Vec<f32>]) -> Tried<Vec<Vec<f32>>> {
        // What is kept is whole, whatever another thread did.
        let mut kept = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        let sizes: Vec<[usize; 2]> = maps.shapes().iter().map(|[_, h, w, _]| [*h, *w]).collect();
        if kept.sizes != sizes {
            let there = codes.iter().map(|codes| self.cuda.upload(codes)).collect::<Result<_, _>>()?;
            *kept = Codes { sizes, there };
        }
        let layers = self.models.iter().zip(&kept.there);
        match maps {
            Maps::Host(maps) => layers
                .zip(maps)
                .map(|((model, codes), map)| {
                    let map = map.as_standard_layout();
                    let map = map.as_slice().ok_or(Refused::Arguments)?;
                    Ok(model.log_likelihoods_of(map, codes)?)
                })
                .collect(),
            Maps::Gpu(maps) => {
                layers.zip(maps).map(|((model, codes), map)| Ok(model.log_likelihoods(map.values(), codes)?)).collect()
            }
        }
    }

    /// Log-likelihoods of one picture's maps `[h w, c]`, with such codes.
    pub(crate) fn of_picture(&self, maps: &[Vec<f32>], codes: &[Vec<f32>]) -> Tried<Vec<Vec<f32>>> {
        let layer = |((model, map), codes): ((&LinearModel, &Vec<f32>), &Vec<f32>)| {
            Ok(model.log_likelihoods_of(map, &self.cuda.upload(codes)?)?)
        };
        self.models.iter().zip(maps).zip(codes).map(layer).collect()
    }
}
