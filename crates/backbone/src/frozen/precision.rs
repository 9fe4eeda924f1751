//! What a network computes in.

use std::sync::Mutex;

use blemish_kernels::gemm::Isa;
use ndarray::ArrayView4;
use serde::{Deserialize, Serialize};

use super::fold::{self, Cpu, Kind};
use super::stages::Halves;
use super::{Backbone, Engine};
use crate::{BackboneError, Result};

/// The numbers a network computes with. Features are `f32` in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Maps and most weights in bf16 (8 bits of mantissa), sums in `f32`. Needs AVX-512 with BF16. The first layers of mobile
    /// networks and EfficientNet stay in `f32`.
    Bf16,
    /// Dense convolutions on bytes with exact sums, after [`Backbone::calibrate`]; all else in `f32`, and the first layers
    /// of mobile networks and EfficientNet.
    Int8,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

    /// Whether this processor can compute in it; `f32` takes its place where not.
    pub fn is_available(self) -> bool {
        self != Precision::Bf16 || Isa::bf16().is_some()
    }

    /// As in settings: `f32`, `bf16`, `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Precision::ALL.into_iter().find(|p| p.name() == text);
        found.ok_or_else(|| format!("unknown precision '{text}'; the choices are f32, bf16, int8"))
    }
}

/// The smallest and largest value of each map of a network, over the pictures it has seen; what [`Precision::Int8`] needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<[f32; 2]>);

impl Ranges {
    /// The ranges over the pictures of both; exact, in any order.
    #[must_use]
    pub fn merge(mut self, other: &Ranges) -> Ranges {
        if self.0.is_empty() {
            return other.clone();
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = [mine[0].min(theirs[0]), mine[1].max(theirs[1])];
        }
        self
    }

    /// Low and high of each map, in order of execution, beginning with the picture.
    pub fn maps(&self) -> &[[f32; 2]] {
        &self.0
    }
}

impl Backbone {
    /// The network in another precision. [`Precision::Int8`] takes effect with [`calibrate`](Self::calibrate).
    ///
    /// # Errors
    /// Weights that overflow with their batch norm.
    pub fn with_precision(mut self, precision: Precision) -> Result<Self> {
        self.precision = precision;
        self.rebuild()?;
        Ok(self)
    }

    /// What was asked for.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What it computes in: [`Precision::F32`] in place of bf16 where the processor lacks the instructions, and in place of
    /// int8 until it is calibrated.
    pub fn computes_in(&self) -> Precision {
        match (self.precision, &self.calibration) {
            (asked, _) if !asked.is_available() => Precision::F32,
            (Precision::Int8, None) => Precision::F32,
            (asked, _) => asked,
        }
    }

    /// The range of each map over normalised pictures `[n, height, width, 3]`, in single precision.
    ///
    /// # Errors
    /// As [`features`](Self::features), and where a value is not finite.
    pub fn ranges(&self, input: ArrayView4<'_, f32>) -> Result<Ranges> {
        let mut ranges = vec![[f32::INFINITY, f32::NEG_INFINITY]; self.graph.nodes.len()];
        let mut see = |id: usize, map: &[f32]| {
            // The sum is NaN or infinite if a value is.
            let range = map.iter().fold([f32::INFINITY, f32::NEG_INFINITY, 0.0], |[low, high, sum], &x| {
                [low.min(x), high.max(x), sum + x * 0.0]
            });
            let broken = if range[2] == 0.0 { 0.0 } else { f32::NAN };
            ranges[id] = [ranges[id][0].min(range[0]) + broken, ranges[id][1].max(range[1]) + broken];
        };
        let (single, steps);
        let steps = match &self.engine {
            Engine::Single { steps, .. } if self.computes_in() == Precision::F32 => steps,
            _ => {
                single =
                    fold::steps(self.net.id, &self.graph, &self.weights, &Cpu { net: self.net.id, kind: Kind::F32 })?;
                steps = single;
                &steps
            }
        };
        self.witness(input, steps, &mut see)?;
        if ranges.iter().flatten().any(|x| !x.is_finite()) {
            let (n, h, w, c) = input.dim();
            let wanted = "pictures whose maps are finite, to calibrate with".to_owned();
            return Err(BackboneError::Input { net: self.net.id, wanted, got: [n, h, w, c] });
        }
        Ok(Ranges(ranges))
    }

    /// Chooses the levels of [`Precision::Int8`] by normalised pictures `[n, height, width, 3]`.
    ///
    /// # Errors
    /// As [`ranges`](Self::ranges).
    pub fn calibrate(&mut self, input: ArrayView4<'_, f32>) -> Result<()> {
        let ranges = self.ranges(input)?;
        self.set_calibration(ranges)
    }

    /// Chooses the levels of [`Precision::Int8`] by ranges from [`ranges`](Self::ranges).
    ///
    /// # Errors
    /// [`BackboneError::Calibration`] if they are those of another network.
    pub fn set_calibration(&mut self, ranges: Ranges) -> Result<()> {
        let finite = ranges.0.iter().all(|&[low, high]| low.is_finite() && high.is_finite() && low <= high);
        if ranges.0.len() != self.graph.nodes.len() || !finite {
            let (net, wanted, got) = (self.net.id, self.graph.nodes.len(), ranges.0.len());
            return Err(BackboneError::Calibration { net, wanted, got });
        }
        self.calibration = Some(ranges);
        self.rebuild()
    }

    /// The ranges it was calibrated with.
    pub fn calibration(&self) -> Option<&Ranges> {
        self.calibration.as_ref()
    }

    fn rebuild(&mut self) -> Result<()> {
        let exact = self.graph.exact;
        let kind = match (self.computes_in(), &self.calibration) {
            (Precision::Bf16, _) => Kind::Bf16 { exact },
            (Precision::Int8, Some(ranges)) => Kind::Int8 { ranges: &ranges.0, exact },
            _ => Kind::F32,
        };
        let steps = fold::steps(self.net.id, &self.graph, &self.weights, &Cpu { net: self.net.id, kind })?;
        self.engine = match kind {
            Kind::Bf16 { exact } => Engine::Half(Box::new(Halves::new(&self.graph, steps, &self.taps, exact))),
            _ => Engine::Single { steps, arenas: Mutex::default() },
        };
        Ok(())
    }
}
