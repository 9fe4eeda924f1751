//! Training curves in a run's folder, brought up to date after every epoch.

mod events;
mod plot;

use std::sync::{Mutex, PoisonError};

use blemish_core::{Epoch, Progress};

use self::events::Events;
use super::Run;
use crate::{Error, Result};

/// Name of the table of the epochs.
pub const CURVE: &str = "curve.csv";

/// Name of the picture of the epochs.
pub const CURVE_PICTURE: &str = "curve.svg";

/// Passes progress on, and writes each epoch into a run's folder: as a line of `curve.csv`, in the picture `curve.svg` and as
/// TensorBoard events (`tensorboard --logdir results`). Detectors that do not train in epochs leave none of them.
pub struct Recorder<'a> {
    run: &'a Run,
    progress: &'a dyn Progress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    epochs: Vec<Epoch>,
    events: Option<Events>,
    error: Option<Error>,
}

impl<'a> Recorder<'a> {
    /// A recorder into the folder of `run` that tells `progress`, too.
    pub fn new(run: &'a Run, progress: &'a dyn Progress) -> Recorder<'a> {
        Recorder { run, progress, state: Mutex::default() }
    }

    /// The epochs told.
    ///
    /// # Errors
    /// The first file that could not be written.
    pub fn finish(self) -> Result<Vec<Epoch>> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.error.map_or(Ok(state.epochs), Err)
    }

    fn write(&self, state: &mut State) -> Result<()> {
        self.run.write(CURVE, table(&state.epochs)?.as_bytes())?;
        self.run.write(CURVE_PICTURE, plot::svg(&state.epochs).as_bytes())?;
        let Some(epoch) = state.epochs.last() else { return Ok(()) };
        let events = match &mut state.events {
            Some(events) => events,
            none => none.insert(Events::new(self.run.folder())?),
        };
        events.add(epoch)
    }
}

impl Progress for Recorder<'_> {
    fn begin(&self, task: &'static str, total: usize) {
        self.progress.begin(task, total);
    }

    fn advance(&self, task: &'static str, done: usize, total: usize) {
        self.progress.advance(task, done, total);
    }

    fn end(&self, task: &'static str) {
        self.progress.end(task);
    }

    fn epoch(&self, epoch: &Epoch) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A training that starts again tells its first epoch again.
        if state.epochs.last().is_some_and(|last| last.epoch >= epoch.epoch) {
            state.epochs.retain(|e| e.epoch < epoch.epoch);
            state.events = None;
        }
        state.epochs.push(*epoch);
        if state.error.is_none()
            && let Err(error) = self.write(&mut state)
        {
            state.error = Some(error);
        }
        self.progress.epoch(epoch);
    }

    fn interrupted(&self) -> bool {
        self.progress.interrupted()
    }
}

fn table(epochs: &[Epoch]) -> Result<String> {
    let bad = |e: String| Error::Setting { key: CURVE.to_owned(), why: e };
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(["epoch", "train_loss", "validation_loss", "judged", "lr", "seconds"])
        .map_err(|e| bad(e.to_string()))?;
    for e in epochs {
        let row = [
            e.epoch.to_string(),
            e.train_loss.to_string(),
            e.validation_loss.map_or_else(String::new, |loss| loss.to_string()),
            e.judged.map_or_else(String::new, |good| good.to_string()),
            e.lr.to_string(),
            format!("{:.3}", e.seconds),
        ];
        out.write_record(row).map_err(|e| bad(e.to_string()))?;
    }
    let bytes = out.into_inner().map_err(|e| bad(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use blemish_core::NoProgress;

    fn epoch(epoch: usize) -> Epoch {
        let loss = 1.0 / epoch as f64;
        Epoch { epoch, train_loss: loss, validation_loss: Some(loss + 0.1), judged: None, lr: 1e-3, seconds: 0.5 }
    }

    #[test]
    fn every_epoch_is_in_every_file() {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::at(dir.path());
        let recorder = Recorder::new(&run, &NoProgress);
        (1..=3).for_each(|e| recorder.epoch(&epoch(e)));
        // The same training again from its start, and one epoch more.
        (1..=4).for_each(|e| recorder.epoch(&epoch(e)));
        assert_eq!(recorder.finish().unwrap().len(), 4);
        let table = std::fs::read_to_string(dir.path().join(CURVE)).unwrap();
        assert_eq!(table.lines().count(), 5, "{table}");
        assert_eq!(table.lines().nth(2).unwrap(), "2,0.5,0.6,,0.001,0.500");
        assert!(std::fs::read_to_string(dir.path().join(CURVE_PICTURE)).unwrap().ends_with("</svg>\n"));
        let names = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        assert_eq!(names.filter(|n| n.contains("tfevents")).count(), 1);
    }

    #[test]
    fn nothing_is_left_without_epochs() {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::at(dir.path());
        assert!(Recorder::new(&run, &NoProgress).finish().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_place_that_is_no_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("none"), "a file").unwrap();
        let run = Run::at(&dir.path().join("none/below"));
        let recorder = Recorder::new(&run, &NoProgress);
        recorder.epoch(&epoch(1));
        assert!(recorder.finish().unwrap_err().to_string().contains("none"));
    }
}
