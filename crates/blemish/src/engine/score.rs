use std::time::{Duration, Instant};

use blemish_core::{AnomalyMap, Geometry, Image, ImageSource, Session, Verdict};
use ndarray::{Array3, Axis};
use rayon::prelude::*;

use crate::regions::{self, Region};
use crate::{Engine, Model, Result};

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
struct Loaded {
    image: Image,
    geometry: Geometry,
    input: Array3<f32>,
}

type Batch = Vec<std::result::Result<Loaded, String>>;

impl Engine {
    /// Scores every picture of `source` and hands the outcomes to `sink` in order. While some are scored the next are
    /// decoded; an unreadable picture is an outcome, not an error.
    ///
    /// # Errors
    /// An interruption, or whatever `sink` says.
    pub fn score(
        &self,
        model: &Model,
        source: &dyn ImageSource,
        min_region_area: usize,
        session: &Session<'_>,
        task: &'static str,
        sink: &mut (dyn FnMut(usize, Outcome) -> Result<()> + Send),
    ) -> Result<()> {
        self.install(|| {
            let (total, step) = (source.len(), 2 * rayon::current_num_threads());
            let progress = session.task(task, total);
            let timed = |first: usize| {
                let start = Instant::now();
                let batch = load(model, source, first..(first + step).min(total));
                (batch, start.elapsed())
            };
            let (mut batch, mut loading) = timed(0);
            for first in (0..total).step_by(step) {
                let count = batch.len();
                let now = std::mem::take(&mut batch);
                let work = || -> Result<()> {
                    let start = Instant::now();
                    let outcomes = score_batch(model, now, min_region_area);
                    let each = (loading + start.elapsed()) / count.max(1) as u32;
                    for (i, mut outcome) in outcomes.into_iter().enumerate() {
                        if let Ok(scored) = &mut outcome {
                            scored.time = each;
                        }
                        sink(first + i, outcome)?;
                    }
                    Ok(())
                };
                let next = first + step;
                let (done, loaded) = rayon::join(work, || (next < total).then(|| timed(next)));
                done?;
                progress.step(count)?;
                if let Some(loaded) = loaded {
                    (batch, loading) = loaded;
                }
            }
            Ok(())
        })
    }

    /// Scores one picture by itself, from file to verdict: what a camera waits for.
    pub fn score_one(&self, model: &Model, source: &dyn ImageSource, index: usize, min_region_area: usize) -> Outcome {
        self.install(|| {
            let start = Instant::now();
            let batch = load(model, source, index..index + 1);
            let mut outcome = score_batch(model, batch, min_region_area).pop().unwrap_or(Err("nothing".to_owned()));
            if let Ok(scored) = &mut outcome {
                scored.time = start.elapsed();
            }
            outcome
        })
    }
}

fn load(model: &Model, source: &dyn ImageSource, range: std::ops::Range<usize>) -> Batch {
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

/// Pictures that come out at one size go through the network together.
fn score_batch(model: &Model, batch: Batch, min_region_area: usize) -> Vec<Outcome> {
    let mut sizes: Vec<(usize, usize)> = batch.iter().flatten().map(|l| l.geometry.input).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut predictions: Vec<Option<std::result::Result<blemish_core::Prediction, String>>> =
        batch.iter().map(|_| None).collect();
    for size in sizes {
        let at: Vec<usize> =
            (0..batch.len()).filter(|&i| batch[i].as_ref().is_ok_and(|l| l.geometry.input == size)).collect();
        let views: Vec<_> = at.iter().filter_map(|&i| Some(batch[i].as_ref().ok()?.input.view())).collect();
        let scored = ndarray::stack(Axis(0), &views)
            .map_err(|e| e.to_string())
            .and_then(|input| model.detector.predict_batch(input.view()).map_err(|e| why(&e)));
        match scored {
            Ok(scored) => at.iter().zip(scored).for_each(|(&i, p)| predictions[i] = Some(Ok(p))),
            Err(error) => at.iter().for_each(|&i| predictions[i] = Some(Err(error.clone()))),
        }
    }
    let finish = |(loaded, prediction): (std::result::Result<Loaded, String>, Option<_>)| -> Outcome {
        let loaded = loaded?;
        let prediction: blemish_core::Prediction = prediction.unwrap_or(Err("it was not scored".to_owned()))?;
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
