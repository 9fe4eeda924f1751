use std::path::PathBuf;

use blemish_core::Preprocess;
use blemish_embed::Precision;
use serde::{Deserialize, Serialize};

use super::{BankStorage, Scoring};
use crate::{EmbeddingError, Mode, Result};

/// Settings of PatchCore. The default is anomalib's, but that the coreset is chosen among the embeddings themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PatchcoreParams {
    /// The network, by timm's name.
    pub backbone: String,
    /// Its layers, the first one sets the grid of patches (section 3.1: the second and third stage of a ResNet).
    pub layers: Vec<String>,
    /// The network's weights; untrained ones from the session's seed without a file.
    pub weights: Option<PathBuf>,
    /// What the network computes in; int8 is calibrated with the first pictures, at most 64.
    pub precision: Precision,
    /// Share of all patches that is kept, above 0 to 1 (section 3.2; the paper has 0.25, 0.1 and 0.01).
    pub coreset_ratio: f64,
    /// Number of patches kept, instead of a share.
    pub coreset_count: Option<usize>,
    /// The first patch picked, counted over all training pictures; drawn from the session's seed otherwise.
    pub coreset_start: Option<usize>,
    /// Picks the coreset in a sparse random projection to this many coordinates (section 3.2); what is kept is not
    /// projected.
    pub projection: Option<usize>,
    /// How the patches kept are stored: 32, 16 or 8 bits a number.
    pub bank: BankStorage,
    /// Neighbours `b` of the image score (equation 7); 1 for the largest patch score as it is. Not used in paper mode.
    pub num_neighbors: usize,
    /// Standard deviation of the blur of the map, in pixels; 0 for none.
    pub sigma: f32,
    /// Whose reading of the paper.
    pub mode: Mode,
    /// How pictures become network input.
    pub preprocess: Preprocess,
    /// Pictures that go through the network together while learning.
    pub batch_size: usize,
}

impl Default for PatchcoreParams {
    fn default() -> Self {
        PatchcoreParams {
            backbone: "wide_resnet50_2".to_owned(),
            layers: vec!["layer2".to_owned(), "layer3".to_owned()],
            weights: None,
            precision: Precision::F32,
            coreset_ratio: 0.1,
            coreset_count: None,
            coreset_start: None,
            projection: None,
            bank: BankStorage::F32,
            num_neighbors: 9,
            sigma: 4.0,
            mode: Mode::Anomalib,
            preprocess: Preprocess::default(),
            batch_size: 8,
        }
    }
}

impl PatchcoreParams {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`EmbeddingError::Params`] naming the first field outside its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |name, why: String| Err(EmbeddingError::Params { name, why });
        if self.layers.is_empty() {
            return bad("layers", "none given; at least one".to_owned());
        }
        if self.coreset_count.is_none() && !(self.coreset_ratio > 0.0 && self.coreset_ratio <= 1.0) {
            return bad("coreset_ratio", format!("{}; above 0 and at most 1", self.coreset_ratio));
        }
        if self.coreset_count == Some(0) {
            return bad("coreset_count", "0; at least 1".to_owned());
        }
        if self.projection == Some(0) {
            return bad("projection", "to 0 coordinates; at least 1".to_owned());
        }
        if self.batch_size == 0 {
            return bad("batch_size", "0; at least 1".to_owned());
        }
        self.scoring().validate()?;
        Ok(self.preprocess.validate()?)
    }

    /// The part that scoring needs.
    pub(super) fn scoring(&self) -> Scoring {
        Scoring { num_neighbors: self.num_neighbors, sigma: self.sigma, mode: self.mode }
    }

    /// Patches kept of `patches`.
    ///
    /// # Errors
    /// [`EmbeddingError::Params`] if that is none, or more than there are.
    pub(super) fn coreset_size(&self, patches: usize) -> Result<usize> {
        if let Some(count) = self.coreset_count {
            if count > patches {
                let why = format!("{count} of the {patches} patches of all training pictures; at most all");
                return Err(EmbeddingError::Params { name: "coreset_count", why });
            }
            return Ok(count);
        }
        match (patches as f64 * self.coreset_ratio) as usize {
            0 => {
                let why = format!("{} of {patches} patches is less than one; a larger share", self.coreset_ratio);
                Err(EmbeddingError::Params { name: "coreset_ratio", why })
            }
            count => Ok(count.min(patches)),
        }
    }
}
