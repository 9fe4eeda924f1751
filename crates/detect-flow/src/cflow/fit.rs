use blemish_core::{Detect, Epoch, Fit, ImageSource, Session};
use blemish_flow::{Flow, LinearTrainer, Products};
use blemish_grad::Module;
use blemish_grad::optim::{Adam, AdamState};
use blemish_tensor::Device;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde_json::json;

use super::codes::codes;
use super::flows::Flows;
use super::trainer::{Losses, Order, Trainer};
use super::{Cflow, CflowParams, KIND};
use crate::device::{Gpu, Refused, Tried, failure, gpu, linear};
use crate::settings::{Material, settings};
use crate::split::stream;
use crate::store::put;
use crate::training::{Learner, Outcome, Weights, run};
use crate::{FlowDetectorError, Mode, Result};

impl Fit for CflowParams {
    type Model = Cflow;

    fn fit(&self, session: &Session<'_>, normal: &dyn ImageSource) -> blemish_core::Result<Cflow> {
        fit(self, session, normal).map_err(|error| error.into_core(KIND))
    }
}

fn fit(params: &CflowParams, session: &Session<'_>, normal: &dyn ImageSource) -> Result<Cflow> {
    params.validate()?;
    let settings = settings!(params);
    let embedder = settings.embedder(session, normal)?;
    let material = settings.material(&embedder, session, normal)?;
    let own = json!({
        "blocks": params.blocks, "condition": params.condition, "soft_mixing": params.soft_mixing,
        "fibre_batch": params.fibre_batch, "flow_precision": params.flow_precision,
    });
    let identity = settings.identity(KIND, &material, session, own);
    let mut learner = Decoders::new(params, &material, &session.device)?;
    let Outcome { curve, best } = run(&mut learner, &settings.plan(), &identity, session)?;
    let why = learner.why;
    let flows = learner.layers.into_iter().map(|layer| layer.trainer.into_flow());
    let mut flows: Vec<Flow> = flows.collect::<Result<_>>()?;
    for (flow, weights) in flows.iter_mut().zip(best.into_iter().flatten()) {
        put(flow, weights)?;
    }
    let flows = Flows::new(flows, &session.device);
    let maxima = maxima(&flows, params, &material, session)?;
    if let Some(l) = maxima.iter().position(|m| !m.is_finite()) {
        return Err(FlowDetectorError::Diverged { epoch: curve.len(), what: format!("layer {}", params.layers[l]) });
    }
    drop(material);
    Ok(Cflow::new(embedder, flows, maxima, params, normal.len(), curve).trained_on_cpu_because(why))
}

/// The largest log-likelihood of each layer over all training pictures.
fn maxima(flows: &Flows, params: &CflowParams, material: &Material<'_>, session: &Session<'_>) -> Result<Vec<f32>> {
    let codes = codes(&material.features.sizes, params.condition)?;
    let task = session.task("likelihoods", material.pictures);
    let mut maxima = vec![f32::NEG_INFINITY; flows.all().len()];
    let all: Vec<usize> = (0..material.pictures).collect();
    for part in all.chunks(params.image_batch) {
        let maps = material.features.get(part)?;
        let each = maps.par_iter().map(|maps| {
            // A NaN stays one.
            let max = |values: &Vec<f32>| {
                values.iter().fold(f32::NEG_INFINITY, |m, &l| if l <= m || m.is_nan() { m } else { l })
            };
            Ok(flows.of_picture(maps, &material.features.sizes, &codes)?.iter().map(max).collect::<Vec<f32>>())
        });
        for found in each.collect::<Result<Vec<_>>>()? {
            maxima.iter_mut().zip(found).for_each(|(m, v)| *m = if v <= *m || m.is_nan() { *m } else { v });
        }
        task.step(part.len())?;
    }
    Ok(maxima)
}

/// The flows in training.
struct Decoders<'a> {
    params: &'a CflowParams,
    material: &'a Material<'a>,
    layers: Vec<Layer>,
    device: Device,
    /// Why they are not trained on the GPU asked for.
    why: Option<String>,
}

struct Layer {
    name: String,
    channels: usize,
    /// `[h, w, condition]`.
    codes: Vec<f32>,
    trainer: Trainer,
}

impl<'a> Decoders<'a> {
    fn new(params: &'a CflowParams, material: &'a Material<'a>, device: &Device) -> Result<Decoders<'a>> {
        let (sizes, products) = (&material.features.sizes, params.products()?);
        let adam = params.adam();
        let codes = codes(sizes, params.condition)?;
        let flow = |l: usize| {
            Ok::<_, FlowDetectorError>(Flow::new(&params.spec(sizes[l].2), material.seed.wrapping_add(l as u64 + 1))?)
        };
        let mut why = None;
        let mut trainers = None;
        if let Some(gpu) = gpu(device) {
            let flows = (0..sizes.len()).map(flow).collect::<Result<_>>()?;
            match on_gpu(gpu, flows, (adam, products), &codes, params) {
                Ok(found) => trainers = Some(found),
                Err(Refused::Device(reason)) => why = Some(format!("{device}: {reason}")),
                Err(Refused::Arguments) => {}
            }
        }
        let trainers = match trainers {
            Some(trainers) => trainers,
            None => {
                let trainer = |l| Ok(LinearTrainer::with_products(flow(l)?, adam, products)?);
                let all = (0..sizes.len()).map(trainer).map(|t: Result<_>| t.map(|t| Trainer::Cpu(Box::new(t))));
                all.collect::<Result<Vec<_>>>()?
            }
        };
        let layers = params.layers.iter().zip(sizes).zip(codes).zip(trainers);
        let layers = layers.map(|(((name, size), codes), trainer)| Layer {
            name: name.clone(),
            channels: size.2,
            codes,
            trainer,
        });
        Ok(Decoders { params, material, layers: layers.collect(), device: device.clone(), why })
    }
}

/// All flows on a GPU, or none.
fn on_gpu(
    gpu: &Gpu,
    flows: Vec<Flow>,
    (adam, products): (Adam, Products),
    codes: &[Vec<f32>],
    params: &CflowParams,
) -> Tried<Vec<Trainer>> {
    let one = |(flow, codes): (Flow, &Vec<f32>)| {
        let batches = (codes.as_slice(), params.image_batch, params.fibre_batch);
        Ok(Trainer::Gpu(Box::new(linear::trainer(gpu, flow, adam, products, batches)?)))
    };
    flows.into_iter().zip(codes).map(one).collect()
}

impl Learner for Decoders<'_> {
    fn epoch(&mut self, epoch: usize, lr: f32, batch: &dyn Fn() -> Result<()>) -> Result<f64> {
        let Material { seed, features, split, .. } = self.material;
        let mut order = split.train.clone();
        order.shuffle(&mut stream(*seed, [epoch, 0, 0]));
        let mut total: Losses = (0.0, 0);
        let together = Trainer::side_by_side(self.layers.iter().map(|layer| &layer.trainer));
        for (b, pictures) in order.chunks(self.params.image_batch).enumerate() {
            let maps = features.get(pictures)?;
            let train = |(l, layer): (usize, &mut Layer)| {
                let maps: Vec<&[f32]> = maps.iter().map(|maps| maps[l].as_slice()).collect();
                let mut rng = stream(*seed, [epoch, b + 1, l + 1]);
                layer.train(&maps, self.params, lr, &mut rng).map_err(|error| match error {
                    FlowDetectorError::Flow(error) => FlowDetectorError::in_epoch(error, epoch, &layer.name),
                    other => other,
                })
            };
            let losses: Vec<Losses> = if together {
                self.layers.par_iter_mut().enumerate().map(train).collect::<Result<_>>()?
            } else {
                self.layers.iter_mut().enumerate().map(train).collect::<Result<_>>()?
            };
            losses.iter().for_each(|(loss, steps)| total = (total.0 + loss, total.1 + steps));
            batch()?;
        }
        Ok(total.0 / total.1.max(1) as f64)
    }

    fn model(&self, curve: &[Epoch]) -> Result<Box<dyn Detect>> {
        let (params, material) = (self.params, self.material);
        let flows: Vec<Flow> = self.layers.iter().map(|layer| layer.trainer.flow().clone()).collect();
        let flows = Flows::new(flows, &self.device);
        let maxima = maxima(&flows, params, material, &Session::quiet(material.seed))?;
        let embedder = material.embedder.clone();
        Ok(Box::new(Cflow::new(embedder, flows, maxima, params, material.pictures, curve.to_vec())))
    }

    fn validate(&self) -> Result<Option<f64>> {
        let Material { features, split, .. } = self.material;
        if split.validation.is_empty() {
            return Ok(None);
        }
        let mut total = 0.0;
        for pictures in split.validation.chunks(self.params.image_batch) {
            for maps in features.get(pictures)? {
                for (layer, x) in self.layers.iter().zip(maps.iter()) {
                    let likelihoods = layer.trainer.log_likelihoods(x, &layer.codes)?;
                    // -ln(sigmoid(l)), stable at both ends.
                    let loss = |l: &f32| f64::from((-l).max(0.0) + (-l.abs()).exp().ln_1p());
                    total += likelihoods.iter().map(loss).sum::<f64>() / likelihoods.len() as f64;
                }
            }
        }
        Ok(Some(total / (split.validation.len() * self.layers.len()) as f64))
    }

    fn batches(&self) -> usize {
        self.material.batches(self.params.image_batch)
    }

    fn bring(&mut self) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.trainer.bring())
    }

    fn parts(&self) -> Vec<(&dyn Module, &AdamState)> {
        self.layers.iter().map(|l| (l.trainer.flow() as &dyn Module, l.trainer.state())).collect()
    }

    fn restore(&mut self, parts: Vec<(Weights, AdamState)>) -> Result<()> {
        for (layer, (weights, state)) in self.layers.iter_mut().zip(parts) {
            let mut flow = layer.trainer.flow().clone();
            put(&mut flow, weights)?;
            layer.trainer.resume(flow, state)?;
        }
        Ok(())
    }

    fn leave_gpu(&mut self, epoch: usize, error: &FlowDetectorError) -> Result<bool> {
        let on_gpu = self.layers.iter().any(|layer| layer.trainer.on_gpu());
        let Some(reason) = failure(error).filter(|_| on_gpu) else { return Ok(false) };
        for Layer { trainer, .. } in &mut self.layers {
            let (flow, state) = (trainer.flow().clone(), trainer.state().clone());
            let mut here = LinearTrainer::with_products(flow.clone(), self.params.adam(), self.params.products()?)?;
            // Before the first epoch has ended there is none.
            if !state.exp_avg.is_empty() {
                here.resume(flow, state)?;
            }
            *trainer = Trainer::Cpu(Box::new(here));
        }
        let gpu = std::mem::replace(&mut self.device, Device::cpu());
        self.why = Some(format!("{gpu}, from epoch {epoch} on: {reason}"));
        Ok(true)
    }
}

impl Layer {
    /// One step for each batch of shuffled feature vectors of these maps.
    fn train(
        &mut self,
        maps: &[&[f32]],
        params: &CflowParams,
        lr: f32,
        rng: &mut rand_chacha::ChaCha8Rng,
    ) -> Result<Losses> {
        let positions = self.codes.len() / params.condition;
        let mut fibres: Vec<u32> = (0..(maps.len() * positions) as u32).collect();
        fibres.shuffle(rng);
        let order = Order {
            fibres: &fibres,
            each: params.fibre_batch,
            leftovers: params.mode == Mode::Anomalib,
            widths: [self.channels, params.condition],
        };
        self.trainer.train(maps, &self.codes, &order, lr)
    }
}
