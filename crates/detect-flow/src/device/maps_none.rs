//! In a program without GPU code: no value of these types exists.

use blemish_embed::Maps;
use blemish_flow::{FlowError, Latent, MapFlow};
use blemish_grad::optim::{Adam, AdamState};

use super::{Gpu, Tried};

type Found<T> = Result<T, FlowError>;

pub(crate) enum MapTrainer {}

pub(crate) fn trainer(gpu: &Gpu, _: MapFlow, _: Adam, _: usize) -> Tried<MapTrainer> {
    match *gpu {}
}

impl MapTrainer {
    pub(crate) fn hold<'m>(&mut self, _: &Gpu, _: impl ExactSizeIterator<Item = &'m [f32]>) -> Tried<()> {
        match *self {}
    }

    pub(crate) fn step(&mut self, _: &[&[f32]], _: &[usize], _: f32) -> Found<f32> {
        match *self {}
    }

    pub(crate) fn latents(&self, _: &[&[f32]]) -> Found<Vec<Latent>> {
        match *self {}
    }

    pub(crate) fn bring(&mut self, _: bool) -> Found<()> {
        match *self {}
    }

    pub(crate) fn model(&self) -> &MapFlow {
        match *self {}
    }

    pub(crate) fn state(&self) -> &AdamState {
        match *self {}
    }

    pub(crate) fn resume(&mut self, _: MapFlow, _: AdamState) -> Found<()> {
        match *self {}
    }

    pub(crate) fn into_model(self) -> Found<MapFlow> {
        match self {}
    }
}

pub(crate) enum Latents {}

impl Latents {
    pub(crate) fn new<'m>(gpu: &Gpu, _: impl Iterator<Item = &'m MapFlow>) -> Tried<Latents> {
        match *gpu {}
    }

    pub(crate) fn of(&self, _: &Maps) -> Tried<Vec<Vec<Latent>>> {
        match *self {}
    }

    pub(crate) fn of_picture(&self, _: &[Vec<f32>]) -> Tried<Vec<Latent>> {
        match *self {}
    }
}
