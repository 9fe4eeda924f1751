use blemish_core::{CoreError, Detect, Judge, NoProgress};
use blemish_datasets::Sample;
use blemish_metrics::auroc;
use serde_json::Value;

use super::decide::pixel_summary;
use crate::{Engine, Error, Result};

/// AUROC on the test pictures: of pixels where all defects have masks, of pictures otherwise.
pub(super) struct OnTest<'a> {
    pub(super) engine: &'a Engine,
    pub(super) samples: &'a [Sample],
    pub(super) seed: u64,
}

impl OnTest<'_> {
    /// Whether there is something to choose between, and something to choose by.
    pub(super) fn check(&self, model: &str, params: &Value) -> Result<()> {
        let bad = |why: String| Err(Error::Setting { key: "best_on_test".to_owned(), why });
        if params.get("epochs").is_none() {
            return bad(format!("{model} does not train in epochs: there is none to choose"));
        }
        let count = |good| self.samples.iter().filter(|s| s.good == Some(good)).count();
        match (count(true), count(false)) {
            (good, defects) if good == 0 || defects == 0 => bad(format!(
                "good and bad test pictures are needed to choose the epoch by; there are {good} good and {defects} bad"
            )),
            _ => Ok(()),
        }
    }

    fn area(&self, model: &dyn Detect) -> Result<f64> {
        let session = self.engine.session(self.seed, &NoProgress);
        let mut passed_over = Vec::new();
        let evidence = self.engine.evidence(model, self.samples, &session, &mut passed_over)?;
        let defects = evidence.iter().filter(|e| !e.good).count();
        if defects > 0 && evidence.iter().all(|e| e.prediction.map.is_some() && (e.good || e.is_masked())) {
            return Ok(pixel_summary(&evidence)?.auroc);
        }
        let scores: Vec<f32> = evidence.iter().map(|e| e.prediction.score).collect();
        let labels: Vec<bool> = evidence.iter().map(|e| !e.good).collect();
        Ok(auroc(&scores, &labels)?)
    }
}

impl Judge for OnTest<'_> {
    fn judge(&self, model: &dyn Detect) -> blemish_core::Result<f64> {
        self.area(model).map_err(|error| match error {
            Error::Core(error) => error,
            other => CoreError::Detector { kind: model.kind(), source: Box::new(other) },
        })
    }
}
