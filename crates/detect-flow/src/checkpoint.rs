//! The whole state of a training run in one file, written beside its name and renamed.

use std::path::Path;

use blemish_core::{ModelFile, ModelWriter};
use blemish_grad::optim::AdamState;
use blemish_tensor::Tensor;
use serde_json::Value;

use crate::store::{load_weights, save_weights};
use crate::training::{Learner, State, Weights};
use crate::{FlowDetectorError, Result};

/// The kind of these files.
const KIND: &str = "checkpoint";

pub(crate) struct Checkpoint {
    pub(crate) state: State,
    pub(crate) parts: Vec<(Weights, AdamState)>,
    pub(crate) best: Option<Vec<Weights>>,
}

impl Checkpoint {
    /// Writes the checkpoint.
    pub(crate) fn write(
        path: &Path,
        identity: &Value,
        state: &State,
        learner: &dyn Learner,
        best: Option<&[Weights]>,
    ) -> Result<()> {
        let mut file = ModelWriter::new(KIND);
        file.set("identity", identity)?;
        file.set("state", state)?;
        file.set("has_best", &best.is_some())?;
        for (l, (module, moments)) in learner.parts().into_iter().enumerate() {
            save_weights(&mut file, &format!("{l}"), &module.state())?;
            let steps: Vec<i64> = moments.steps.iter().map(|v| *v as i64).collect();
            file.add(&format!("{l}.steps"), Tensor::from_vec(vec![steps.len()], steps)?)?;
            for (kind, all) in [("first", &moments.exp_avg), ("second", &moments.exp_avg_sq)] {
                for (i, values) in all.iter().enumerate() {
                    file.add(&format!("{l}.{kind}.{i}"), Tensor::from_vec(vec![values.len()], values.clone())?)?;
                }
            }
        }
        for (l, weights) in best.unwrap_or_default().iter().enumerate() {
            save_weights(&mut file, &format!("{l}.best"), weights)?;
        }
        Ok(file.write(path)?)
    }

    /// Reads the checkpoint of a run with the same `identity`.
    pub(crate) fn read(path: &Path, identity: &Value, learner: &dyn Learner) -> Result<Checkpoint> {
        let bad = |why: String| FlowDetectorError::Checkpoint { path: path.to_path_buf(), why };
        let file = ModelFile::open(path)?;
        if file.kind()? != KIND {
            return Err(bad(format!("it is a model of kind '{}', no checkpoint", file.kind()?)));
        }
        let stored: Value = file.get("identity")?;
        if let Some(why) = difference(&stored, identity) {
            return Err(bad(why));
        }
        let has_best: bool = file.get("has_best")?;
        let (mut parts, mut best) = (Vec::new(), Vec::new());
        for (l, (module, _)) in learner.parts().into_iter().enumerate() {
            let weights = load_weights(&file, &format!("{l}"), module)?;
            let steps = file.tensor::<i64>(&format!("{l}.steps"), &[Some(weights.len())])?.as_slice::<i64>()?;
            let moments = |kind: &str| -> Result<Vec<Vec<f32>>> {
                let one = |(i, (_, value)): (usize, &(String, ndarray::ArrayD<f32>))| {
                    let name = format!("{l}.{kind}.{i}");
                    let values = file.tensor::<f32>(&name, &[Some(value.len())])?.as_slice::<f32>()?.to_vec();
                    if values.iter().all(|v| v.is_finite()) {
                        return Ok(values);
                    }
                    Err(file.bad(format!("tensor '{name}' holds values that are not finite numbers")).into())
                };
                weights.iter().enumerate().map(one).collect()
            };
            let state = AdamState {
                steps: steps.iter().map(|s| s.unsigned_abs()).collect(),
                exp_avg: moments("first")?,
                exp_avg_sq: moments("second")?,
            };
            if has_best {
                best.push(load_weights(&file, &format!("{l}.best"), module)?);
            }
            parts.push((weights, state));
        }
        Ok(Checkpoint { state: file.get("state")?, parts, best: has_best.then_some(best) })
    }
}

/// The first setting that differs, in words, if any does; detector and seed before what follows from them. A run may go on on
/// another device, whose bits are others.
fn difference(stored: &Value, wanted: &Value) -> Option<String> {
    let strip = |identity: &Value| {
        let mut all = identity.as_object().cloned().unwrap_or_default();
        all.remove("device");
        all
    };
    let (stored, wanted) = (strip(stored), strip(wanted));
    if stored == wanted {
        return None;
    }
    let first = ["kind", "seed"].into_iter().filter_map(|key| wanted.get_key_value(key));
    Some(match first.chain(&wanted).find(|(key, value)| stored.get(*key) != Some(value)) {
        Some((key, value)) => {
            let was = stored.get(key).map_or_else(|| "not there".to_owned(), Value::to_string);
            format!("its {key} is {was}, here it is {value}")
        }
        None => "it was written for other settings".to_owned(),
    })
}
