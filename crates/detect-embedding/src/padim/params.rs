use std::path::PathBuf;

use blemish_core::Preprocess;
use blemish_embed::Precision;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{EmbeddingError, Mode, Result};

/// How the Gaussians are kept. All forms give the same distances; they differ in size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The smaller of nested and low rank, by counting floats.
    #[default]
    Auto,
    /// Inverse Cholesky factors whose leading rows are shared by the positions that share cells of coarser layers.
    Nested,
    /// A whole inverse Cholesky factor at every position.
    Triangle,
    /// The directions in which the good pictures differ: one fewer than there are pictures.
    LowRank,
}

/// Settings of PaDiM. The default is anomalib's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PadimParams {
    /// The network, by timm's name.
    pub backbone: String,
    /// Its layers (section III.A: the first three stages of a ResNet). The finest one gives the grid.
    pub layers: Vec<String>,
    /// The network's weights; untrained ones from the session's seed without a file.
    pub weights: Option<PathBuf>,
    /// What the network computes in; int8 is calibrated with the first pictures, at most 64.
    pub precision: Precision,
    /// Channels kept (section III.A), drawn from the session's seed. If not given: 100 for `resnet18` and 550 for
    /// `wide_resnet50_2`, as in the paper; for other networks 100, or all if there are fewer.
    pub n_features: Option<usize>,
    /// The channels kept, counted over all layers one after the other, instead of drawn ones. Their order does not matter.
    pub channels: Option<Vec<usize>>,
    /// Added to the diagonal of every covariance (equation 1). anomalib adds another 0.00001, and so does its mode.
    pub epsilon: f64,
    /// How the Gaussians are kept.
    pub form: Form,
    /// Standard deviation of the blur of the map, in pixels; 0 for none.
    pub sigma: f32,
    /// Whose reading of the paper.
    pub mode: Mode,
    /// How pictures become network input. (The paper's code cuts the centre 224 x 224 out of 256 x 256.)
    pub preprocess: Preprocess,
    /// Pictures that go through the network together while learning.
    pub batch_size: usize,
}

impl Default for PadimParams {
    fn default() -> Self {
        PadimParams {
            backbone: "resnet18".to_owned(),
            layers: ["layer1", "layer2", "layer3"].map(str::to_owned).to_vec(),
            weights: None,
            precision: Precision::F32,
            n_features: None,
            channels: None,
            epsilon: 0.01,
            form: Form::Auto,
            sigma: 4.0,
            mode: Mode::Anomalib,
            preprocess: Preprocess::default(),
            batch_size: 16,
        }
    }
}

impl PadimParams {
    /// Checks the settings, as far as they can be without the network.
    ///
    /// # Errors
    /// [`EmbeddingError::Params`] naming the first field outside its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |name, why: String| Err(EmbeddingError::Params { name, why });
        if self.layers.is_empty() {
            return bad("layers", "none given; at least one".to_owned());
        }
        if self.n_features == Some(0) {
            return bad("n_features", "0; at least 1".to_owned());
        }
        if let Some(channels) = &self.channels {
            if channels.is_empty() {
                return bad("channels", "none given; at least one".to_owned());
            }
            if let Some(n) = self.n_features.filter(|n| *n != channels.len()) {
                return bad("channels", format!("{} of them, but n_features is {n}; give one of both", channels.len()));
            }
        }
        if !(self.epsilon.is_finite() && self.epsilon >= 1e-9) {
            return bad("epsilon", format!("{}; a number of at least 1e-9", self.epsilon));
        }
        if !(0.0..=1000.0).contains(&self.sigma) {
            return bad("sigma", format!("{}; 0 to 1000 pixels", self.sigma));
        }
        if self.batch_size == 0 {
            return bad("batch_size", "0; at least 1".to_owned());
        }
        Ok(())
    }

    /// What is added to the diagonal of every covariance.
    pub fn regularisation(&self) -> f64 {
        match self.mode {
            Mode::Anomalib => self.epsilon + 1e-5,
            Mode::Paper => self.epsilon,
        }
    }

    /// The channels kept of `total`, ascending.
    ///
    /// # Errors
    /// [`EmbeddingError::Params`] if more are asked for than there are, or given ones are out of range or named twice.
    pub fn select(&self, total: usize, seed: u64) -> Result<Vec<usize>> {
        let bad = |name, why: String| Err(EmbeddingError::Params { name, why });
        if let Some(channels) = &self.channels {
            let mut sorted = channels.clone();
            sorted.sort_unstable();
            if let Some(last) = sorted.last().filter(|&&last| last >= total) {
                return bad("channels", format!("{last} is out of range; the layers have {total}, counted from 0"));
            }
            if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                return bad("channels", format!("{} is named twice", twice[0]));
            }
            return Ok(sorted);
        }
        let count = match (self.n_features, self.backbone.as_str()) {
            (Some(n), _) => n,
            (None, "wide_resnet50_2") => total.min(550),
            (None, _) => total.min(100),
        };
        if count > total {
            return bad("n_features", format!("{count}; the layers have {total} channels"));
        }
        let mut all: Vec<usize> = (0..total).collect();
        all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        all.truncate(count);
        all.sort_unstable();
        Ok(all)
    }
}
