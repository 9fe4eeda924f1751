use std::path::PathBuf;

use blemish_core::Preprocess;
use blemish_embed::Precision;
use blemish_flow::FlowSpec;
use blemish_grad::optim::{Adam, Schedule};
use serde::{Deserialize, Serialize};

use super::MapOf;
use crate::settings::settings;
use crate::{FlowDetectorError, Mode, Result};

/// Settings of FastFlow. The default is anomalib's, but for what the map shows and for early stopping, which looks at good pictures
/// held out and not at the test set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FastflowParams {
    /// The network, by timm's name.
    pub backbone: String,
    /// Its layers, one flow for each (section 4.2: the first three stages of a ResNet).
    pub layers: Vec<String>,
    /// The network's weights; untrained ones from the session's seed without a file.
    pub weights: Option<PathBuf>,
    /// What the network computes in; int8 is calibrated with the first pictures, at most 64.
    pub precision: Precision,
    /// Coupling blocks of each flow (section 4.2).
    pub steps: usize,
    /// 3x3 convolutions throughout; 3x3 and 1x1 in turn otherwise (section 3.2).
    pub conv3x3_only: bool,
    /// Hidden channels of a subnet over its input channels.
    pub hidden_ratio: f64,
    /// Bound of the log-scales.
    pub clamp: f32,
    /// What the map shows. The likelihood was better, by far in pixels, at defects pasted into good pictures of Screw held out
    /// (`examples/study.rs`).
    pub map: MapOf,
    /// Standard deviation of a blur of the map, in pixels; 0 for none, as in the paper and in anomalib. It helps maps of latents (4
    /// is what PaDiM and PatchCore have), not those of likelihoods.
    pub sigma: f32,
    /// Pictures of one step.
    pub image_batch: usize,
    /// Step size of Adam.
    pub lr: f32,
    /// Weight decay, added to the gradient.
    pub weight_decay: f32,
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
    /// Whose reading of the paper: with a layer norm over the features (anomalib) or without (the paper does not speak of one).
    pub mode: Mode,
    /// How pictures become network input.
    pub preprocess: Preprocess,
    /// Pictures that go through the network together.
    pub batch_size: usize,
}

impl Default for FastflowParams {
    fn default() -> Self {
        FastflowParams {
            backbone: "resnet18".to_owned(),
            layers: ["layer1", "layer2", "layer3"].map(str::to_owned).to_vec(),
            weights: None,
            precision: Precision::F32,
            steps: 8,
            conv3x3_only: false,
            hidden_ratio: 1.0,
            clamp: 2.0,
            map: MapOf::Likelihood,
            sigma: 0.0,
            image_batch: 32,
            lr: 1e-3,
            weight_decay: 1e-5,
            schedule: Schedule::Constant,
            epochs: 500,
            validation_share: 0.1,
            patience: Some(3),
            checkpoint: None,
            resume: false,
            cache_gigabytes: 4.0,
            mode: Mode::Anomalib,
            preprocess: Preprocess::default(),
            batch_size: 8,
        }
    }
}

impl FastflowParams {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`FlowDetectorError::Params`] naming the first field outside its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |name, why: String| Err(FlowDetectorError::Params { name, why });
        if !(1..=64).contains(&self.steps) {
            return bad("steps", format!("{}; 1 to 64", self.steps));
        }
        if !(self.hidden_ratio > 0.0 && self.hidden_ratio <= 8.0) {
            return bad("hidden_ratio", format!("{}; above 0 and at most 8", self.hidden_ratio));
        }
        if !(0.0..=1000.0).contains(&self.sigma) {
            return bad("sigma", format!("{}; 0 to 1000 pixels", self.sigma));
        }
        if !(0.0..=1.0).contains(&self.weight_decay) {
            return bad("weight_decay", format!("{}; 0 to 1", self.weight_decay));
        }
        settings!(self).validate()
    }

    pub(super) fn adam(&self) -> Adam {
        Adam { lr: self.lr, weight_decay: self.weight_decay, ..Adam::default() }
    }

    pub(super) fn spec(&self, channels: usize) -> FlowSpec {
        FlowSpec {
            clamp: self.clamp,
            ..FlowSpec::convolutional(channels, self.steps, self.hidden_ratio, self.conv3x3_only)
        }
    }
}
