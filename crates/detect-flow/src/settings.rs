//! What the settings of both detectors have in common, and how both begin to learn.

use std::path::PathBuf;
use std::sync::Arc;

use blemish_core::{ImageSource, Preprocess, Session};
use blemish_embed::{Embedder, Precision};
use blemish_grad::optim::Schedule;
use serde_json::{Value, json};

use crate::features::{Features, check_cache};
use crate::split::Split;
use crate::training::Plan;
use crate::{FlowDetectorError, Mode, Result};

/// The fields that both kinds of params have.
pub(crate) struct Settings<'a> {
    pub(crate) backbone: &'a str,
    pub(crate) layers: &'a [String],
    pub(crate) weights: &'a Option<PathBuf>,
    pub(crate) precision: Precision,
    pub(crate) clamp: f32,
    pub(crate) image_batch: usize,
    pub(crate) lr: f32,
    pub(crate) schedule: Schedule,
    pub(crate) epochs: usize,
    pub(crate) validation_share: f64,
    pub(crate) patience: Option<usize>,
    pub(crate) checkpoint: &'a Option<PathBuf>,
    pub(crate) resume: bool,
    pub(crate) cache_gigabytes: f64,
    pub(crate) mode: Mode,
    pub(crate) preprocess: &'a Preprocess,
    pub(crate) batch_size: usize,
}

/// The [`Settings`] of params that have these fields.
macro_rules! settings {
    ($params:expr) => {
        $crate::settings::Settings {
            backbone: &$params.backbone,
            layers: &$params.layers,
            weights: &$params.weights,
            precision: $params.precision,
            clamp: $params.clamp,
            image_batch: $params.image_batch,
            lr: $params.lr,
            schedule: $params.schedule,
            epochs: $params.epochs,
            validation_share: $params.validation_share,
            patience: $params.patience,
            checkpoint: &$params.checkpoint,
            resume: $params.resume,
            cache_gigabytes: $params.cache_gigabytes,
            mode: $params.mode,
            preprocess: &$params.preprocess,
            batch_size: $params.batch_size,
        }
    };
}
pub(crate) use settings;

impl Settings<'_> {
    /// # Errors
    /// [`FlowDetectorError::Params`] naming the first field outside its range.
    pub(crate) fn validate(&self) -> Result<()> {
        let bad = |name, why: String| Err(FlowDetectorError::Params { name, why });
        if self.layers.is_empty() {
            return bad("layers", "none given; at least one".to_owned());
        }
        if !(self.clamp > 0.0 && self.clamp <= 10.0) {
            return bad("clamp", format!("{}; above 0 and at most 10", self.clamp));
        }
        for (name, value) in [("image_batch", self.image_batch), ("batch_size", self.batch_size)] {
            if value == 0 {
                return bad(name, "0; at least 1".to_owned());
            }
        }
        check_cache(self.cache_gigabytes)?;
        self.plan().validate()?;
        Ok(self.preprocess.validate()?)
    }

    /// What the epochs have in common.
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            epochs: self.epochs,
            lr: self.lr,
            schedule: self.schedule,
            validation_share: self.validation_share,
            patience: self.patience,
            checkpoint: self.checkpoint.clone(),
            resume: self.resume,
        }
    }

    /// The network.
    pub(crate) fn embedder(&self, session: &Session<'_>, normal: &dyn ImageSource) -> Result<Arc<Embedder>> {
        let (weights, preprocess) = (self.weights.as_deref(), self.preprocess.clone());
        let embedder = Embedder::new(self.backbone, self.layers, weights, session.seed, preprocess)?;
        Ok(Arc::new(embedder.with_precision(self.precision, session, normal)?.with_device(&session.device)))
    }

    /// What is to be learnt from: the features of all pictures, and which of them train.
    pub(crate) fn material<'a>(
        &self,
        embedder: &'a Arc<Embedder>,
        session: &Session<'_>,
        normal: &'a dyn ImageSource,
    ) -> Result<Material<'a>> {
        let features = Features::new(embedder, session, normal, self.cache_gigabytes, self.batch_size)?;
        let split = Split::new(normal.len(), self.validation_share, session.seed);
        Ok(Material { embedder, features, split, seed: session.seed, pictures: normal.len() })
    }

    /// Everything that must be the same for a checkpoint to be resumed, and the kind of the device, which may change; `own` are the
    /// detector's own settings.
    pub(crate) fn identity(&self, kind: &str, material: &Material<'_>, session: &Session<'_>, own: Value) -> Value {
        let device = if session.device.is_cpu() { "cpu" } else { "gpu" };
        let common = json!({
            "kind": kind, "seed": material.seed, "pictures": material.pictures, "judged": session.judge.is_some(),
            "device": device,
            "first picture": material.features.first, "sizes": material.features.sizes,
            "network": material.embedder.fingerprint(), "precision": self.precision, "layers": self.layers,
            "preprocess": self.preprocess, "clamp": self.clamp, "image_batch": self.image_batch, "lr": self.lr,
            "schedule": self.schedule, "validation_share": self.validation_share, "patience": self.patience,
            "mode": self.mode,
        });
        let (Value::Object(mut all), Value::Object(own)) = (common, own) else { return Value::Null };
        all.extend(own);
        Value::Object(all)
    }
}

/// What both detectors learn from.
pub(crate) struct Material<'a> {
    pub(crate) embedder: &'a Arc<Embedder>,
    pub(crate) features: Features<'a>,
    pub(crate) split: Split,
    pub(crate) seed: u64,
    pub(crate) pictures: usize,
}

impl Material<'_> {
    /// Batches of an epoch.
    pub(crate) fn batches(&self, image_batch: usize) -> usize {
        self.split.train.len().div_ceil(image_batch)
    }
}
