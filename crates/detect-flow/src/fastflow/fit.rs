use std::borrow::Cow;

use blemish_core::{Detect, Epoch, Fit, ImageSource, Session};
use blemish_flow::{ConvTrainer, MapFlow, PackedFlow};
use blemish_grad::Module;
use blemish_grad::optim::{Adam, AdamState};
use blemish_tensor::Device;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde_json::json;

use super::flows::Flows;
use super::trainer::Trainer;
use super::{Fastflow, FastflowParams, KIND};
use crate::device::{Gpu, Refused, Tried, failure, gpu, maps};
use crate::features::{Features, Maps, Size};
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
        "weight_decay": params.weight_decay, "map": params.map, "sigma": params.sigma,
    });
    let identity = settings.identity(KIND, &material, session, own);
    let mut learner = Stacks::new(params, &material, &session.device)?;
    let Outcome { curve, best } = run(&mut learner, &settings.plan(), &identity, session)?;
    let why = learner.why;
    let models = learner.layers.into_iter().map(Trainer::into_model);
    let mut models: Vec<MapFlow> = models.collect::<Result<_>>()?;
    for (model, weights) in models.iter_mut().zip(best.into_iter().flatten()) {
        put(model, weights)?;
    }
    let flows = Flows::new(models, &session.device)?;
    // Steps too large may show nowhere but in what comes after the last of them.
    for maps in material.features.get(&[0])? {
        if let Some(l) = flows.of_picture(&maps)?.iter().position(|latent| !latent.loss.is_finite()) {
            let what = format!("layer {}", params.layers[l]);
            return Err(FlowDetectorError::Diverged { epoch: curve.len(), what });
        }
    }
    drop(material);
    Ok(Fastflow::new(embedder, flows, params, normal.len(), curve).trained_on_cpu_because(why))
}

/// The flows in training, one for each layer. Their losses are added up, so each has its own gradients and steps.
struct Stacks<'a> {
    params: &'a FastflowParams,
    material: &'a Material<'a>,
    layers: Vec<Trainer>,
    device: Device,
    /// Why they are not trained on the GPU asked for.
    why: Option<String>,
}

impl<'a> Stacks<'a> {
    fn new(params: &'a FastflowParams, material: &'a Material<'a>, device: &Device) -> Result<Stacks<'a>> {
        let adam = params.adam();
        let model = |(l, &(h, w, c)): (usize, &Size)| -> Result<MapFlow> {
            let norm = params.mode == Mode::Anomalib;
            Ok(MapFlow::new(&params.spec(c), (h, w), norm, material.seed.wrapping_add(l as u64 + 1))?)
        };
        let models = || material.features.sizes.iter().enumerate().map(model).collect::<Result<Vec<MapFlow>>>();
        let (mut why, mut layers) = (None, None);
        if let Some(gpu) = gpu(device) {
            match on_gpu(gpu, models()?, adam, params.image_batch, &material.features) {
                Ok(found) => layers = Some(found),
                Err(Refused::Device(reason)) => why = Some(format!("{device}: {reason}")),
                Err(Refused::Arguments) => {}
            }
        }
        let layers = match layers {
            Some(layers) => layers,
            None => {
                let trainer = |model| Ok(Trainer::Cpu(Box::new(ConvTrainer::new(model, adam)?)));
                models()?.into_iter().map(trainer).collect::<Result<_>>()?
            }
        };
        Ok(Stacks { params, material, layers, device: device.clone(), why })
    }
}

/// All flows on a GPU, or none; with their features, where there is room.
fn on_gpu(
    gpu: &Gpu,
    models: Vec<MapFlow>,
    adam: Adam,
    pictures: usize,
    features: &Features<'_>,
) -> Tried<Vec<Trainer>> {
    let mut trainers = Vec::new();
    for model in models {
        trainers.push(maps::trainer(gpu, model, adam, pictures)?);
    }
    if let Some(all) = features.kept() {
        for (l, trainer) in trainers.iter_mut().enumerate() {
            // Without them they are given step by step.
            let maps = all.iter().map(|maps| maps.get(l).map_or(&[][..], Vec::as_slice));
            if trainer.hold(gpu, maps).is_err() {
                break;
            }
        }
    }
    Ok(trainers.into_iter().map(|trainer| Trainer::Gpu(Box::new(trainer))).collect())
}

impl Stacks<'_> {
    fn packed(&self) -> Result<Vec<PackedFlow>> {
        self.layers.iter().map(|layer| Ok(PackedFlow::new(layer.model().clone())?)).collect()
    }

    /// The sum of the losses of some pictures' maps over all layers, if they are on a GPU.
    fn losses_there(&self, maps: &[Cow<'_, Maps>]) -> Result<Option<f64>> {
        let mut total = 0.0;
        for (l, layer) in self.layers.iter().enumerate() {
            let maps: Vec<&[f32]> = maps.iter().map(|maps| maps[l].as_slice()).collect();
            let Some(losses) = layer.losses(&maps)? else { return Ok(None) };
            total += losses.iter().sum::<f64>();
        }
        Ok(Some(total))
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
            let step = |(l, trainer): (usize, &mut Trainer)| {
                let maps: Vec<&[f32]> = maps.iter().map(|maps| maps[l].as_slice()).collect();
                let layer = &self.params.layers[l];
                trainer.step(&maps, pictures, lr).map_err(|error| match error {
                    FlowDetectorError::Flow(error) => FlowDetectorError::in_epoch(error, epoch, layer),
                    other => other,
                })
            };
            let losses: Vec<f32> = if self.layers.iter().any(Trainer::on_gpu) {
                // A GPU has one stream of work for all.
                self.layers.iter_mut().enumerate().map(step).collect::<Result<_>>()?
            } else {
                self.layers.par_iter_mut().enumerate().map(step).collect::<Result<_>>()?
            };
            total += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
            steps += 1;
            batch()?;
        }
        Ok(total / f64::from(steps.max(1)))
    }

    fn model(&self, curve: &[Epoch]) -> Result<Box<dyn Detect>> {
        let (embedder, pictures) = (self.material.embedder.clone(), self.material.pictures);
        let flows = Flows::new(self.layers.iter().map(|layer| layer.model().clone()), &self.device)?;
        Ok(Box::new(Fastflow::new(embedder, flows, self.params, pictures, curve.to_vec())))
    }

    fn validate(&self) -> Result<Option<f64>> {
        let Material { features, split, .. } = self.material;
        if split.validation.is_empty() {
            return Ok(None);
        }
        let mut total = 0.0;
        let mut flows = None;
        for pictures in split.validation.chunks(self.params.image_batch) {
            let maps = features.get(pictures)?;
            if let Some(found) = self.losses_there(&maps)? {
                total += found;
                continue;
            }
            let flows = match &mut flows {
                Some(flows) => &*flows,
                none => &*none.insert(self.packed()?),
            };
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

    fn bring(&mut self) -> Result<()> {
        self.layers.iter_mut().try_for_each(Trainer::bring)
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

    fn leave_gpu(&mut self, epoch: usize, error: &FlowDetectorError) -> Result<bool> {
        let Some(reason) = failure(error).filter(|_| self.layers.iter().any(Trainer::on_gpu)) else {
            return Ok(false);
        };
        for layer in &mut self.layers {
            let mut trainer = ConvTrainer::new(layer.model().clone(), self.params.adam())?;
            trainer.resume(layer.model().clone(), layer.state().clone())?;
            *layer = Trainer::Cpu(Box::new(trainer));
        }
        let gpu = std::mem::replace(&mut self.device, Device::cpu());
        self.why = Some(format!("{gpu}, from epoch {epoch} on: {reason}"));
        Ok(true)
    }
}
