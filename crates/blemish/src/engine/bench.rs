//! How fast a model is.

use std::time::{Duration, Instant};

use blemish_core::{ImageSource, Progress};
use ndarray::Axis;
use serde::Serialize;

use crate::engine::Pipeline;
use crate::{Engine, Model, Result, regions};

/// Pictures that warm caches and are not counted.
const WARM: usize = 3;
/// Runs of a pipeline; the quickest counts.
const RUNS: usize = 3;

/// Times of one stage, over pictures taken one by one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// `decode`, `preprocess`, `backbone`, `score` (both as `score` where a model does not keep them apart), `post`
    /// (verdict and regions), `all`.
    #[serde(skip)]
    pub name: &'static str,
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 95 of 100 take less.
    pub p95_ms: f64,
    /// 99 of 100 take less.
    pub p99_ms: f64,
    /// Pictures a second if this were all there is to do.
    pub images_per_second: f64,
}

impl Stage {
    fn new(name: &'static str, mut times: Vec<Duration>) -> Stage {
        times.sort_unstable();
        let mean = times.iter().sum::<Duration>().as_secs_f64() / times.len().max(1) as f64;
        let at = |share| super::test::percentile(&times, share);
        let images_per_second = if mean > 0.0 { 1.0 / mean } else { 0.0 };
        Stage { name, p50_ms: at(0.5), p95_ms: at(0.95), p99_ms: at(0.99), images_per_second }
    }
}

/// How fast a model is on some pictures.
#[derive(Clone, Debug)]
pub struct Speed {
    /// The stages in order, the whole last.
    pub stages: Vec<Stage>,
    /// Pictures timed.
    pub pictures: usize,
    /// Pictures a second with [`Pipeline::Latency`].
    pub latency_per_second: f64,
    /// Pictures a second with [`Pipeline::Throughput`].
    pub throughput_per_second: f64,
    /// Pictures that the network takes together then, if there were enough of them to find out.
    pub batch_size: Option<usize>,
}

impl Engine {
    /// Times each stage on `count` pictures of `source`, one by one, then all of `source` in both pipelines.
    ///
    /// # Errors
    /// No pictures, one that cannot be read or scored, or an interruption.
    pub fn bench(
        &self,
        model: &Model,
        source: &dyn ImageSource,
        count: usize,
        min_region_area: usize,
        progress: &dyn Progress,
    ) -> Result<Speed> {
        if source.is_empty() {
            let wanted = "one picture or more".to_owned();
            return Err(blemish_core::CoreError::TooFewImages { wanted, got: 0 }.into());
        }
        let session = self.session(model.seed, progress);
        let apart = model.detector.stages();
        let names: &[&'static str] = match apart {
            Some(_) => &["decode", "preprocess", "backbone", "score", "post", "all"],
            None => &["decode", "preprocess", "score", "post", "all"],
        };
        let mut times = vec![Vec::with_capacity(count); names.len()];
        let task = session.task("one by one", count.max(1) + WARM);
        for i in 0..count.max(1) + WARM {
            let marks = self.install(|| -> Result<Vec<Instant>> {
                let mut marks = vec![Instant::now()];
                let mut mark = || marks.push(Instant::now());
                let image = source.get(i % source.len())?;
                mark();
                let preprocess = model.detector.preprocess();
                let (h, w, _) = image.dim();
                let geometry = preprocess.geometry((h, w))?;
                let input = preprocess.apply(&image)?;
                mark();
                let input = input.view().insert_axis(Axis(0));
                let prediction = match apart {
                    Some(stages) => {
                        let maps = stages.features(input)?;
                        mark();
                        stages.score(maps, geometry.input)?
                    }
                    None => model.detector.predict_batch(input)?,
                }
                .remove(0);
                mark();
                let verdict = model.decision.image.verdict(prediction.score)?;
                let found = match (&prediction.map, &model.decision.pixel) {
                    (Some(map), Some(pixel)) => regions::find(map, pixel, &geometry, min_region_area).len(),
                    _ => 0,
                };
                std::hint::black_box((verdict, found));
                mark();
                Ok(marks)
            })?;
            if let (Some(first), Some(last), true) = (marks.first(), marks.last(), i >= WARM) {
                let parts = marks.windows(2).map(|pair| pair[1] - pair[0]).chain([*last - *first]);
                times.iter_mut().zip(parts).for_each(|(list, time)| list.push(time));
            }
            task.step(1)?;
        }
        drop(task);
        let stages = names.iter().zip(times).map(|(name, times)| Stage::new(name, times)).collect();
        let run = |pipeline| self.per_second(model, source, min_region_area, pipeline, progress);
        let latency_per_second = run(Pipeline::Latency)?;
        let throughput_per_second = run(Pipeline::Throughput)?;
        let batch_size = self.batch_size(model);
        let pictures = count.max(1);
        Ok(Speed { stages, pictures, latency_per_second, throughput_per_second, batch_size })
    }

    /// Pictures a second of the quickest of some runs; the first ones find the batch size.
    fn per_second(
        &self,
        model: &Model,
        source: &dyn ImageSource,
        min_region_area: usize,
        pipeline: Pipeline,
        progress: &dyn Progress,
    ) -> Result<f64> {
        let session = self.session(model.seed, progress);
        let mut best = 0f64;
        for _ in 0..RUNS {
            let (start, mut scored) = (Instant::now(), 0usize);
            let sink = &mut |_, outcome: super::Outcome| {
                scored += usize::from(outcome.is_ok());
                Ok(())
            };
            let task = match pipeline {
                Pipeline::Latency => "latency",
                Pipeline::Throughput => "throughput",
            };
            self.score_with(pipeline, model, source, min_region_area, &session, task, sink)?;
            best = best.max(scored as f64 / start.elapsed().as_secs_f64());
        }
        Ok(best)
    }
}
