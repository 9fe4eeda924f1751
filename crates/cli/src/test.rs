//! `blemish test`.

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use blemish::core::{Decision, Progress};
use blemish::datasets::{Dataset, Sample};
use blemish::engine::{Scored, TestReport};
use blemish::results::{Line, Panel, Run, draw, json};
use blemish::{Engine, Error, Model};
use ndarray::Array2;
use serde_json::json;

use crate::args::{Args, Test};
use crate::{progress::Bars, say, train};

pub(crate) fn run(args: &Args, command: &Test, progress: &Bars) -> anyhow::Result<u8> {
    let mut config = train::base(args)?;
    train::data(&mut config, &command.data)?;
    let engine = Engine::new(&config)?;
    let model = engine.install(|| Model::load(&command.model_file))?;
    let dataset = Dataset::open(&config.data, model.seed).map_err(Error::from)?;
    for line in &dataset.notes {
        say::note(args.quiet, &format!(" note   {line}"));
    }
    if dataset.test.is_empty() {
        anyhow::bail!("{} has no test pictures.\nGive a folder with test/, or --bad DIR", dataset.root.display());
    }
    let output = command.output.clone().or(config.output.into());
    let run = place(command, output.as_deref(), &model, &dataset)?;
    let area = command.min_region_area.unwrap_or(config.min_region_area);
    let done = score(&engine, &model, &dataset.test, area, progress, (!command.no_pictures).then_some(&run));
    let (report, mut lines) = match done {
        Ok(done) => done,
        Err(error) => {
            if command.output.is_some() {
                run.discard();
            }
            return Err(error.into());
        }
    };
    for text in &report.skipped {
        say::warn(&format!(" skipped {text}"));
        let (path, why) = text.split_once(": ").unwrap_or((text, ""));
        lines.push(Line::skipped(Path::new(path), why));
    }
    run.predictions(&lines)?;
    let value = json!({
        "model": model.detector.kind(),
        "category": dataset.category,
        "image_auroc": report.image.as_ref().map(|m| m.auroc),
        "pixel_auroc": report.pixel.as_ref().map(|m| m.auroc),
        "aupro": report.pixel.as_ref().map(|m| m.aupro),
        "latency_p50_ms": report.latency_p50_ms,
        "latency_p99_ms": report.latency_p99_ms,
        "results": run.folder().display().to_string(),
        "decision": model.decision,
        "report": report,
    });
    run.write("metrics.json", format!("{value:#}\n").as_bytes())?;
    run.set_latest()?;
    if args.json {
        say::out(&value.to_string())?;
    } else {
        say::out(&text(&report, &model.decision, &run))?;
    }
    Ok(if report.skipped.is_empty() { say::OK } else { say::SKIPPED })
}

/// The folder of the model's own run, if it lies in one; a new run otherwise.
fn place(command: &Test, output: Option<&Path>, model: &Model, dataset: &Dataset) -> Result<Run, Error> {
    let own =
        command.model_file.parent().filter(|p| p.join("config.toml").is_file() && !p.join("metrics.json").exists());
    match own.filter(|_| command.output.is_none()) {
        Some(folder) => Ok(Run::at(folder)),
        None => {
            let output = output.map_or_else(|| PathBuf::from("results"), Path::to_path_buf);
            Run::new(&output, model.detector.kind(), &dataset.name, &dataset.category)
        }
    }
}

/// A picture to be drawn while the next ones are scored.
type Job = (String, Scored, Option<Array2<bool>>);

fn score(
    engine: &Engine,
    model: &Model,
    samples: &[Sample],
    area: usize,
    progress: &Bars,
    pictures: Option<&Run>,
) -> Result<(TestReport, Vec<Line>), Error> {
    let mut lines = Vec::with_capacity(samples.len());
    let (send, receive) = sync_channel::<Job>(8);
    let pixel = model.decision.pixel;
    std::thread::scope(|scope| {
        let drawer = scope.spawn(move || -> Result<(), Error> {
            for (name, scored, mask) in receive {
                if let Some(run) = pictures {
                    let png = draw(&Panel { scored: &scored, pixel: pixel.as_ref(), mask: mask.as_ref() })?;
                    run.write(&format!("pictures/{name}.png"), &png)?;
                }
            }
            Ok(())
        });
        let report = engine.test(model, samples, area, progress as &dyn Progress, &mut |_, sample, scored, mask| {
            lines.push(Line::scored(&sample.path, &sample.kind, scored));
            if pictures.is_some() {
                let stem = sample.path.file_stem().unwrap_or_default().to_string_lossy();
                // The drawer only stops early with an error of its own, which is told below.
                let _ = send.send((format!("{}_{stem}", sample.kind), scored.clone(), mask.cloned()));
            }
            Ok(())
        });
        drop(send);
        let drawn = drawer
            .join()
            .unwrap_or_else(|_| Err(Error::Setting { key: "pictures".into(), why: "drawing failed".into() }));
        let report = report?;
        drawn?;
        Ok((report, lines))
    })
}

fn text(report: &TestReport, decision: &Decision, run: &Run) -> String {
    let mut text = format!(" {} good and {} bad pictures in {:.1} s\n", report.good, report.bad, report.seconds);
    if let Some(m) = &report.image {
        text += &format!(" image   AUROC {:.4}   AP {:.4}   F1-max {:.4}\n", m.auroc, m.average_precision, m.f1_max);
    }
    if let Some(m) = &report.pixel {
        text += &format!(
            " pixel   AUROC {:.4}   AP {:.4}   F1-max {:.4}   AUPRO {:.4} (0.05: {:.4})\n",
            m.auroc, m.average_precision, m.f1_max, m.aupro, m.aupro_05
        );
    }
    text += &format!(" {}\n", train::threshold(decision));
    text += &format!(
        " at it   {} of {} defects found, {} of {} good parts rejected\n",
        report.true_positives, report.bad, report.false_positives, report.good
    );
    text +=
        &format!(" one picture takes {:.1} ms (p50), {:.1} ms (p99)\n", report.latency_p50_ms, report.latency_p99_ms);
    text + &format!(" look at {}/ (pictures/, predictions.csv, metrics.json)", run.folder().display())
}

/// A line of JSON for each picture, for programs.
pub(crate) fn json_line(line: &Line) -> Result<String, Error> {
    json(line)
}
