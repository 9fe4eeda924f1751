//! In a program without GPU code: no value of these types exists.

use super::{
    Array3, ArrayView2, ArrayView4, Device, KCenter, Layout, MeansAndFactors, Neighbors, SparseProjection, Tables,
};
use crate::Result;

#[derive(Debug)]
pub(crate) enum Gpu {}
#[derive(Debug)]
pub(crate) enum Bank {}
#[derive(Debug)]
pub(crate) enum Gaussians {}
pub(crate) enum Moments {}

pub(super) fn of(_: &Device) -> Option<&Gpu> {
    None
}

pub(super) fn searches(_: usize) -> bool {
    false
}

impl Bank {
    pub(super) fn search(&self, _: ArrayView2<'_, f32>, _: ArrayView2<'_, f32>, _: usize) -> Result<Option<Neighbors>> {
        match *self {}
    }
}

pub(super) fn bank(gpu: &Gpu, _: ArrayView2<'_, f32>) -> Result<Option<Bank>> {
    match *gpu {}
}

pub(super) fn coreset(
    gpu: &Gpu,
    _: ArrayView2<'_, f32>,
    _: Option<&SparseProjection>,
    _: usize,
    _: usize,
    _: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<KCenter>> {
    match *gpu {}
}

impl Moments {
    pub(super) fn layout(&self) -> &Layout {
        match *self {}
    }

    pub(super) fn push(&mut self, _: &[ArrayView4<'_, f32>]) -> Result<()> {
        match *self {}
    }

    pub(super) fn finish(self, _: f64) -> Result<MeansAndFactors> {
        match self {}
    }
}

pub(super) fn moments(gpu: &Gpu, _: &Layout) -> Result<Option<Moments>> {
    match *gpu {}
}

impl Gaussians {
    pub(super) fn distance(&self, _: &Layout, _: &[ArrayView4<'_, f32>]) -> Result<Array3<f32>> {
        match *self {}
    }
}

pub(super) fn gaussians(gpu: &Gpu, _: &Layout, _: &[&[f32]], _: Tables<'_>) -> Result<Option<Gaussians>> {
    match *gpu {}
}
