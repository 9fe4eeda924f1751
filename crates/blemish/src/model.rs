use std::path::Path;

use blemish_core::{Decision, Detect, Image, ModelFile, ModelWriter};
use blemish_tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Result, registry};

/// What a model was learnt from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LearntFrom {
    /// Name of the data set.
    pub name: String,
    /// Its category.
    pub category: String,
    /// Good pictures learnt from.
    pub train: usize,
    /// Pictures the thresholds were found with that were not learnt from; 0 if they come from the training pictures.
    pub val: usize,
}

/// A fitted detector with its thresholds.
pub struct Model {
    /// The detector.
    pub detector: Box<dyn Detect>,
    /// Its thresholds and where they came from.
    pub decision: Decision,
    /// Its settings.
    pub params: Value,
    /// The seed it was made with.
    pub seed: u64,
    /// What it was learnt from.
    pub learnt_from: LearntFrom,
    /// Why it is not on the GPU asked for.
    pub(crate) refused: Option<String>,
}

impl Model {
    /// Writes one file, with probe pictures and the scores they get now; it is either whole or not there.
    ///
    /// # Errors
    /// A full disk, for instance; nothing is left behind then.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut file = ModelWriter::new(self.detector.kind());
        self.detector.save(&mut file)?;
        file.set("params", &self.params)?;
        file.set("seed", &self.seed)?;
        file.set("decision", &self.decision)?;
        file.set("learnt_from", &self.learnt_from)?;
        file.add_self_test(self.detector.as_ref())?;
        Ok(file.write(path)?)
    }

    /// As [`load_on`](Self::load_on), on the CPU.
    ///
    /// # Errors
    /// As [`load_on`](Self::load_on).
    pub fn load(path: &Path) -> Result<Model> {
        Model::load_on(path, &Device::cpu())
    }

    /// Reads a file and lets it score its probe pictures again, on the device that it will compute on.
    ///
    /// # Errors
    /// Anything but a whole model that still gives the scores it gave when it was saved. A GPU on which it does not is not
    /// used: the model computes on the CPU then, and [`placement`](Self::placement) says so.
    pub fn load_on(path: &Path, device: &Device) -> Result<Model> {
        let file = ModelFile::open(path)?;
        let kind = file.kind()?.to_owned();
        let entry =
            registry::find(&kind).map_err(|e| file.bad(format!("it is of a kind this program does not know: {e}")))?;
        let decision = file.get("decision")?;
        let mut detector = (entry.load)(&file).map_err(|e| match e {
            // Say which file, whatever it was that did not fit.
            named @ (blemish_core::CoreError::ModelFile { .. } | blemish_core::CoreError::Io { .. }) => named,
            other => file.bad(other.to_string()),
        })?;
        detector.use_device(device);
        let mut refused = None;
        if let Err(error) = self_test(&file, detector.as_ref()) {
            if device.is_cpu() {
                return Err(error.into());
            }
            detector.use_device(&Device::cpu());
            self_test(&file, detector.as_ref())?;
            refused = Some(format!("all of it on the CPU: on {device}, {error}"));
        }
        Ok(Model {
            detector,
            decision,
            params: file.get("params")?,
            seed: file.get("seed")?,
            learnt_from: file.get("learnt_from")?,
            refused,
        })
    }

    /// The small pictures a model file holds for its self-test.
    ///
    /// # Errors
    /// Anything but a model file with probe pictures.
    pub fn probes(path: &Path) -> Result<Vec<Image>> {
        let file = ModelFile::open(path)?;
        let count = file.tensor::<f32>("self_test.scores", &[None])?.len();
        let probe = |i: usize| -> Result<Image> {
            let tensor = file.tensor::<u8>(&format!("self_test.{i}"), &[None, None, None])?;
            let view = tensor.view::<u8, ndarray::Ix3>().map_err(blemish_core::CoreError::from)?;
            Ok(Image::from_u8(view.to_owned())?)
        };
        (0..count).map(probe).collect()
    }

    /// Which part of it computes where, and why not on the device asked for, in words.
    pub fn placement(&self) -> String {
        self.refused.clone().unwrap_or_else(|| self.detector.placement())
    }

    /// The model in a line or two.
    pub fn summary(&self) -> String {
        self.detector.summary()
    }
}

fn self_test(file: &ModelFile, detector: &dyn Detect) -> blemish_core::Result<()> {
    file.self_test(detector).map_err(|e| match e {
        named @ blemish_core::CoreError::ModelFile { .. } => named,
        other => file.bad(format!("its self-test fails: {other}")),
    })
}
