//! In a program without GPU code: no value of these types exists.

use super::{ArrayView2, Fitted, KCenter, Layout, Maps, Neighbors, Source, SparseProjection, Tables, Tried, Upsampled};
use crate::{Mode, Result};
use blemish_embed::device::Gpu;

#[derive(Debug)]
pub(crate) enum Bank {}
#[derive(Debug)]
pub(crate) enum Gaussians {}
pub(crate) enum Moments {}
pub(crate) enum Patches {}
pub(crate) enum Store {}

pub(super) fn searches(_: usize) -> bool {
    false
}

impl Bank {
    pub(super) fn search(&self, _: ArrayView2<'_, f32>, _: ArrayView2<'_, f32>, _: usize) -> Tried<Neighbors> {
        match *self {}
    }

    pub(super) fn search_there(&self, _: &Patches) -> Tried<(Vec<u32>, Vec<f32>)> {
        match *self {}
    }
}

pub(super) fn bank(gpu: &Gpu, _: ArrayView2<'_, f32>) -> Tried<Bank> {
    match *gpu {}
}

impl Patches {
    pub(super) fn dim(&self) -> (usize, usize) {
        match *self {}
    }

    pub(super) fn read(&self, _: usize, _: &mut [f32]) -> Tried<()> {
        match *self {}
    }
}

pub(super) fn patches(_: &Maps, _: Mode) -> Option<Tried<Patches>> {
    None
}

pub(super) fn store(first: &Patches, _: usize) -> Tried<Store> {
    match *first {}
}

impl Store {
    pub(super) fn dim(&self) -> (usize, usize) {
        match *self {}
    }

    pub(super) fn is_full(&self) -> bool {
        match *self {}
    }

    pub(super) fn push(&mut self, _: &Patches) -> Tried<()> {
        match *self {}
    }

    pub(super) fn select(&self, _: &[u32]) -> Tried<Vec<f32>> {
        match *self {}
    }

    pub(super) fn all(&self) -> Tried<Vec<f32>> {
        match *self {}
    }

    pub(super) fn coreset(
        &self,
        _: Option<&SparseProjection>,
        _: usize,
        _: usize,
        _: &mut dyn FnMut(usize) -> bool,
    ) -> Tried<KCenter> {
        match *self {}
    }
}

pub(super) fn coreset(
    gpu: &Gpu,
    _: ArrayView2<'_, f32>,
    _: Option<&SparseProjection>,
    _: usize,
    _: usize,
    _: &mut dyn FnMut(usize) -> bool,
) -> Tried<KCenter> {
    match *gpu {}
}

impl Moments {
    pub(super) fn layout(&self) -> &Layout {
        match *self {}
    }

    pub(super) fn push(&mut self, _: Source<'_>) -> Result<()> {
        match *self {}
    }

    pub(super) fn finish(self, _: f64) -> Result<(Vec<Vec<f32>>, Fitted)> {
        match self {}
    }
}

pub(super) fn moments(gpu: &Gpu, _: &Layout) -> Tried<Moments> {
    match *gpu {}
}

impl Gaussians {
    pub(super) fn weights(&self) -> Tried<Vec<Vec<f32>>> {
        match *self {}
    }

    pub(super) fn distance(&self, _: Source<'_>) -> Tried<Vec<f32>> {
        match *self {}
    }

    pub(super) fn upsampled(&self, _: Source<'_>, _: (usize, usize), _: &Upsampled) -> Tried<Vec<f32>> {
        match *self {}
    }
}

pub(super) fn gaussians(gpu: &Gpu, _: &Layout, _: &[&[f32]], _: Tables<'_>) -> Tried<Gaussians> {
    match *gpu {}
}
