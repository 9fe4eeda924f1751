//! `blemish predict`.

use std::io::BufRead;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use blemish::core::{Calibration, Label, Progress, Session, ThresholdSource};
use blemish::datasets::{Files, expand};
use blemish::engine::Outcome;
use blemish::results::{Line, Panel, draw, write};
use blemish::{Engine, Error, Model};

use crate::args::{Args, Predict};
use crate::{progress::Bars, say, test, train};

pub(crate) fn run(args: &Args, command: &Predict, progress: &Bars) -> anyhow::Result<u8> {
    let config = train::base(args)?;
    let engine = Engine::new(&config)?;
    let mut model = engine.install(|| Model::load_on(&command.model_file, engine.device()))?;
    let placement = say::placement(args.quiet, &engine, &model, "");
    let paths = pictures(command)?;
    if let Some(threshold) = command.threshold {
        model.decision.image =
            Calibration::new(model.decision.image.typical.min(threshold), threshold).map_err(Error::from)?;
        model.decision.image_source = ThresholdSource::Given;
    }
    let area = command.min_region_area.unwrap_or(config.min_region_area);
    let width = paths.iter().map(|p| p.display().to_string().chars().count()).max().unwrap_or(0).min(60);
    let source = Files::unlabelled(paths.clone());
    // Names of pictures may repeat in different folders: numbered, in order.
    let digits = paths.len().to_string().len();
    let mut summary = Summary::default();
    let mut lines = Vec::new();
    let start = Instant::now();
    let session =
        Session { device: engine.device().clone(), progress: progress as &dyn Progress, ..Session::quiet(config.seed) };
    let mut stopped = None;
    let result = engine.score(&model, &source, area, &session, "predict", &mut |index, outcome| {
        let path = &paths[index];
        let line = match &outcome {
            Ok(scored) => Line::scored(path, "unknown", scored),
            Err(why) => Line::skipped(path, why),
        };
        summary.add(&outcome);
        let text = if args.json { test::json_line(&line)? } else { row(&line, &outcome, width) };
        if let Err(error) = say::out(&text) {
            stopped = Some(error);
            return Err(Error::Core(blemish::core::CoreError::Interrupted));
        }
        if let (Some(folder), Ok(scored)) = (&command.save, &outcome) {
            let png = draw(&Panel { scored, pixel: model.decision.pixel.as_ref(), mask: None, min_region_area: area })?;
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            write(&folder.join(format!("{:0digits$}_{stem}.png", index + 1)), &png)?;
        }
        lines.push(line);
        Ok(())
    });
    if let Some(error) = stopped {
        return Err(error);
    }
    result?;
    // A GPU may have been given up on the way.
    if model.placement() != placement {
        say::placement(args.quiet, &engine, &model, "in the end ");
    }
    if let Some(folder) = &command.save {
        blemish::results::Run::at(folder).predictions(&lines)?;
    }
    let code = match (summary.skipped, command.fail_on_defect && summary.defects > 0) {
        (0, false) => say::OK,
        (_, true) => say::DEFECT,
        _ => say::SKIPPED,
    };
    if !args.quiet && !args.json {
        say::out(&summary.text(paths.len(), start.elapsed(), code))?;
    }
    Ok(code)
}

/// The pictures asked for; `-` reads a list from stdin.
fn pictures(command: &Predict) -> anyhow::Result<Vec<PathBuf>> {
    let mut named: Vec<String> = command.pictures.iter().chain(&command.image_path).cloned().collect();
    let mut listed = Vec::new();
    if let Some(at) = named.iter().position(|name| name == "-") {
        named.remove(at);
        for line in std::io::stdin().lock().lines() {
            let line = line.context("the list on stdin")?;
            if !line.trim().is_empty() {
                listed.push(line.trim().to_owned());
            }
        }
    }
    if named.is_empty() && listed.is_empty() {
        anyhow::bail!("no pictures were named.\nGive files, folders or patterns, or - for a list on stdin");
    }
    let mut paths = expand(&named).map_err(Error::from)?;
    for line in listed {
        // A list is made by programs: a file that is gone by now is skipped like any unreadable one.
        match expand(std::slice::from_ref(&line)) {
            Ok(found) => paths.extend(found),
            Err(_) => paths.push(PathBuf::from(line)),
        }
    }
    if paths.is_empty() {
        anyhow::bail!("{} holds no pictures", named.join(", "));
    }
    Ok(paths)
}

/// One line for people.
fn row(line: &Line, outcome: &Outcome, width: usize) -> String {
    let scored = match outcome {
        Err(why) => return format!(" {:<width$}   skipped  {}", line.path, why.replace('\n', "; ")),
        Ok(scored) => scored,
    };
    let v = scored.verdict;
    let word = if v.label == Label::Defect { "DEFECT" } else { "good  " };
    let mut text = format!(
        " {:<width$}   {word}   score {:.2}   (raw {:.4}, threshold {:.4})",
        line.path, v.score, v.raw, v.threshold
    );
    if let (Label::Defect, Some(r)) = (v.label, scored.regions.first()) {
        let count = scored.regions.len();
        let s = if count == 1 { "" } else { "s" };
        text += &format!("   {count} region{s}: x={} y={} w={} h={}, peak {:.2}", r.x, r.y, r.w, r.h, r.peak);
    }
    text
}

#[derive(Default)]
struct Summary {
    defects: usize,
    skipped: usize,
}

impl Summary {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Ok(scored) => self.defects += usize::from(scored.verdict.label == Label::Defect),
            Err(_) => self.skipped += 1,
        }
    }

    fn text(&self, all: usize, time: Duration, code: u8) -> String {
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let mut text = format!(" {}, {}", plural(all, "image"), plural(self.defects, "defect"));
        if self.skipped > 0 {
            text += &format!(", {} skipped", self.skipped);
        }
        text += &format!(", {:.0} ms per image", time.as_secs_f64() * 1e3 / all.max(1) as f64);
        let reason = match code {
            say::SKIPPED => "some inputs could not be read",
            say::DEFECT => "there is a defect",
            _ => return text,
        };
        text + &format!("          exit code {code}: {reason}")
    }
}
