use blemish_core::{Detect, Epoch, Fit, ImageSource, Session};
use blemish_flow::{ConvTrainer, MapFlow, PackedFlow};
use blemish_grad::Module;
use blemish_grad::optim::{Adam, AdamState};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde_json::json;

use super::{Fastflow, FastflowParams, KIND};
use crate::settings::{Material, settings};
use crate::split::stream;
use crate::store::put;
use crate::training::{Learner, Outcome, Weights, run};
use crate::{FlowDetectorError, Mode, Result};

impl Fit for FastflowParams {
    type Model = Fastflow;

    fn fit(&self, session: &Session<'_>, normal: &dyn ImageSource) -> blemish_core::Result<Fastflow> {
        fit(self, session, normal).map_err(|error| error.into_core(KIND))
    }
}

fn fit(params: &FastflowParams, session: &Session<'_>, normal: &dyn ImageSource) -> Result<Fastflow> {
    params.validate()?;
    let settings = settings!(params);
    let embedder = settings.embedder(session, normal)?;
    let material = settings.material(&embedder, session, normal)?;
    let own = json!({
        "steps": params.steps, "conv3x3_only": params.conv3x3_only, "hidden_ratio": params.hidden_ratio,
        "weight_decay": params.weight_decay,
    });
    let identity = settings.identity(KIND, &material, session.judge.is_some(), own);
    let mut learner = Stacks::new(params, &material)?;
    let Outcome { curve, best } = run(&mut learner, &settings.plan(), &identity, session)?;
    let mut models: Vec<MapFlow> = learner.layers.into_iter().map(ConvTrainer::into_model).collect();
    for (model, weights) in models.iter_mut().zip(best.into_iter().flatten()) {
        put(model, weights)?;
    }
    let flows = models.into_iter().map(PackedFlow::new).collect::<std::result::Result<Vec<_>, _>>()?;
    // Steps too large may show nowhere but in what comes after the last of them.
    for maps in material.features.get(&[0])? {
        for (l, (flow, x)) in flows.iter().zip(maps.iter()).enumerate() {
            if !flow.latent(x)?.loss.is_finite() {
                let what = format!("layer {}", params.layers[l]);
                return Err(FlowDetectorError::Diverged { epoch: curve.len(), what });
            }
        }
    }
    drop(material);
    Ok(Fastflow::new(embedder, flows, params, normal.len(), curve))
}

/// The flows in training, one for each layer. Their losses are added up, so each has its own gradients and steps.
struct Stacks<'a> {
    params: &'a FastflowParams,
    material: &'a Material<'a>,
    layers: Vec<ConvTrainer>,
}

impl<'a> Stacks<'a> {
    fn new(params: &'a FastflowParams, material: &'a Material<'a>) -> Result<Stacks<'a>> {
        let adam = Adam { lr: params.lr, weight_decay: params.weight_decay, ..Adam::default() };
        let layer = |(l, &(h, w, c)): (usize, &(usize, usize, usize))| -> Result<ConvTrainer> {
            let norm = params.mode == Mode::Anomalib;
            let model = MapFlow::new(&params.spec(c), (h, w), norm, material.seed.wrapping_add(l as u64 + 1))?;
            Ok(ConvTrainer::new(model, adam)?)
        };
        let layers = material.features.sizes.iter().enumerate().map(layer).collect::<Result<_>>()?;
        Ok(Stacks { params, material, layers })
    }
}

impl Stacks<'_> {
    fn packed(&self) -> Result<Vec<PackedFlow>> {
        let pack = |layer: &ConvTrainer| Ok(PackedFlow::new(layer.model().clone())?);
        self.layers.iter().map(pack).collect()
    }
}

impl Learner for Stacks<'_> {
    fn epoch(&mut self, epoch: usize, lr: f32, batch: &dyn Fn() -> Result<()>) -> Result<f64> {
        let Material { seed, features, split, .. } = self.material;
        let mut order = split.train.clone();
        order.shuffle(&mut stream(*seed, [epoch, 0, 0]));
        let (mut total, mut steps) = (0.0, 0);
        for pictures in order.chunks(self.params.image_batch) {
            let maps = features.get(pictures)?;
            let losses: Vec<f32> = self
                .layers
                .par_iter_mut()
                .enumerate()
                .map(|(l, trainer)| {
                    let maps: Vec<&[f32]> = maps.iter().map(|maps| maps[l].as_slice()).collect();
                    let layer = &self.params.layers[l];
                    trainer.step(&maps, lr).map_err(|error| FlowDetectorError::in_epoch(error, epoch, layer))
                })
                .collect::<Result<_>>()?;
            total += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
            steps += 1;
            batch()?;
        }
        Ok(total / f64::from(steps.max(1)))
    }

    fn model(&self, curve: &[Epoch]) -> Result<Box<dyn Detect>> {
        let (embedder, pictures) = (self.material.embedder.clone(), self.material.pictures);
        Ok(Box::new(Fastflow::new(embedder, self.packed()?, self.params, pictures, curve.to_vec())))
    }

    fn validate(&self) -> Result<Option<f64>> {
        let Material { features, split, .. } = self.material;
        if split.validation.is_empty() {
            return Ok(None);
        }
        let flows = self.packed()?;
        let mut total = 0.0;
        for pictures in split.validation.chunks(self.params.image_batch) {
            let maps = features.get(pictures)?;
            let losses = maps.par_iter().map(|maps| {
                let layers = flows.iter().zip(maps.iter());
                layers.map(|(flow, x)| Ok(flow.latent(x)?.loss)).sum::<Result<f64>>()
            });
            total += losses.collect::<Result<Vec<f64>>>()?.iter().sum::<f64>();
        }
        Ok(Some(total / split.validation.len() as f64))
    }

    fn batches(&self) -> usize {
        self.material.batches(self.params.image_batch)
    }

    fn parts(&self) -> Vec<(&dyn Module, &AdamState)> {
        self.layers.iter().map(|l| (l.model() as &dyn Module, l.state())).collect()
    }

    fn restore(&mut self, parts: Vec<(Weights, AdamState)>) -> Result<()> {
        for (layer, (weights, state)) in self.layers.iter_mut().zip(parts) {
            let mut model = layer.model().clone();
            put(&mut model, weights)?;
            layer.resume(model, state)?;
        }
        Ok(())
    }
}
