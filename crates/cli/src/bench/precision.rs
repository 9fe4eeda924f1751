//! `blemish bench --precision`: what bf16 and int8 cost in accuracy and save in time, on one's own data set.

use std::time::Instant;

use blemish::backbone::Precision;
use blemish::core::Progress;
use blemish::datasets::decode;
use blemish::engine::TestReport;
use blemish::{Config, Engine, Error, Model};
use ndarray::Axis;
use serde_json::{Value, json};

use crate::args::{Args, Bench, Train};
use crate::{progress::Bars, say, train};

/// Test pictures timed.
const TIMED: usize = 16;

/// One precision, learnt and tested.
struct Row {
    precision: Precision,
    image: Option<f64>,
    pixel: Option<f64>,
    score_ms: f64,
    file_ms: f64,
}

pub(super) fn run(args: &Args, command: &Bench, progress: &Bars) -> anyhow::Result<u8> {
    let settings = Train {
        model: command.model.clone(),
        data: command.data.clone(),
        backbone: command.backbone.clone(),
        layers: command.layers.clone(),
        weights: command.weights.clone(),
        set: command.set.clone(),
        ..Train::default()
    };
    let mut config = train::config(args, &settings)?;
    if let Some(warning) = train::choose_weights(args, &mut config)? {
        say::warn(&warning);
    }
    let engine = Engine::new(&config)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut category = String::new();
    for precision in Precision::ALL {
        config.set("precision", json!(precision))?;
        let trained = engine.train(&config, progress as &dyn Progress)?;
        let test = &trained.dataset.test;
        if test.is_empty() {
            anyhow::bail!("{} has no test pictures.\nGive a folder with test/, or --bad DIR", config_data(&config));
        }
        category.clone_from(&trained.dataset.category);
        let area = config.min_region_area;
        let report = engine.test(&trained.model, test, area, progress as &dyn Progress, &mut |_, _, _, _| Ok(()))?;
        let pictures: Vec<_> = test.iter().take(TIMED).map(|sample| sample.path.as_path()).collect();
        let score_ms = engine.install(|| time(&trained.model, &pictures))?;
        rows.push(Row::new(precision, &report, score_ms));
    }
    if args.json {
        let list: Vec<Value> = rows.iter().map(|row| row.json(&rows[0])).collect();
        let value = json!({
            "model": config.model, "category": category, "threads": engine.threads(), "precisions": list,
        });
        say::out(&value.to_string())?;
    } else {
        say::out(&table(&config, &category, engine.threads(), &rows))?;
    }
    for row in rows.iter().filter(|row| !row.precision.is_available()) {
        say::warn(&format!(" note   this processor has no {0}: {0} ran in f32", row.precision));
    }
    Ok(say::OK)
}

fn config_data(config: &Config) -> String {
    config.data.data.as_ref().map_or_else(|| "the data set".to_owned(), |path| path.display().to_string())
}

/// Median milliseconds from network input to score and map, one picture at a time.
fn time(model: &Model, pictures: &[&std::path::Path]) -> Result<f64, Error> {
    let mut times = Vec::with_capacity(pictures.len());
    for path in pictures {
        // Pictures that cannot be read were reported by the test.
        let Ok(image) = decode(path) else { continue };
        let input = model.detector.preprocess().apply(&image)?;
        let input = input.view().insert_axis(Axis(0));
        // Twice: the first one warms the buffers.
        for counted in [false, true] {
            let start = Instant::now();
            std::hint::black_box(model.detector.predict_batch(input)?);
            if counted {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
}

impl Row {
    fn new(precision: Precision, report: &TestReport, score_ms: f64) -> Row {
        Row {
            precision,
            image: report.image.as_ref().map(|m| m.auroc),
            pixel: report.pixel.as_ref().map(|m| m.auroc),
            score_ms,
            file_ms: report.latency_p50_ms,
        }
    }

    fn json(&self, first: &Row) -> Value {
        let change = |mine: Option<f64>, first: Option<f64>| mine.zip(first).map(|(a, b)| a - b);
        json!({
            "precision": self.precision,
            "available": self.precision.is_available(),
            "image_auroc": self.image,
            "image_auroc_change": change(self.image, first.image),
            "pixel_auroc": self.pixel,
            "pixel_auroc_change": change(self.pixel, first.pixel),
            "score_ms": self.score_ms,
            "file_to_verdict_ms": self.file_ms,
        })
    }
}

fn table(config: &Config, category: &str, threads: usize, rows: &[Row]) -> String {
    let mut text = format!(
        " {} on {category}, {threads} threads; ms a picture: scored alone, and from file to verdict\n\n",
        config.model
    );
    let heads = ["image_auroc", "change", "pixel_auroc", "change", "score", "file"];
    text += &format!(" {:<10}", "precision");
    heads.iter().for_each(|head| text += &format!(" {head:>11}"));
    for row in rows {
        text += &format!("\n {:<10}", row.precision.name());
        for (mine, first) in [(row.image, rows[0].image), (row.pixel, rows[0].pixel)] {
            match mine.zip(first) {
                Some((mine, first)) => text += &format!(" {mine:>11.4} {:>+11.4}", mine - first),
                None => text += &format!(" {:>11} {:>11}", "-", "-"),
            }
        }
        text += &format!(" {:>11.2} {:>11.2}", row.score_ms, row.file_ms);
    }
    text
}
