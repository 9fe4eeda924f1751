//! CFlow-AD's flows on a GPU.

use std::sync::{Mutex, PoisonError};

use blemish_embed::Maps;
use blemish_flow::gpu::{Batches, LinearModel};
use blemish_flow::{Flow, Products};
use blemish_grad::optim::Adam;
use blemish_tensor::cuda::{Buffer, Cuda};

use super::{Refused, Tried, refused};
use crate::features::Size;

pub(crate) use blemish_flow::gpu::LinearTrainer;

/// A trainer with all its memory; see [`Batches`] for codes, pictures and samples.
pub(crate) fn trainer(
    cuda: &Cuda,
    flow: Flow,
    adam: Adam,
    products: Products,
    (codes, pictures, samples): (&[f32], usize, usize),
) -> Tried<LinearTrainer> {
    LinearTrainer::new(cuda, flow, adam, products, Batches { codes, pictures, samples }).map_err(refused)
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
        let models = flows.iter().map(|flow| LinearModel::new(cuda, flow).map_err(refused)).collect::<Tried<_>>()?;
        Ok(Likelihoods { cuda: cuda.clone(), models, codes: Mutex::default() })
    }

    /// Does `work` on each layer's flow and its codes `[h, w, condition]`, which stay on the GPU while the sizes are the same.
    fn layers<T>(
        &self,
        sizes: Vec<[usize; 2]>,
        codes: &[Vec<f32>],
        work: impl Fn(usize, &LinearModel, &Buffer<f32>) -> Tried<T>,
    ) -> Tried<Vec<T>> {
        // What is kept is whole, whatever another thread did.
        let mut kept = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.sizes != sizes {
            let there = codes.iter().map(|codes| self.cuda.upload(codes)).collect::<Result<_, _>>()?;
            *kept = Codes { sizes, there };
        }
        self.models.iter().zip(&kept.there).enumerate().map(|(l, (model, codes))| work(l, model, codes)).collect()
    }

    /// Log-likelihoods of maps, for each layer `[n h w]`; `codes` are `[h, w, condition]` each.
    pub(crate) fn of(&self, maps: &Maps, codes: &[Vec<f32>]) -> Tried<Vec<Vec<f32>>> {
        let sizes = maps.shapes().iter().map(|[_, h, w, _]| [*h, *w]).collect();
        self.layers(sizes, codes, |l, model, codes| match maps {
            Maps::Host(maps) => {
                let map = maps.get(l).ok_or(Refused::Arguments)?.as_standard_layout();
                model.log_likelihoods_of(map.as_slice().ok_or(Refused::Arguments)?, codes).map_err(refused)
            }
            Maps::Gpu(maps) => {
                model.log_likelihoods(maps.get(l).ok_or(Refused::Arguments)?.values(), codes).map_err(refused)
            }
        })
    }

    /// Log-likelihoods of one picture's maps `[h w, c]` of these sizes, with such codes.
    pub(crate) fn of_picture(&self, maps: &[Vec<f32>], sizes: &[Size], codes: &[Vec<f32>]) -> Tried<Vec<Vec<f32>>> {
        let sizes = sizes.iter().map(|(h, w, _)| [*h, *w]).collect();
        self.layers(sizes, codes, |l, model, codes| {
            model.log_likelihoods_of(maps.get(l).ok_or(Refused::Arguments)?, codes).map_err(refused)
        })
    }
}
