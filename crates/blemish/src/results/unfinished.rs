use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::{MODEL, Run, plain};
use crate::{Error, Result};

/// Name of the state of an unfinished training.
pub const CHECKPOINT: &str = "checkpoint.safetensors";

/// Name of the file a training holds locked while it runs.
const LOCK: &str = ".lock";

/// A run's folder that one training has for itself until this is dropped. The system gives it back even after a crash.
pub struct Claim {
    run: Run,
    _lock: File,
}

impl Claim {
    /// Takes a run's folder.
    ///
    /// # Errors
    /// [`Error::Busy`] if another training is at work there.
    pub fn new(run: Run) -> Result<Claim> {
        let path = run.folder().join(LOCK);
        let lock = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Claim { run, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { folder: run.folder().to_path_buf() }),
            Err(TryLockError::Error(e)) => Err(Error::io(&path)(e)),
        }
    }

    /// The newest run below `output/model/dataset/category` with a checkpoint and no model that no one is working on.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn unfinished(output: &Path, model: &str, dataset: &str, category: &str) -> Result<Option<Claim>> {
        let parent = output.join(model).join(plain(dataset)).join(plain(category));
        if !parent.is_dir() {
            return Ok(None);
        }
        let entries = std::fs::read_dir(&parent).map_err(Error::io(&parent))?.flatten();
        let mut runs: Vec<(u32, PathBuf)> =
            entries.filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path()))).collect();
        runs.sort_unstable_by(|a, b| b.cmp(a));
        for (_, folder) in runs {
            if folder.join(CHECKPOINT).is_file() && !folder.join(MODEL).is_file() {
                match Claim::new(Run::at(&folder)) {
                    Ok(claim) => return Ok(Some(claim)),
                    Err(Error::Busy { .. }) => {}
                    Err(other) => return Err(other),
                }
            }
        }
        Ok(None)
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Where its checkpoint is or will be.
    pub fn checkpoint(&self) -> PathBuf {
        self.run.folder().join(CHECKPOINT)
    }

    /// Whether there is something to go on from.
    pub fn resumable(&self) -> bool {
        self.checkpoint().is_file()
    }

    /// Ends a training that has its model: the checkpoint is needed no more.
    pub fn finish(self) -> Run {
        let _ = std::fs::remove_file(self.checkpoint());
        let _ = std::fs::remove_file(self.run.folder().join(LOCK));
        self.run
    }

    /// Removes the folder of a training that came to nothing and left no checkpoint.
    pub fn discard(self) {
        if !self.resumable() {
            self.run.discard();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_unfinished_run_is_found_unless_it_is_busy() {
        let dir = tempfile::tempdir().unwrap();
        let find = || Claim::unfinished(dir.path(), "cflow", "set", "part").unwrap();
        assert!(find().is_none());
        let run = || Run::new(dir.path(), "cflow", "set", "part").unwrap();
        let (one, two, three, four) = (run(), run(), run(), run());
        for run in [&one, &two, &three] {
            run.write(CHECKPOINT, b"1").unwrap();
        }
        // Finished, and with nothing to go on from.
        three.write(MODEL, b"1").unwrap();
        four.set_latest().unwrap();
        let found = find().unwrap();
        assert_eq!(found.run().folder(), two.folder());
        assert!(matches!(Claim::new(Run::at(two.folder())), Err(Error::Busy { .. })));
        let other = find().unwrap();
        assert_eq!(other.run().folder(), one.folder());
        other.discard();
        assert!(one.folder().is_dir(), "a checkpoint is worth keeping");
        found.finish();
        assert!(!two.folder().join(CHECKPOINT).exists());
        Claim::new(Run::at(four.folder())).unwrap().discard();
        assert!(!four.folder().exists());
    }
}
