//! `blemish bench`: how fast a model is on one's own pictures.

mod precision;

use blemish::core::{CoreError, Image, ImageSource, Progress};
use blemish::datasets::{Files, expand};
use blemish::engine::Stage;
use blemish::{Engine, Error, Model};
use serde_json::json;

use crate::args::{Args, Bench};
use crate::{progress::Bars, say, train};

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
    let Some(model_file) = command.model_file.as_deref().filter(|_| !command.precision) else {
        return precision::run(args, command, progress);
    };
    let config = train::base(args)?;
    let engine = Engine::new(&config)?;
    let model = engine.install(|| Model::load_on(model_file, engine.device()))?;
    say::placement(args.quiet, &engine, &model, "");
    let own = command.pictures.is_empty();
    let source: Box<dyn ImageSource> = if own {
        Box::new(Probes(Model::probes(model_file)?))
    } else {
        Box::new(Files::unlabelled(expand(&command.pictures).map_err(Error::from)?))
    };
    if source.is_empty() {
        anyhow::bail!("there are no pictures to measure with.\nGive files, folders or patterns");
    }
    let speed =
        engine.bench(&model, source.as_ref(), command.count, config.min_region_area, progress as &dyn Progress)?;
    // Probe pictures are in memory: there is nothing to decode.
    let stages: Vec<&Stage> = speed.stages.iter().filter(|stage| !(own && stage.name == "decode")).collect();
    if args.json {
        let named = stages.iter().map(|stage| (stage.name.to_owned(), json!(stage)));
        let value = json!({
            "model": model.detector.kind(),
            "threads": engine.threads(),
            "device": engine.device().to_string(),
            "probes": own,
            "pictures": speed.pictures,
            "latency": named.collect::<serde_json::Map<_, _>>(),
            "images_per_second": speed.throughput_per_second,
            "pipelines": {
                "latency": {"images_per_second": speed.latency_per_second},
                "throughput": {"images_per_second": speed.throughput_per_second, "batch_size": speed.batch_size},
            },
        });
        say::out(&value.to_string())?;
    } else {
        let what =
            if own { "times one of the model's small probe pictures, not decoded" } else { "pictures one by one" };
        let mut text = format!(
            " {}\n {} threads, device {}, {} {what}\n\n",
            model.summary(),
            engine.threads(),
            engine.device(),
            speed.pictures
        );
        text += &format!(" {:<12} {:>9} {:>9} {:>9} {:>12}\n", "ms", "p50", "p95", "p99", "pictures/s");
        for Stage { name, p50_ms, p95_ms, p99_ms, images_per_second } in stages {
            text += &format!(" {name:<12} {p50_ms:>9.2} {p95_ms:>9.2} {p99_ms:>9.2} {images_per_second:>12.1}\n");
        }
        let batch = speed.batch_size.map_or_else(String::new, |n| format!(", {n} at a time"));
        text += &format!(
            "\n --pipeline latency      {:.1} pictures a second\n --pipeline throughput   {:.1} pictures a second{batch}",
            speed.latency_per_second, speed.throughput_per_second
        );
        say::out(&text)?;
    }
    Ok(say::OK)
}
