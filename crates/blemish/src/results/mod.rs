//! The folder a run leaves behind: `results/<model>/<dataset>/<category>/<run>/`.
//!
//! | file | what it holds |
//! |---|---|
//! | `model.safetensors` | the model |
//! | `config.toml` | every setting in force |
//! | `metrics.json` | metrics, counts at the threshold, times |
//! | `predictions.csv`, `predictions.jsonl` | a line for each picture, with score, threshold, verdict and regions |
//! | `curve.csv`, `curve.svg`, `events.out.tfevents.*` | the training curve of models that train in epochs |
//! | `checkpoint.safetensors` | where a training stands; gone once the model is there |
//! | `pictures/` | photo, heat map and outlines side by side |
//!
//! Runs are numbered; none is ever overwritten. `latest` points to the newest that holds a model. Every file is written
//! under another name first and then renamed.

mod colour;
mod curve;
mod names;
mod pictures;
mod unfinished;

use std::io::Write;
use std::path::{Path, PathBuf};

use blemish_core::Label;
use serde::Serialize;

pub use curve::{CURVE, CURVE_PICTURE, Recorder};
pub use names::Names;
pub use pictures::{Panel, draw};
pub use unfinished::{CHECKPOINT, Claim};

use crate::engine::Scored;
use crate::regions::Region;
use crate::{Error, Result};

/// Name of the model in a run's folder.
pub const MODEL: &str = "model.safetensors";

/// One run's folder.
#[derive(Clone, Debug)]
pub struct Run {
    folder: PathBuf,
}

/// One picture's line in `predictions.csv` and `predictions.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The picture.
    pub path: String,
    /// `good`, a kind of defect, or `unknown`.
    pub kind: String,
    /// `good`, `defect`, or `skipped`.
    pub verdict: &'static str,
    /// Calibrated score, 0..1.
    pub score: Option<f64>,
    /// Raw score.
    pub raw: Option<f64>,
    /// Raw threshold.
    pub threshold: Option<f64>,
    /// Defect regions in original pixels, strongest first.
    pub regions: Vec<Region>,
    /// Why it was skipped.
    pub reason: Option<String>,
}

impl Line {
    /// The line of a scored picture.
    pub fn scored(path: &Path, kind: &str, scored: &Scored) -> Line {
        Line {
            path: path.display().to_string(),
            kind: kind.to_owned(),
            verdict: if scored.verdict.label == Label::Defect { "defect" } else { "good" },
            score: Some(scored.verdict.score),
            raw: Some(scored.verdict.raw),
            threshold: Some(scored.verdict.threshold),
            regions: scored.regions.clone(),
            reason: None,
        }
    }

    /// The line of a picture that could not be read.
    pub fn skipped(path: &Path, reason: &str) -> Line {
        Line {
            path: path.display().to_string(),
            kind: "unknown".to_owned(),
            verdict: "skipped",
            score: None,
            raw: None,
            threshold: None,
            regions: Vec::new(),
            reason: Some(reason.to_owned()),
        }
    }
}

impl Run {
    /// A new numbered folder below `output/model/dataset/category`.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn new(output: &Path, model: &str, dataset: &str, category: &str) -> Result<Run> {
        let parent = output.join(model).join(plain(dataset)).join(plain(category));
        std::fs::create_dir_all(&parent).map_err(Error::io(&parent))?;
        let entries = std::fs::read_dir(&parent).map_err(Error::io(&parent))?;
        let numbers = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        let mut number = numbers.max().unwrap_or(0);
        loop {
            number += 1;
            let folder = parent.join(format!("{number:03}"));
            match std::fs::create_dir(&folder) {
                Ok(()) => return Ok(Run { folder }),
                // Another run was quicker.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(&folder)(e)),
            }
        }
    }

    /// A folder that is there already, of an earlier run for instance.
    pub fn at(folder: &Path) -> Run {
        Run { folder: folder.to_path_buf() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file in the folder, whole or not at all.
    ///
    /// # Errors
    /// A full disk, for instance.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.folder.join(name);
        write(&path, bytes)?;
        Ok(path)
    }

    /// Writes `predictions.csv` and `predictions.jsonl`.
    ///
    /// # Errors
    /// A full disk, for instance.
    pub fn predictions(&self, lines: &[Line]) -> Result<()> {
        self.write("predictions.csv", csv(lines)?.as_bytes())?;
        let json: Vec<String> = lines.iter().map(json).collect::<Result<_>>()?;
        self.write("predictions.jsonl", (json.join("\n") + "\n").as_bytes())?;
        Ok(())
    }

    /// Lets `latest` beside the folder point to it; a text file where links are not to be had. A run without a model does
    /// not take the place of one that has one: `latest/model.safetensors` stays what it is.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn set_latest(&self) -> Result<()> {
        // Who came here by way of `latest` means the run behind it; a link must never point to itself.
        let folder = self.folder.canonicalize().map_err(Error::io(&self.folder))?;
        let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { return Ok(()) };
        let latest = parent.join("latest");
        if !folder.join(MODEL).is_file() && latest.join(MODEL).is_file() {
            return Ok(());
        }
        #[cfg(unix)]
        {
            let part = parent.join(format!(".latest-{}", name.to_string_lossy()));
            let _ = std::fs::remove_file(&part);
            if std::os::unix::fs::symlink(name, &part).is_ok() && std::fs::rename(&part, &latest).is_ok() {
                return Ok(());
            }
            let _ = std::fs::remove_file(&part);
        }
        write(&latest, name.to_string_lossy().as_bytes())
    }

    /// Removes the pictures of a test that came to nothing in the folder of an earlier run.
    pub fn discard_pictures(&self) {
        let _ = std::fs::remove_dir_all(self.folder.join("pictures"));
    }

    /// Removes the folder of a run that came to nothing.
    pub fn discard(self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// One line of JSON.
///
/// # Errors
/// None in practice.
pub fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Setting { key: "json".to_owned(), why: e.to_string() })
}

/// Writes a file under another name and renames it.
///
/// # Errors
/// A full disk, for instance; nothing is left behind then.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let save = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut part = tempfile::Builder::new().prefix(".blemish-").suffix(".part").tempfile_in(folder)?;
        part.write_all(bytes)?;
        part.as_file().sync_data()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            part.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        part.persist(path)?;
        Ok(())
    };
    save().map_err(Error::io(path))
}

fn csv(lines: &[Line]) -> Result<String> {
    let bad = |e: csv::Error| Error::Setting { key: "predictions.csv".to_owned(), why: e.to_string() };
    let mut out = csv::Writer::from_writer(Vec::new());
    let head =
        ["path", "kind", "verdict", "score", "raw", "threshold", "regions", "x", "y", "w", "h", "peak", "reason"];
    out.write_record(head).map_err(bad)?;
    let number = |v: Option<f64>| v.map_or_else(String::new, |v| v.to_string());
    for line in lines {
        let first = line.regions.first();
        let edge = |f: fn(&Region) -> usize| first.map_or_else(String::new, |r| f(r).to_string());
        out.write_record([
            line.path.clone(),
            line.kind.clone(),
            line.verdict.to_owned(),
            number(line.score),
            number(line.raw),
            number(line.threshold),
            line.regions.len().to_string(),
            edge(|r| r.x),
            edge(|r| r.y),
            edge(|r| r.w),
            edge(|r| r.h),
            number(first.map(|r| r.peak)),
            line.reason.clone().unwrap_or_default(),
        ])
        .map_err(bad)?;
    }
    let bytes =
        out.into_inner().map_err(|e| Error::Setting { key: "predictions.csv".to_owned(), why: e.to_string() })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A name that is one folder on every system.
fn plain(name: &str) -> String {
    let kept: String = name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    match kept.trim_matches('.') {
        "" => "data".to_owned(),
        rest => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_never_meet() {
        let dir = tempfile::tempdir().unwrap();
        let runs: Vec<Run> = (0..3).map(|_| Run::new(dir.path(), "padim", "my data", "../x").unwrap()).collect();
        assert_eq!(runs[2].folder(), dir.path().join("padim/my_data/_x/003"));
        runs[2].set_latest().unwrap();
        runs[0].set_latest().unwrap();
        runs[0].write("a.txt", b"1").unwrap();
        assert!(dir.path().join("padim/my_data/_x/latest").exists());
        #[cfg(unix)]
        assert!(dir.path().join("padim/my_data/_x/latest/a.txt").exists());
        let names = std::fs::read_dir(runs[0].folder()).unwrap().count();
        assert_eq!(names, 1);
    }

    #[test]
    #[cfg(unix)]
    fn latest_never_loses_its_model() {
        let dir = tempfile::tempdir().unwrap();
        let run = || Run::new(dir.path(), "padim", "set", "part").unwrap();
        let latest = dir.path().join("padim/set/part/latest");
        let first = run();
        first.write(MODEL, b"1").unwrap();
        first.set_latest().unwrap();
        // By way of the link itself, as after `test --model-file .../latest/model.safetensors`.
        Run::at(&latest).set_latest().unwrap();
        assert_eq!(std::fs::read(latest.join(MODEL)).unwrap(), b"1");
        // A run that only tested.
        run().set_latest().unwrap();
        assert_eq!(std::fs::read(latest.join(MODEL)).unwrap(), b"1");
        let third = run();
        third.write(MODEL, b"3").unwrap();
        third.set_latest().unwrap();
        assert_eq!(std::fs::read(latest.join(MODEL)).unwrap(), b"3");
    }

    #[test]
    fn lines_survive_odd_names() {
        let line = Line::skipped(Path::new("a,\"b\"\n.png"), "ends early, at 3");
        let text = csv(std::slice::from_ref(&line)).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let record = reader.records().next().unwrap().unwrap();
        assert_eq!(&record[0], "a,\"b\"\n.png");
        assert_eq!(&record[12], "ends early, at 3");
        let value: serde_json::Value = serde_json::from_str(&json(&line).unwrap()).unwrap();
        assert_eq!(value["verdict"], "skipped");
    }
}
