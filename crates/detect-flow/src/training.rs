use std::cell::Cell;
use std::path::PathBuf;
use std::time::Instant;

use blemish_core::{Detect, Epoch, Session, Task};
use blemish_grad::Module;
use blemish_grad::optim::{AdamState, Schedule};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::{FlowDetectorError, Result};

/// What the epochs of a run have in common.
pub(crate) struct Plan {
    pub(crate) epochs: usize,
    pub(crate) lr: f32,
    pub(crate) schedule: Schedule,
    pub(crate) validation_share: f64,
    pub(crate) patience: Option<usize>,
    pub(crate) checkpoint: Option<PathBuf>,
    pub(crate) resume: bool,
}

impl Plan {
    pub(crate) fn validate(&self) -> Result<()> {
        let bad = |name, why: String| Err(FlowDetectorError::Params { name, why });
        if self.epochs == 0 {
            return bad("epochs", "0; at least 1".to_owned());
        }
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return bad("lr", format!("{}; above 0", self.lr));
        }
        if !(0.0..1.0).contains(&self.validation_share) {
            return bad("validation_share", format!("{}; 0 to below 1", self.validation_share));
        }
        if self.patience == Some(0) {
            return bad("patience", "0; at least 1, or none to train all epochs".to_owned());
        }
        if self.resume && self.checkpoint.is_none() {
            return bad("resume", "there is no checkpoint to resume from; name one".to_owned());
        }
        Ok(())
    }
}

/// Something that learns epoch by epoch: one trained module for each layer.
pub(crate) trait Learner {
    /// Trains one epoch, counted from 1, calling `batch` after each batch of pictures; returns the mean loss.
    fn epoch(&mut self, epoch: usize, lr: f32, batch: &dyn Fn() -> Result<()>) -> Result<f64>;
    /// The detector as it stands.
    fn model(&self, curve: &[Epoch]) -> Result<Box<dyn Detect>>;
    /// The mean loss of the pictures held out; `None` if there are none.
    fn validate(&self) -> Result<Option<f64>>;
    /// Batches of an epoch.
    fn batches(&self) -> usize;
    /// Brings the modules and the optimisers' memories from wherever they are, for [`parts`](Self::parts).
    fn bring(&mut self) -> Result<()>;
    /// The modules and the optimisers' memories, layer by layer, as they were last brought.
    fn parts(&self) -> Vec<(&dyn Module, &AdamState)>;
    /// Puts weights and optimiser memories back, layer by layer.
    fn restore(&mut self, parts: Vec<(Weights, AdamState)>) -> Result<()>;
    /// After an error of a GPU in an epoch: goes on on the CPU from what was last brought. `false` if it was no such error or
    /// everything is on the CPU already.
    fn leave_gpu(&mut self, epoch: usize, error: &FlowDetectorError) -> Result<bool>;
}

/// Names and values of a module.
pub(crate) type Weights = Vec<(String, ArrayD<f32>)>;

/// How far a run has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) curve: Vec<Epoch>,
    /// Seconds of each epoch, kept apart from the curve.
    pub(crate) seconds: Vec<f64>,
    /// Number of the best epoch and its validation loss, or the negative of what the judge found.
    pub(crate) best: Option<(usize, f64)>,
}

/// What came out: the curve and, if the pictures held out found an earlier epoch better than the last, its weights.
pub(crate) struct Outcome {
    pub(crate) curve: Vec<Epoch>,
    pub(crate) best: Option<Vec<Weights>>,
}

/// Runs the epochs: learning rate, validation, early stopping, checkpoints. `identity` is everything that must be the same
/// for a checkpoint to be resumed.
pub(crate) fn run(
    learner: &mut dyn Learner,
    plan: &Plan,
    identity: &serde_json::Value,
    session: &Session<'_>,
) -> Result<Outcome> {
    let mut state = State::default();
    let mut best: Option<Vec<Weights>> = None;
    if let Some(path) = plan.checkpoint.as_ref().filter(|path| plan.resume && path.exists()) {
        let checkpoint = Checkpoint::read(path, identity, learner)?;
        (state, best) = (checkpoint.state, checkpoint.best);
        learner.restore(checkpoint.parts)?;
    }
    for (epoch, seconds) in state.curve.iter_mut().zip(&state.seconds) {
        epoch.seconds = *seconds;
        session.progress.epoch(epoch);
    }
    let done = state.curve.len();
    // Without patience and judge it is the last epoch, however good.
    let chosen = plan.patience.is_some() || session.judge.is_some();
    let task: Task<'_> = session.task("training", plan.epochs * learner.batches());
    if done > 0 {
        task.step(done.min(plan.epochs) * learner.batches())?;
    }
    for epoch in done + 1..=plan.epochs {
        if stopped(&state, plan.patience) {
            break;
        }
        let start = Instant::now();
        let lr = (f64::from(plan.lr) * plan.schedule.factor(epoch as u64 - 1)) as f32;
        let told = Cell::new(0);
        let (train_loss, validation_loss) = match once(learner, epoch, lr, &task, &told) {
            Err(error) if learner.leave_gpu(epoch, &error)? => once(learner, epoch, lr, &task, &told)?,
            other => other?,
        };
        let judged = match session.judge {
            Some(judge) => Some(judge.judge(learner.model(&state.curve)?.as_ref())?),
            None => None,
        };
        // A judge without an opinion, NaN, does not choose.
        if let Some(loss) = judged.map(|good| -good).or(validation_loss).filter(|loss| loss.is_finite())
            && state.best.is_none_or(|(_, least)| loss < least)
        {
            state.best = Some((epoch, loss));
            best = chosen.then(|| learner.parts().iter().map(|(module, _)| module.state()).collect());
        }
        let seconds = start.elapsed().as_secs_f64();
        let told = Epoch { epoch, train_loss, validation_loss, judged, lr: f64::from(lr), seconds };
        state.curve.push(told);
        state.seconds.push(seconds);
        if let Some(path) = &plan.checkpoint {
            Checkpoint::write(path, identity, &state, learner, best.as_deref())?;
        }
        session.progress.epoch(&told);
    }
    let last = state.curve.len();
    let best = best.filter(|_| chosen && state.best.is_some_and(|(epoch, _)| epoch < last));
    Ok(Outcome { curve: state.curve, best })
}

/// An epoch and what follows from it: its mean loss and that of the pictures held out. Batches beyond the first `told` are new
/// to the progress.
fn once(
    learner: &mut dyn Learner,
    epoch: usize,
    lr: f32,
    task: &Task<'_>,
    told: &Cell<usize>,
) -> Result<(f64, Option<f64>)> {
    let done = Cell::new(0);
    let batch = || {
        done.set(done.get() + 1);
        if done.get() > told.get() {
            told.set(done.get());
            task.step(1)?;
        }
        Ok(())
    };
    let train_loss = learner.epoch(epoch, lr, &batch)?;
    learner.bring()?;
    if let Some(what) = not_finite(learner) {
        return Err(FlowDetectorError::Diverged { epoch, what });
    }
    let validation_loss = learner.validate()?;
    if validation_loss.is_some_and(|loss| !loss.is_finite()) {
        return Err(FlowDetectorError::Diverged { epoch, what: "the pictures held out".to_owned() });
    }
    Ok((train_loss, validation_loss))
}

/// The first flow with a weight that is no number.
fn not_finite(learner: &dyn Learner) -> Option<String> {
    let finite = |module: &dyn Module| {
        let mut finite = true;
        module.visit(&mut |_, param| finite = finite && param.data().iter().all(|v| v.is_finite()));
        finite
    };
    let l = learner.parts().iter().position(|(module, _)| !finite(*module))?;
    Some(format!("flow {}", l + 1))
}

/// Whether the best epoch is too long ago.
fn stopped(state: &State, patience: Option<usize>) -> bool {
    let Some((patience, (best, _))) = patience.zip(state.best) else { return false };
    state.curve.len() >= best + patience
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_when_the_best_is_long_ago() {
        let epoch = Epoch { epoch: 1, train_loss: 0.0, validation_loss: None, judged: None, lr: 0.0, seconds: 0.0 };
        let after = |epochs: usize, best: usize| State {
            curve: vec![epoch; epochs],
            seconds: vec![0.0; epochs],
            best: Some((best, 0.0)),
        };
        assert!(!stopped(&after(3, 3), Some(1)));
        assert!(stopped(&after(4, 3), Some(1)));
        assert!(!stopped(&after(4, 3), Some(2)));
        assert!(stopped(&after(5, 3), Some(2)));
        assert!(!stopped(&after(50, 3), None));
        assert!(!stopped(&State { best: None, ..after(50, 3) }, Some(1)));
    }
}
