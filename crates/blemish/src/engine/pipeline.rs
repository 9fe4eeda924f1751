//! How pictures flow from files to verdicts.
//!
//! ```text
//!  throughput   decode + preprocess ─▶ network ─▶ score + regions ─▶ sink      a thread each, short queues between them,
//!                                                                              all of them on the engine's pool
//!  latency      one picture through all of it, on all threads; then the next
//! ```

use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use blemish_core::{ImageSource, Session, Task};
use serde::{Deserialize, Serialize};

use super::plan::Trial;
use super::score::{Batch, Group, Outcome, compute, judge, load};
use crate::{Engine, Model, Result};

/// What the engine is to be quick at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pipeline {
    /// One picture at a time, with all threads on it: the shortest time from file to verdict.
    Latency,
    /// Many pictures in the shortest time: stages overlap, and the network takes as many pictures together as turn out to
    /// be quickest. Scores are the same.
    #[default]
    Throughput,
}

/// Batches that may wait between two stages.
const QUEUE: usize = 1;
/// Memory that the decoded pictures of a batch may take, unless it is a single one.
const BATCH_BYTES: usize = 256 << 20;

/// Sees outcomes in order.
type Sink<'a> = dyn FnMut(usize, Outcome) -> Result<()> + Send + 'a;

/// What the network hands on, and the time it took so far for all of its pictures.
type Computed = (Batch, Vec<Group>, Duration);

impl Engine {
    /// Scores every picture of `source` and hands the outcomes to `sink` in order; an unreadable picture is an outcome, not
    /// an error. Scores depend neither on the [`Pipeline`] nor on what is scored together.
    ///
    /// # Errors
    /// An interruption, or whatever `sink` says.
    pub fn score(
        &self,
        model: &Model,
        source: &dyn ImageSource,
        min_region_area: usize,
        session: &Session<'_>,
        task: &'static str,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        self.score_with(self.pipeline, model, source, min_region_area, session, task, sink)
    }

    pub(super) fn score_with(
        &self,
        pipeline: Pipeline,
        model: &Model,
        source: &dyn ImageSource,
        min_region_area: usize,
        session: &Session<'_>,
        task: &'static str,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let progress = session.task(task, source.len());
        // A thread of the pool must not wait for others of the pool.
        if pipeline == Pipeline::Latency || self.pool.current_thread_index().is_some() {
            return self.one_by_one(model, source, min_region_area, &progress, sink);
        }
        self.overlapped(model, source, min_region_area, &progress, sink)
    }

    /// Scores one picture by itself, from file to verdict: what a camera waits for.
    pub fn score_one(&self, model: &Model, source: &dyn ImageSource, index: usize, min_region_area: usize) -> Outcome {
        self.install(|| {
            let start = Instant::now();
            let batch = load(model, source, index..index + 1);
            let groups = compute(model, &batch);
            let outcome = judge(model, batch, groups, min_region_area).pop();
            let mut outcome = outcome.unwrap_or(Err("it was not scored".to_owned()));
            if let Ok(scored) = &mut outcome {
                scored.time = start.elapsed();
            }
            outcome
        })
    }

    fn one_by_one(
        &self,
        model: &Model,
        source: &dyn ImageSource,
        min_region_area: usize,
        progress: &Task<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        for index in 0..source.len() {
            sink(index, self.score_one(model, source, index, min_region_area))?;
            progress.step(1)?;
        }
        Ok(())
    }

    fn overlapped(
        &self,
        model: &Model,
        source: &dyn ImageSource,
        min_region_area: usize,
        progress: &Task<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let (total, step) = (source.len(), self.threads());
        let (loaded_to, loaded) = sync_channel::<(Batch, Duration)>(QUEUE);
        let (computed_to, computed) = sync_channel::<Computed>(QUEUE);
        let (judged_to, judged) = sync_channel::<Vec<Outcome>>(QUEUE);
        let mut trial = self.trial(model);
        // A stage ends when the one before it has nothing more, or the one after it takes nothing more.
        let done = std::thread::scope(|scope| {
            scope.spawn(move || {
                for first in (0..total).step_by(step) {
                    let start = Instant::now();
                    let batch = self.install(|| load(model, source, first..(first + step).min(total)));
                    if loaded_to.send((batch, start.elapsed())).is_err() {
                        return;
                    }
                }
            });
            let trial = &mut trial;
            scope.spawn(move || {
                let mut rest = Vec::new();
                let mut waited = Duration::ZERO;
                loop {
                    let batch = gather(&loaded, &mut rest, trial, &mut waited);
                    if batch.is_empty() {
                        return;
                    }
                    let start = Instant::now();
                    let groups = self.install(|| compute(model, &batch));
                    let time = start.elapsed();
                    trial.took(batch.len(), time);
                    if computed_to.send((batch, groups, time + std::mem::take(&mut waited))).is_err() {
                        return;
                    }
                }
            });
            scope.spawn(move || {
                for (batch, groups, time) in computed {
                    let start = Instant::now();
                    let mut outcomes = self.install(|| judge(model, batch, groups, min_region_area));
                    let each = (time + start.elapsed()) / outcomes.len().max(1) as u32;
                    outcomes.iter_mut().flatten().for_each(|scored| scored.time = each);
                    if judged_to.send(outcomes).is_err() {
                        return;
                    }
                }
            });
            let mut index = 0;
            for outcomes in judged {
                let count = outcomes.len();
                self.install(|| {
                    for outcome in outcomes {
                        sink(index, outcome)?;
                        index += 1;
                    }
                    Ok::<(), crate::Error>(())
                })?;
                progress.step(count)?;
            }
            Ok(())
        });
        self.keep(model, &trial);
        done
    }
}

/// As many loaded pictures as the network is to take next; fewer only at the end, or if they are very large.
fn gather(
    loaded: &std::sync::mpsc::Receiver<(Batch, Duration)>,
    rest: &mut Batch,
    trial: &Trial,
    time: &mut Duration,
) -> Batch {
    let bytes = |batch: &Batch| -> usize { batch.iter().flatten().map(|l| l.bytes()).sum() };
    let wanted = trial.next();
    while rest.len() < wanted && bytes(rest) < BATCH_BYTES {
        let Ok((more, took)) = loaded.recv() else { break };
        *time += took;
        rest.extend(more);
    }
    let later = rest.split_off(wanted.min(rest.len()));
    std::mem::replace(rest, later)
}
