use std::sync::atomic::{AtomicUsize, Ordering};

use blemish_tensor::Device;

use crate::{CoreError, Detect, Epoch, Result};

/// Everything a piece of work gets from outside: where to compute, the seed, whom to tell, when to stop.
///
/// Threads are those of the current `rayon` pool; results do not depend on their number.
pub struct Session<'a> {
    /// Where to compute what has a form for it; the rest is computed on the CPU.
    pub device: Device,
    /// The only source of randomness.
    pub seed: u64,
    /// Receives progress and says when to stop.
    pub progress: &'a dyn Progress,
    /// Chooses the best epoch of a training in place of the loss of good pictures held out.
    pub judge: Option<&'a dyn Judge>,
}

impl<'a> Session<'a> {
    /// A session on the CPU that tells nobody.
    pub fn quiet(seed: u64) -> Session<'static> {
        Session { device: Device::cpu(), seed, progress: &NoProgress, judge: None }
    }

    /// Announces a task of `total` steps (0 if unknown).
    pub fn task(&self, name: &'static str, total: usize) -> Task<'a> {
        self.progress.begin(name, total);
        Task { name, total, done: AtomicUsize::new(0), progress: self.progress }
    }
}

/// Says how good a model is as it stands after an epoch.
pub trait Judge: Sync {
    /// Larger is better.
    ///
    /// # Errors
    /// Whatever keeps the model from being judged; the training ends with it.
    fn judge(&self, model: &dyn Detect) -> Result<f64>;
}

/// Whom to tell how far the work is; implemented by programs.
pub trait Progress: Send + Sync {
    /// A task of `total` steps starts (0 if the number is unknown).
    fn begin(&self, task: &'static str, total: usize);
    /// `done` of `total` steps are finished.
    fn advance(&self, task: &'static str, done: usize, total: usize);
    /// The task is over.
    fn end(&self, task: &'static str);
    /// An epoch of a training is over. A training that goes on from a checkpoint tells the epochs before it, too.
    fn epoch(&self, _: &Epoch) {}
    /// Whether the user asked to stop.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Tells nobody and never stops.
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _: &'static str, _: usize) {}
    fn advance(&self, _: &'static str, _: usize, _: usize) {}
    fn end(&self, _: &'static str) {}
}

/// A running task; reports its end when dropped.
pub struct Task<'a> {
    name: &'static str,
    total: usize,
    done: AtomicUsize,
    progress: &'a dyn Progress,
}

impl Task<'_> {
    /// `steps` more are finished.
    ///
    /// # Errors
    /// [`CoreError::Interrupted`] once the user asked to stop.
    pub fn step(&self, steps: usize) -> Result<()> {
        let done = self.done.fetch_add(steps, Ordering::Relaxed) + steps;
        self.progress.advance(self.name, done, self.total);
        if self.progress.interrupted() { Err(CoreError::Interrupted) } else { Ok(()) }
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.progress.end(self.name);
    }
}
