use std::path::PathBuf;

use blemish_core::Preprocess;
use blemish_embed::Precision;
use blemish_flow::{FlowSpec, Products};
use blemish_grad::optim::{Adam, Schedule};
use serde::{Deserialize, Serialize};

use crate::settings::settings;
use crate::{FlowDetectorError, Mode, Result};

/// Settings of CFlow-AD. The default is anomalib's, but for the step size, for bf16 in the products of training, and for early
/// stopping, which looks at good pictures held out and not at the test set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CflowParams {
    /// The network, by timm's name.
    pub backbone: String,
    /// Its layers, one flow for each (section 4.1: the last three stages of a ResNet).
    pub layers: Vec<String>,
    /// The network's weights; untrained ones from the session's seed without a file.
    pub weights: Option<PathBuf>,
    /// What the network computes in; int8 is calibrated with the first pictures, at most 64.
    pub precision: Precision,
    /// What the products of the flows' layers are computed in while they are trained: bf16, with sums, weights and all else in
    /// `f32`, or all in `f32`, as on a processor without AVX-512 BF16 or a GPU before compute capability 8.0. Scores are always computed in `f32`.
    pub flow_precision: Precision,
    /// Coupling blocks of each flow (section 4.1).
    pub blocks: usize,
    /// Channels of the position's code, a multiple of four (section 4.1).
    pub condition: usize,
    /// Bound of the log-scales.
    pub clamp: f32,
    /// Rotations instead of permutations between the blocks, as the authors' code has them.
    pub soft_mixing: bool,
    /// Feature vectors of one step.
    pub fibre_batch: usize,
    /// Pictures whose feature vectors are shuffled together.
    pub image_batch: usize,
    /// Step size of Adam: four times anomalib's 1e-4 and twice that of the authors' code, as was best at defects pasted into
    /// good pictures of Screw held out (`examples/study.rs`).
    pub lr: f32,
    /// The learning rate from epoch to epoch.
    pub schedule: Schedule,
    /// Most passes over the pictures.
    pub epochs: usize,
    /// Share of the pictures held out to see when to stop, 0 to below 1.
    pub validation_share: f64,
    /// Stop after this many epochs without a lower loss of the pictures held out, and take the best epoch; none trains all.
    pub patience: Option<usize>,
    /// Written after every epoch.
    pub checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint, if it is there.
    pub resume: bool,
    /// Memory for the features, in gigabytes; beyond it they are computed again in every epoch, with the same result.
    pub cache_gigabytes: f64,
    /// Whose reading of the paper.
    pub mode: Mode,
    /// How pictures become network input.
    pub preprocess: Preprocess,
    /// Pictures that go through the network together.
    pub batch_size: usize,
}

impl Default for CflowParams {
    fn default() -> Self {
        CflowParams {
            backbone: "wide_resnet50_2".to_owned(),
            layers: ["layer2", "layer3", "layer4"].map(str::to_owned).to_vec(),
            weights: None,
            precision: Precision::F32,
            flow_precision: Precision::Bf16,
            blocks: 8,
            condition: 128,
            clamp: 1.9,
            soft_mixing: false,
            fibre_batch: 64,
            image_batch: 32,
            lr: 4e-4,
            schedule: Schedule::Constant,
            epochs: 50,
            validation_share: 0.1,
            patience: Some(2),
            checkpoint: None,
            resume: false,
            cache_gigabytes: 4.0,
            mode: Mode::Anomalib,
            preprocess: Preprocess::default(),
            batch_size: 8,
        }
    }
}

impl CflowParams {
    /// The settings of the authors' code: 256 vectors a step, rotations, 25 times 8 epochs with a cosine after a warm-up.
    pub fn paper() -> Self {
        CflowParams {
            soft_mixing: true,
            fibre_batch: 256,
            lr: 2e-4,
            schedule: Schedule::Cosine { total: 200, floor: 1e-3, warm_up: 16, start: 0.1 },
            epochs: 200,
            patience: None,
            mode: Mode::Paper,
            ..CflowParams::default()
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`FlowDetectorError::Params`] naming the first field outside its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |name, why: String| Err(FlowDetectorError::Params { name, why });
        if !(1..=64).contains(&self.blocks) {
            return bad("blocks", format!("{}; 1 to 64", self.blocks));
        }
        if !self.condition.is_multiple_of(4) || !(4..=4096).contains(&self.condition) {
            return bad("condition", format!("{}; a multiple of four from 4 to 4096", self.condition));
        }
        if self.fibre_batch == 0 {
            return bad("fibre_batch", "0; at least 1".to_owned());
        }
        self.products()?;
        settings!(self).validate()
    }

    pub(super) fn adam(&self) -> Adam {
        Adam { lr: self.lr, ..Adam::default() }
    }

    pub(super) fn spec(&self, channels: usize) -> FlowSpec {
        FlowSpec {
            clamp: self.clamp,
            soft_mixing: self.soft_mixing,
            ..FlowSpec::linear(channels, self.condition, self.blocks)
        }
    }

    /// What the flows are trained in.
    pub(super) fn products(&self) -> Result<Products> {
        match self.flow_precision {
            Precision::F32 => Ok(Products::F32),
            Precision::Bf16 => Ok(Products::Bf16),
            other => {
                let why = format!("{other}; f32 or bf16, flows cannot be trained in {other}");
                Err(FlowDetectorError::Params { name: "flow_precision", why })
            }
        }
    }
}
