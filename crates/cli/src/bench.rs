//! `blemish bench`: how fast a model is on one's own pictures.

use std::time::{Duration, Instant};

use blemish::core::{CoreError, Image, ImageSource, Progress, Session};
use blemish::datasets::{Files, expand};
use blemish::{Engine, Error, Model, regions};
use serde_json::json;

use crate::args::{Args, Bench};
use crate::{progress::Bars, say, train};

const STAGES: [&str; 5] = ["decode", "preprocess", "score", "post", "all"];

/// A model's own probe pictures.
struct Probes(Vec<Image>);

impl ImageSource for Probes {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn name(&self, index: usize) -> String {
        format!("probe {index}")
    }

    fn get(&self, index: usize) -> Result<Image, CoreError> {
        let missing = || CoreError::Image { path: self.name(index), why: "there is no such probe".to_owned() };
        self.0.get(index).cloned().ok_or_else(missing)
    }
}

pub(crate) fn run(args: &Args, command: &Bench, progress: &Bars) -> anyhow::Result<u8> {
    let config = train::base(args)?;
    let engine = Engine::new(&config)?;
    let model = engine.install(|| Model::load(&command.model_file))?;
    let own = command.pictures.is_empty();
    let source: Box<dyn ImageSource> = if own {
        Box::new(Probes(Model::probes(&command.model_file)?))
    } else {
        Box::new(Files::unlabelled(expand(&command.pictures).map_err(Error::from)?))
    };
    if source.is_empty() {
        anyhow::bail!("there are no pictures to measure with.\nGive files, folders or patterns");
    }
    // Probe pictures are in memory: there is nothing to decode.
    let shown = usize::from(own)..STAGES.len();
    let mut times: [Vec<Duration>; 5] = Default::default();
    // The first ones warm caches and are not counted.
    let warm = 3;
    engine.install(|| -> Result<(), Error> {
        for i in 0..command.count.max(1) + warm {
            let start = Instant::now();
            let image = source.get(i % source.len())?;
            let decoded = Instant::now();
            let preprocess = model.detector.preprocess();
            let (h, w, _) = image.dim();
            let geometry = preprocess.geometry((h, w))?;
            let input = preprocess.apply(&image)?;
            let prepared = Instant::now();
            let input = input.view().insert_axis(ndarray::Axis(0));
            let prediction = model.detector.predict_batch(input)?.remove(0);
            let scored = Instant::now();
            let verdict = model.decision.image.verdict(prediction.score)?;
            let found = match (&prediction.map, &model.decision.pixel) {
                (Some(map), Some(pixel)) => regions::find(map, pixel, &geometry, config.min_region_area).len(),
                _ => 0,
            };
            std::hint::black_box((verdict, found));
            let end = Instant::now();
            if i >= warm {
                let stages = [decoded - start, prepared - decoded, scored - prepared, end - scored, end - start];
                times.iter_mut().zip(stages).for_each(|(list, time)| list.push(time));
            }
        }
        Ok(())
    })?;
    times.iter_mut().for_each(|list| list.sort_unstable());
    // Throughput with everything overlapped.
    let session =
        Session { device: blemish::tensor::Device::cpu(), seed: config.seed, progress: progress as &dyn Progress };
    let start = Instant::now();
    let mut scored = 0usize;
    engine.score(&model, source.as_ref(), config.min_region_area, &session, "bench", &mut |_, outcome| {
        scored += usize::from(outcome.is_ok());
        Ok(())
    })?;
    let per_second = scored as f64 / start.elapsed().as_secs_f64();
    let at = |list: &[Duration], share: f64| {
        let rank = ((share * list.len() as f64).ceil() as usize).clamp(1, list.len());
        list[rank - 1].as_secs_f64() * 1e3
    };
    if args.json {
        let stages: serde_json::Map<_, _> = STAGES[shown.clone()]
            .iter()
            .zip(&times[shown])
            .map(|(name, list)| {
                (
                    (*name).to_owned(),
                    json!({"p50_ms": at(list, 0.5), "p95_ms": at(list, 0.95), "p99_ms": at(list, 0.99)}),
                )
            })
            .collect();
        let value = json!({
            "model": model.detector.kind(),
            "threads": engine.threads(),
            "probes": own,
            "pictures": times[0].len(),
            "latency": stages,
            "images_per_second": per_second,
        });
        say::out(&value.to_string())?;
    } else {
        let what =
            if own { "times one of the model's small probe pictures, not decoded" } else { "pictures one by one" };
        let mut text = format!(" {}\n {} threads, {} {what}\n\n", model.summary(), engine.threads(), times[0].len());
        text += &format!(" {:<12} {:>9} {:>9} {:>9}\n", "ms", "p50", "p95", "p99");
        for (name, list) in STAGES[shown.clone()].iter().zip(&times[shown]) {
            text += &format!(" {name:<12} {:>9.2} {:>9.2} {:>9.2}\n", at(list, 0.5), at(list, 0.95), at(list, 0.99));
        }
        text += &format!("\n together: {per_second:.1} pictures a second");
        say::out(&text)?;
    }
    Ok(say::OK)
}
