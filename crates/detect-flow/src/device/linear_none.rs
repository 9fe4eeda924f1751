//! In a program without GPU code: no value of these types exists.

use blemish_embed::Maps;
use blemish_flow::{Flow, Products};
use blemish_grad::optim::{Adam, AdamState};

use super::{Gpu, Tried};
use crate::features::Size;

type Found<T> = Result<T, blemish_flow::FlowError>;

pub(crate) enum LinearTrainer {}

pub(crate) fn trainer(gpu: &Gpu, _: Flow, _: Adam, _: Products, _: (&[f32], usize, usize)) -> Tried<LinearTrainer> {
    match *gpu {}
}

impl LinearTrainer {
    pub(crate) fn train(&mut self, _: &[&[f32]], _: &[u32], _: bool, _: f32) -> Found<(f64, usize)> {
        match *self {}
    }

    pub(crate) fn log_likelihoods(&self, _: &[f32]) -> Found<Vec<f32>> {
        match *self {}
    }

    pub(crate) fn bring(&mut self, _: bool) -> Found<()> {
        match *self {}
    }

    pub(crate) fn flow(&self) -> &Flow {
        match *self {}
    }

    pub(crate) fn state(&self) -> &AdamState {
        match *self {}
    }

    pub(crate) fn resume(&mut self, _: Flow, _: AdamState) -> Found<()> {
        match *self {}
    }

    pub(crate) fn into_flow(self) -> Found<Flow> {
        match self {}
    }
}

pub(crate) enum Likelihoods {}

impl Likelihoods {
    pub(crate) fn new(gpu: &Gpu, _: &[Flow]) -> Tried<Likelihoods> {
        match *gpu {}
    }

    pub(crate) fn of(&self, _: &Maps, _: &[Vec<f32>]) -> Tried<Vec<Vec<f32>>> {
        match *self {}
    }

    pub(crate) fn of_picture(&self, _: &[Vec<f32>], _: &[Size], _: &[Vec<f32>]) -> Tried<Vec<Vec<f32>>> {
        match *self {}
    }
}
