//! `blemish test`.

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use blemish::core::Progress;
use blemish::datasets::{Dataset, Sample};
use blemish::engine::{Scored, TestReport};
use blemish::results::{Line, Names, Panel, Run, draw, json};
use blemish::{Engine, Error, Model};
use ndarray::Array2;
use serde_json::json;

use crate::args::{Args, Test};
use crate::{progress::Bars, say, train};

pub(crate) fn run(args: &Args, command: &Test, progress: &Bars) -> anyhow::Result<u8> {
    let mut config = train::base(args)?;
    train::data(&mut config, &command.data)?;
    let engine = Engine::new(&config)?;
    let model = engine.install(|| Model::load_on(&command.model_file, engine.device()))?;
    say::placement(args.quiet, &engine, &model, "");
    let dataset = Dataset::open(&config.data, model.seed).map_err(Error::from)?;
    for line in &dataset.notes {
        say::note(args.quiet, &format!(" note   {line}"));
    }
    if dataset.test.is_empty() {
        anyhow::bail!("{} has no test pictures.\nGive a folder with test/, or --bad DIR", dataset.root.display());
    }
    let output = command.output.clone().or(config.output.into());
    let (run, own) = place(command, output.as_deref(), &model, &dataset)?;
    let area = command.min_region_area.unwrap_or(config.min_region_area);
    let done = score(&engine, &model, &dataset.test, area, progress, (!command.no_pictures).then_some(&run));
    let (report, mut lines) = match done {
        Ok(done) => done,
        Err(error) => {
            if own {
                run.discard_pictures();
            } else {
                run.discard();
            }
            return Err(error.into());
        }
    };
    // Pictures without a line are those that were skipped, in order.
    let unread = dataset.test.iter().zip(&mut lines).filter(|(_, line)| line.is_none());
    for ((sample, line), text) in unread.zip(&report.skipped) {
        say::warn(&format!(" skipped {text}"));
        let named = format!("{}: ", sample.path.display());
        let skipped = Line::skipped(&sample.path, text.strip_prefix(&named).unwrap_or(text));
        *line = Some(Line { kind: sample.kind.clone(), ..skipped });
    }
    let lines: Vec<Line> = lines.into_iter().flatten().collect();
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
    if !own {
        run.set_latest()?;
    }
    if args.json {
        say::out(&value.to_string())?;
    } else {
        say::out(&text(&report, &model, &run))?;
    }
    Ok(if report.skipped.is_empty() { say::OK } else { say::SKIPPED })
}

/// The folder of the model's own run, if it lies in one that was not tested yet; a new run otherwise. And which it is.
fn place(command: &Test, output: Option<&Path>, model: &Model, dataset: &Dataset) -> Result<(Run, bool), Error> {
    let beside = command.model_file.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    let own = beside.filter(|p| p.join("config.toml").is_file() && !p.join("metrics.json").exists());
    match own.filter(|_| command.output.is_none()) {
        Some(folder) => Ok((Run::at(folder), true)),
        None => {
            let output = output.map_or_else(|| PathBuf::from("results"), Path::to_path_buf);
            Ok((Run::new(&output, model.detector.kind(), &dataset.name, &dataset.category)?, false))
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
) -> Result<(TestReport, Vec<Option<Line>>), Error> {
    let mut lines = vec![None; samples.len()];
    let mut names = Names::default();
    let (send, receive) = sync_channel::<Job>(8);
    let pixel = model.decision.pixel;
    std::thread::scope(|scope| {
        let drawer = scope.spawn(move || -> Result<(), Error> {
            for (name, scored, mask) in receive {
                if let Some(run) = pictures {
                    let png = draw(&Panel {
                        scored: &scored,
                        pixel: pixel.as_ref(),
                        mask: mask.as_ref(),
                        min_region_area: area,
                    })?;
                    run.write(&format!("pictures/{name}.png"), &png)?;
                }
            }
            Ok(())
        });
        let report =
            engine.test(model, samples, area, progress as &dyn Progress, &mut |index, sample, scored, mask| {
                if let Some(line) = lines.get_mut(index) {
                    *line = Some(Line::scored(&sample.path, &sample.kind, scored));
                }
                if pictures.is_some() {
                    let name = names.unique(&sample.kind, &sample.path);
                    // The drawer only stops early with an error of its own, which is told below.
                    let _ = send.send((name, scored.clone(), mask.cloned()));
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

fn text(report: &TestReport, model: &Model, run: &Run) -> String {
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
    text += &format!(" {}\n", train::threshold(model));
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
