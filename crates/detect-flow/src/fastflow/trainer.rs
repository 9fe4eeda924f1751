//! A flow in training, on the CPU or on a GPU.

use blemish_flow::{ConvTrainer, MapFlow};
use blemish_grad::optim::AdamState;

use crate::Result;
use crate::device::maps;

pub(super) enum Trainer {
    Cpu(Box<ConvTrainer>),
    Gpu(Box<maps::MapTrainer>),
}

impl Trainer {
    /// A step on maps `[h, w, c]` of the pictures with these numbers; returns the loss before it.
    pub(super) fn step(&mut self, maps: &[&[f32]], pictures: &[usize], lr: f32) -> Result<f32> {
        Ok(match self {
            Trainer::Cpu(trainer) => trainer.step(maps, lr)?,
            Trainer::Gpu(trainer) => trainer.step(maps, pictures, lr)?,
        })
    }

    /// The losses of maps, if it is on a GPU.
    pub(super) fn losses(&self, maps: &[&[f32]]) -> Result<Option<Vec<f64>>> {
        match self {
            Trainer::Cpu(_) => Ok(None),
            Trainer::Gpu(trainer) => Ok(Some(trainer.latents(maps)?.iter().map(|latent| latent.loss).collect())),
        }
    }

    /// Makes [`model`](Self::model) and [`state`](Self::state) what they are now.
    pub(super) fn bring(&mut self) -> Result<()> {
        match self {
            Trainer::Cpu(_) => Ok(()),
            Trainer::Gpu(trainer) => Ok(trainer.bring(true)?),
        }
    }

    pub(super) fn model(&self) -> &MapFlow {
        match self {
            Trainer::Cpu(trainer) => trainer.model(),
            Trainer::Gpu(trainer) => trainer.model(),
        }
    }

    pub(super) fn state(&self) -> &AdamState {
        match self {
            Trainer::Cpu(trainer) => trainer.state(),
            Trainer::Gpu(trainer) => trainer.state(),
        }
    }

    pub(super) fn resume(&mut self, model: MapFlow, state: AdamState) -> Result<()> {
        match self {
            Trainer::Cpu(trainer) => trainer.resume(model, state)?,
            Trainer::Gpu(trainer) => trainer.resume(model, state)?,
        }
        Ok(())
    }

    pub(super) fn into_model(self) -> Result<MapFlow> {
        Ok(match self {
            Trainer::Cpu(trainer) => trainer.into_model(),
            Trainer::Gpu(trainer) => trainer.into_model()?,
        })
    }

    pub(super) fn on_gpu(&self) -> bool {
        matches!(self, Trainer::Gpu(_))
    }
}
