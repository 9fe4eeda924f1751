use serde::{Deserialize, Serialize};

/// One epoch of a training curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean loss of its steps.
    pub train_loss: f64,
    /// Mean loss of the good pictures held out, after it.
    pub validation_loss: Option<f64>,
    /// How good the session's [`Judge`](crate::Judge) found the model after it; larger is better.
    #[serde(default)]
    pub judged: Option<f64>,
    /// The learning rate.
    pub lr: f64,
    /// How long it took; not stored with the model, whose bytes depend on the data and the seed alone.
    #[serde(default, skip_serializing)]
    pub seconds: f64,
}
