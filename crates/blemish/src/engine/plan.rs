//! How many pictures the network takes together: whatever turns out to be quickest, found on the job.

use std::time::Duration;

use crate::{Engine, Model};

/// Numbers of pictures tried.
const SIZES: [usize; 5] = [1, 2, 4, 8, 16];
/// Times each is tried; the quickest counts.
const ROUNDS: usize = 2;
/// A larger batch must save this share: it takes more memory and lets the others wait longer.
const GAIN: f64 = 0.03;

/// Tries batch sizes on the pictures of a run, which are to be scored anyway.
pub(super) struct Trial {
    chosen: Option<usize>,
    tried: usize,
    /// Seconds a picture.
    best: [f64; SIZES.len()],
    warm: bool,
}

impl Trial {
    pub(super) fn new(chosen: Option<usize>) -> Self {
        Trial { chosen, tried: 0, best: [f64::INFINITY; SIZES.len()], warm: false }
    }

    /// Pictures of the next batch.
    pub(super) fn next(&self) -> usize {
        self.chosen.unwrap_or(SIZES[self.tried % SIZES.len()])
    }

    /// What a batch took; one of another size than asked for (the last of a run) says nothing.
    pub(super) fn took(&mut self, pictures: usize, time: Duration) {
        if self.chosen.is_some() || pictures != self.next() {
            return;
        }
        // The first batch meets cold caches.
        if !std::mem::replace(&mut self.warm, true) {
            return;
        }
        let best = &mut self.best[self.tried % SIZES.len()];
        *best = best.min(time.as_secs_f64() / pictures as f64);
        self.tried += 1;
        if self.tried == SIZES.len() * ROUNDS {
            self.chosen = self.quickest();
        }
    }

    /// The quickest size of those tried.
    fn quickest(&self) -> Option<usize> {
        let mut found: Option<(usize, f64)> = None;
        for (&size, &time) in SIZES.iter().zip(&self.best).filter(|(_, time)| time.is_finite()) {
            if found.is_none_or(|(_, best)| time < best * (1.0 - GAIN)) {
                found = Some((size, time));
            }
        }
        found.map(|(size, _)| size)
    }
}

impl Engine {
    /// How many pictures the network takes together in a [`Pipeline::Throughput`](super::Pipeline) run with `model`, once a
    /// run of this engine was long enough to find out. Later runs keep to it.
    pub fn batch_size(&self, model: &Model) -> Option<usize> {
        let plans = self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        plans.get(&model.summary()).copied()
    }

    pub(super) fn trial(&self, model: &Model) -> Trial {
        Trial::new(self.batch_size(model))
    }

    pub(super) fn keep(&self, model: &Model, trial: &Trial) {
        if let Some(size) = trial.chosen {
            let mut plans = self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            plans.insert(model.summary(), size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_is_kept() {
        let run = |each: fn(usize) -> f64| {
            let mut trial = Trial::new(None);
            let mut pictures = 0;
            while trial.chosen.is_none() && pictures < 1000 {
                let n = trial.next();
                pictures += n;
                trial.took(n, Duration::from_secs_f64(each(n) * n as f64));
            }
            (trial.chosen, pictures)
        };
        assert_eq!(run(|n| 1.0 / n as f64), (Some(16), 63));
        assert_eq!(run(|n| n as f64).0, Some(1));
        assert_eq!(run(|n| (n as f64 - 4.0).abs() + 1.0).0, Some(4));
        // Not for a gain that is none.
        assert_eq!(run(|n| 1.0 - 0.001 * n as f64).0, Some(1));
    }

    #[test]
    fn odd_batches_say_nothing() {
        let mut trial = Trial::new(None);
        trial.took(7, Duration::from_secs(1));
        assert!(!trial.warm && trial.next() == 1);
        let mut fixed = Trial::new(Some(8));
        fixed.took(8, Duration::from_secs(1));
        assert_eq!((fixed.next(), fixed.chosen), (8, Some(8)));
    }
}
