use std::sync::OnceLock;

use blemish_core::{ModelFile, ModelWriter};
use blemish_embed::Maps;
use blemish_kernels::mahalanobis::{Layout, LowRank};
use blemish_tensor::{Device, Tensor};
use ndarray::{Array1, Array2, Array3, Array4};
use serde::{Deserialize, Serialize};

use super::Form;
use crate::Result;
use crate::device::{Fitted, KeptGaussians, Measure, Source, Tables, Upsampled, weights_there};

/// A Gaussian for each position of the grid; the distances of new pictures from it (section III.C).
#[derive(Debug)]
pub struct Gaussians {
    maps: Vec<[usize; 3]>,
    layout: Layout,
    epsilon: f64,
    /// `[groups, rows]` for each level of the layout.
    mean: Vec<Tensor>,
    factors: Factors,
    kept: KeptGaussians,
}

#[derive(Debug)]
enum Factors {
    /// Packed rows of inverse Cholesky factors, a tensor for each level; until they are asked for, those that were learnt on a GPU
    /// are there alone.
    Triangles(OnceLock<Vec<Tensor>>),
    /// `[groups, k, d]` and `[groups, k]`, for the groups of the last level.
    LowRank { basis: Tensor, scale: Tensor },
}

/// The metadata in a model file.
#[derive(Serialize, Deserialize)]
struct Stored {
    form: Form,
    maps: Vec<[usize; 3]>,
    epsilon: f64,
}

impl Gaussians {
    pub(super) fn triangles(
        maps: Vec<[usize; 3]>,
        layout: Layout,
        epsilon: f64,
        mean: Vec<Vec<f32>>,
        fitted: Fitted,
    ) -> Result<Self> {
        let (weights, kept) = match fitted {
            Fitted::Here(weights) => (OnceLock::from(flat(weights)?), KeptGaussians::default()),
            Fitted::There(kept) => (OnceLock::new(), *kept),
        };
        let mean = means(&layout, mean)?;
        Ok(Gaussians { maps, layout, epsilon, mean, factors: Factors::Triangles(weights), kept })
    }

    pub(super) fn low_rank(
        maps: Vec<[usize; 3]>,
        layout: Layout,
        epsilon: f64,
        (mean, basis, scale): LowRank,
    ) -> Result<Self> {
        let (groups, d) = (layout.groups(layout.levels() - 1), layout.channels().len());
        let k = scale.len() / groups;
        let basis = Tensor::from_vec(vec![groups, k, d], basis)?;
        let scale = Tensor::from_vec(vec![groups, k], scale)?;
        let mean = means(&layout, mean)?;
        Ok(Gaussians {
            maps,
            layout,
            epsilon,
            mean,
            factors: Factors::LowRank { basis, scale },
            kept: KeptGaussians::default(),
        })
    }

    /// Measures distances on `device` from now on. Factors that are on another GPU alone come to the CPU first.
    pub fn use_device(&mut self, device: &Device) {
        if !self.kept.is_on(device)
            && let Factors::Triangles(weights) = &self.factors
        {
            // What cannot be brought is missed when it is asked for.
            let _ = self.weights(weights);
        }
        self.kept.use_device(device);
    }

    fn weights<'a>(&self, weights: &'a OnceLock<Vec<Tensor>>) -> Result<&'a [Tensor]> {
        if weights.get().is_none() {
            // Another thread may have been faster, with the same.
            let _ = weights.set(flat(weights_there(&self.kept)?)?);
        }
        Ok(weights.get().map_or(&[][..], Vec::as_slice))
    }

    /// The form they are kept in; never [`Form::Auto`].
    pub fn form(&self) -> Form {
        let (height, width) = self.grid();
        match &self.factors {
            Factors::LowRank { .. } => Form::LowRank,
            // Where nothing is shared both are the same thing.
            Factors::Triangles(_) if self.layout.levels() == 1 && self.layout.groups(0) == height * width => {
                Form::Triangle
            }
            Factors::Triangles(_) => Form::Nested,
        }
    }

    /// Height and width of the grid.
    pub fn grid(&self) -> (usize, usize) {
        self.layout.grid()
    }

    /// The feature maps read, `[height, width, channels]` each.
    pub fn maps(&self) -> &[[usize; 3]] {
        &self.maps
    }

    /// The channels kept, coarsest layer first: the order of [`mean`](Self::mean) and
    /// [`inverse_covariance`](Self::inverse_covariance).
    pub fn channels(&self) -> &[usize] {
        self.layout.channels()
    }

    /// Floats kept for each position, means included.
    pub fn floats_per_position(&self) -> f64 {
        let factors = match &self.factors {
            Factors::Triangles(_) => self.layout.floats(),
            Factors::LowRank { basis, scale } => basis.len() + scale.len(),
        };
        let (height, width) = self.grid();
        (factors + self.mean.iter().map(Tensor::len).sum::<usize>()) as f64 / (height * width) as f64
    }

    /// In words, where distances are measured.
    pub(super) fn placement(&self) -> String {
        self.kept.words()
    }

    /// Distances `[n, height, width]` on the grid of feature maps `[n, h, w, c]`.
    ///
    /// # Errors
    /// Maps of other sizes than those learned from.
    pub fn distance(&self, maps: &[Array4<f32>]) -> Result<Array3<f32>> {
        self.measure(|m| m.distances(Source::Host(maps)))
    }

    /// The distances of maps that are on a GPU, brought to the pictures' size and blurred there; `None` if that has to be
    /// done on the CPU.
    pub(super) fn upsampled(&self, maps: &Maps, how: &Upsampled) -> Result<Option<Array3<f32>>> {
        self.measure(|m| Ok(m.upsampled(maps.into(), how)))
    }

    fn measure<T>(&self, work: impl FnOnce(Measure<'_>) -> Result<T>) -> Result<T> {
        let (kept, layout, mean) = (&self.kept, &self.layout, &slices(&self.mean)?[..]);
        match &self.factors {
            Factors::Triangles(weights) => {
                let weights = || slices(self.weights(weights)?);
                work(Measure { kept, layout, mean, tables: Tables::Triangles(&weights) })
            }
            Factors::LowRank { basis, scale } => {
                let tables = Tables::LowRank(basis.as_slice()?, scale.as_slice()?, self.epsilon as f32);
                work(Measure { kept, layout, mean, tables })
            }
        }
    }

    /// The mean `[d]` at a grid position.
    ///
    /// # Errors
    /// A position outside the grid.
    pub fn mean(&self, y: usize, x: usize) -> Result<Array1<f32>> {
        let mut mean = Vec::with_capacity(self.channels().len());
        for (level, values) in slices(&self.mean)?.iter().enumerate() {
            let n = self.layout.rows(level).len();
            let start = self.layout.group(level, y, x)? * n;
            mean.extend_from_slice(&values[start..start + n]);
        }
        Ok(Array1::from_vec(mean))
    }

    /// The inverse covariance `[d, d]` at a grid position.
    ///
    /// # Errors
    /// A position outside the grid.
    pub fn inverse_covariance(&self, y: usize, x: usize) -> Result<Array2<f64>> {
        match &self.factors {
            Factors::Triangles(weight) => {
                let factor = self.layout.inverse_factor(&slices(self.weights(weight)?)?, y, x)?.mapv(f64::from);
                Ok(factor.t().dot(&factor))
            }
            Factors::LowRank { basis, scale } => {
                let group = self.layout.group(self.layout.levels() - 1, y, x)?;
                let basis = basis.view::<f32, ndarray::Ix3>()?.index_axis_move(ndarray::Axis(0), group).mapv(f64::from);
                let scale = scale.view::<f32, ndarray::Ix2>()?.index_axis_move(ndarray::Axis(0), group).mapv(f64::from);
                let outside = 1.0 / self.epsilon;
                let weighted = &basis * &scale.mapv(|s| s - outside).insert_axis(ndarray::Axis(1));
                Ok(Array2::<f64>::eye(self.channels().len()) * outside + basis.t().dot(&weighted))
            }
        }
    }

    /// Adds everything to a model file, tensors as `padim.*`.
    ///
    /// # Errors
    /// A tensor name used twice.
    pub(super) fn save(&self, file: &mut ModelWriter) -> Result<()> {
        let stored = Stored { form: self.form(), maps: self.maps.clone(), epsilon: self.epsilon };
        file.set("padim.gaussians", &stored)?;
        let channels: Vec<u32> = self.channels().iter().map(|&c| c as u32).collect();
        file.add("padim.channels", Tensor::from_vec(vec![channels.len()], channels)?)?;
        for (level, mean) in self.mean.iter().enumerate() {
            file.add(&format!("padim.mean.{level}"), mean.clone())?;
        }
        match &self.factors {
            Factors::Triangles(weight) => {
                for (level, weight) in self.weights(weight)?.iter().enumerate() {
                    file.add(&format!("padim.weight.{level}"), weight.clone())?;
                }
            }
            Factors::LowRank { basis, scale } => {
                file.add("padim.basis", basis.clone())?;
                file.add("padim.scale", scale.clone())?;
            }
        }
        Ok(())
    }

    /// The Gaussians of a model file; large tensors stay in the mapped file.
    ///
    /// # Errors
    /// Missing or damaged entries.
    pub(super) fn load(file: &ModelFile) -> Result<Self> {
        let Stored { form, maps, epsilon } = file.get("padim.gaussians")?;
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(file.bad(format!("its epsilon is {epsilon}")).into());
        }
        let channels: Vec<usize> =
            file.tensor::<u32>("padim.channels", &[None])?.as_slice::<u32>()?.iter().map(|&c| c as usize).collect();
        let layout = Layout::new(&maps, &channels, form != Form::Triangle).map_err(|e| file.bad(e.to_string()))?;
        if layout.channels() != channels {
            return Err(file.bad("its channels are not in the order of its maps").into());
        }
        let mut mean = Vec::with_capacity(layout.levels());
        for level in 0..layout.levels() {
            let shape = [Some(layout.groups(level)), Some(layout.rows(level).len())];
            mean.push(file.tensor::<f32>(&format!("padim.mean.{level}"), &shape)?.clone());
        }
        let factors = if form == Form::LowRank {
            let (groups, d) = (layout.groups(layout.levels() - 1), channels.len());
            let scale = file.tensor::<f32>("padim.scale", &[Some(groups), None])?.clone();
            let k = scale.shape().get(1).copied();
            Factors::LowRank { basis: file.tensor::<f32>("padim.basis", &[Some(groups), k, Some(d)])?.clone(), scale }
        } else {
            let mut weight = Vec::with_capacity(layout.levels());
            for level in 0..layout.levels() {
                let shape = [Some(layout.weight_len(level))];
                weight.push(file.tensor::<f32>(&format!("padim.weight.{level}"), &shape)?.clone());
            }
            Factors::Triangles(OnceLock::from(weight))
        };
        Ok(Gaussians { maps, layout, epsilon, mean, factors, kept: KeptGaussians::default() })
    }
}

fn means(layout: &Layout, mean: Vec<Vec<f32>>) -> Result<Vec<Tensor>> {
    let shape = |level| vec![layout.groups(level), layout.rows(level).len()];
    let tensors = mean.into_iter().enumerate().map(|(level, m)| Tensor::from_vec(shape(level), m));
    Ok(tensors.collect::<std::result::Result<_, _>>()?)
}

fn flat(weights: Vec<Vec<f32>>) -> Result<Vec<Tensor>> {
    let tensors = weights.into_iter().map(|w| Tensor::from_vec(vec![w.len()], w));
    Ok(tensors.collect::<std::result::Result<_, _>>()?)
}

fn slices(tensors: &[Tensor]) -> Result<Vec<&[f32]>> {
    Ok(tensors.iter().map(Tensor::as_slice).collect::<std::result::Result<_, _>>()?)
}
