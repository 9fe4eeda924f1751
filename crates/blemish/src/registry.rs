//! The only list of detectors.

use blemish_core::{CoreError, Detect, FitDyn, ModelFile};
use blemish_detect_embedding::{Padim, PadimParams, Patchcore, PatchcoreParams, padim, patchcore};
use blemish_detect_flow::{Cflow, CflowParams, Fastflow, FastflowParams, cflow, fastflow};
use serde_json::Value;

use crate::{Error, Result};

/// One detector.
pub struct Entry {
    /// Its name on the command line, in configurations and in model files.
    pub kind: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Its settings with their defaults.
    pub defaults: fn() -> Value,
    /// Reads settings; an error names the one that does not fit.
    pub params: fn(Value) -> std::result::Result<Box<dyn FitDyn>, serde_json::Error>,
    /// Reads a model.
    pub load: fn(&ModelFile) -> std::result::Result<Box<dyn Detect>, CoreError>,
}

/// Every detector.
pub const DETECTORS: &[Entry] = &[
    Entry {
        kind: padim::KIND,
        about: "a Gaussian for each position (Defard et al., ICPR 2021): quick to train, small, fixed camera",
        defaults: || serde_json::to_value(PadimParams::default()).unwrap_or_default(),
        params: |value| Ok(Box::new(serde_json::from_value::<PadimParams>(value)?)),
        load: |file| Ok(Box::new(Padim::load(file).map_err(|e| e.into_core(padim::KIND))?)),
    },
    Entry {
        kind: patchcore::KIND,
        about: "a coreset of good patches (Roth et al., CVPR 2022): most accurate, parts may move",
        defaults: || serde_json::to_value(PatchcoreParams::default()).unwrap_or_default(),
        params: |value| Ok(Box::new(serde_json::from_value::<PatchcoreParams>(value)?)),
        load: |file| Ok(Box::new(Patchcore::load(file).map_err(|e| e.into_core(patchcore::KIND))?)),
    },
    Entry {
        kind: cflow::KIND,
        about: "a flow of patches given their position (Gudovskiy et al., WACV 2022): trains long, localises well",
        defaults: || serde_json::to_value(CflowParams::default()).unwrap_or_default(),
        params: |value| Ok(Box::new(serde_json::from_value::<CflowParams>(value)?)),
        load: |file| Ok(Box::new(Cflow::load(file).map_err(|e| e.into_core(cflow::KIND))?)),
    },
    Entry {
        kind: fastflow::KIND,
        about: "a flow of whole feature maps (Yu et al., 2021): trains long, answers fast",
        defaults: || serde_json::to_value(FastflowParams::default()).unwrap_or_default(),
        params: |value| Ok(Box::new(serde_json::from_value::<FastflowParams>(value)?)),
        load: |file| Ok(Box::new(Fastflow::load(file).map_err(|e| e.into_core(fastflow::KIND))?)),
    },
];

/// Settings that say how a training is kept and taken up again, and nothing of the model: detectors that train in epochs have
/// them.
pub const OF_THE_RUN: [&str; 2] = ["checkpoint", "resume"];

/// The detector called `kind`.
///
/// # Errors
/// [`Error::Unknown`] with a suggestion and the list.
pub fn find(kind: &str) -> Result<&'static Entry> {
    let known: Vec<&str> = DETECTORS.iter().map(|entry| entry.kind).collect();
    DETECTORS.iter().find(|entry| entry.kind == kind).ok_or_else(|| Error::unknown("model", kind, &known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_settings() {
        for entry in DETECTORS {
            assert!((entry.params)((entry.defaults)()).is_ok(), "{}", entry.kind);
            assert!((entry.params)(serde_json::json!({"no such key": 1})).is_err());
        }
        let error = find("padmi").err().unwrap().to_string();
        assert!(error.contains("Did you mean 'padim'?") && error.contains("patchcore"), "{error}");
    }
}
