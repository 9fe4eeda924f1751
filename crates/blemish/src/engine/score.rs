use std::time::Duration;

use blemish_core::{AnomalyMap, Geometry, Image, ImageSource, Prediction, Verdict};
use ndarray::{Array3, Array4, Axis};
use rayon::prelude::*;

use crate::Model;
use crate::regions::{self, Region};

/// What is known of one picture after scoring.
#[derive(Clone, Debug)]
pub struct Scored {
    /// Raw score, calibrated score, threshold and label.
    pub verdict: Verdict,
    /// Defect regions, strongest first; empty without a map.
    pub regions: Vec<Region>,
    /// Raw pixel scores of the network input.
    pub map: Option<AnomalyMap>,
    /// Where the network input lies in the picture.
    pub geometry: Geometry,
    /// The picture.
    pub image: Image,
    /// Time from file to verdict; pictures scored together share theirs.
    pub time: Duration,
}

/// A score, or why there is none.
pub type Outcome = std::result::Result<Scored, String>;

/// A decoded picture and its network input.
pub(super) struct Loaded {
    image: Image,
    geometry: Geometry,
    input: Array3<f32>,
}

impl Loaded {
    /// Memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let (h, w, c) = self.image.dim();
        let sample = if self.image.as_u8().is_some() { 1 } else { 2 };
        h * w * c * sample + self.input.len() * size_of::<f32>()
    }
}

/// Pictures, each loaded or with a reason.
pub(super) type Batch = Vec<std::result::Result<Loaded, String>>;

/// What the network, or the whole detector, made of those pictures of a batch that come out at one size.
pub(super) struct Group {
    /// Their places in the batch.
    at: Vec<usize>,
    size: (usize, usize),
    made: std::result::Result<Made, String>,
}

enum Made {
    Features(Vec<Array4<f32>>),
    Predictions(Vec<Prediction>),
}

/// Decodes and preprocesses pictures, in parallel.
pub(super) fn load(model: &Model, source: &dyn ImageSource, range: std::ops::Range<usize>) -> Batch {
    let preprocess = model.detector.preprocess();
    let one = |index: usize| -> blemish_core::Result<Loaded> {
        let image = source.get(index)?;
        let (h, w, _) = image.dim();
        Ok(Loaded { geometry: preprocess.geometry((h, w))?, input: preprocess.apply(&image)?, image })
    };
    range.into_par_iter().map(|index| one(index).map_err(|e| why(&e))).collect()
}

/// The reason alone; who prints it names the picture.
fn why(error: &blemish_core::CoreError) -> String {
    match error {
        blemish_core::CoreError::Image { why, .. } => why.clone(),
        other => other.to_string(),
    }
}

/// The network's part: pictures that come out at one size go through it together. What a detector does not keep apart is
/// done here as well.
pub(super) fn compute(model: &Model, batch: &Batch) -> Vec<Group> {
    let mut sizes: Vec<(usize, usize)> = batch.iter().flatten().map(|l| l.geometry.input).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let group = |size: (usize, usize)| {
        let at: Vec<usize> =
            (0..batch.len()).filter(|&i| batch[i].as_ref().is_ok_and(|l| l.geometry.input == size)).collect();
        let views: Vec<_> = at.iter().filter_map(|&i| Some(batch[i].as_ref().ok()?.input.view())).collect();
        let made = ndarray::stack(Axis(0), &views).map_err(|e| e.to_string()).and_then(|input| {
            let made = match model.detector.stages() {
                Some(stages) => stages.features(input.view()).map(Made::Features),
                None => model.detector.predict_batch(input.view()).map(Made::Predictions),
            };
            made.map_err(|e| why(&e))
        });
        Group { at, size, made }
    };
    sizes.into_iter().map(group).collect()
}

/// Scores, verdicts and regions from what the network made.
pub(super) fn judge(model: &Model, batch: Batch, groups: Vec<Group>, min_region_area: usize) -> Vec<Outcome> {
    let mut predictions: Vec<Option<std::result::Result<Prediction, String>>> = batch.iter().map(|_| None).collect();
    for Group { at, size, made } in groups {
        let scored = made.and_then(|made| match (made, model.detector.stages()) {
            (Made::Predictions(done), _) => Ok(done),
            (Made::Features(maps), Some(stages)) => stages.score(maps, size).map_err(|e| why(&e)),
            (Made::Features(_), None) => Err("it was not scored".to_owned()),
        });
        match scored {
            Ok(scored) => at.iter().zip(scored).for_each(|(&i, p)| predictions[i] = Some(Ok(p))),
            Err(error) => at.iter().for_each(|&i| predictions[i] = Some(Err(error.clone()))),
        }
    }
    let finish = |(loaded, prediction): (std::result::Result<Loaded, String>, Option<_>)| -> Outcome {
        let loaded = loaded?;
        let prediction: Prediction = prediction.unwrap_or(Err("it was not scored".to_owned()))?;
        let verdict = model.decision.image.verdict(prediction.score).map_err(|e| why(&e))?;
        let regions = match (&prediction.map, &model.decision.pixel) {
            (Some(map), Some(pixel)) => regions::find(map, pixel, &loaded.geometry, min_region_area),
            _ => Vec::new(),
        };
        Ok(Scored {
            verdict,
            regions,
            map: prediction.map,
            geometry: loaded.geometry,
            image: loaded.image,
            time: Duration::ZERO,
        })
    };
    batch.into_par_iter().zip(predictions).map(finish).collect()
}
