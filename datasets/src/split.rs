use std::collections::HashMap;
use std::path::PathBuf;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::{DataError, DataSpec, Dataset, Protocol, Result, Sample};

/// Gives the data set its validation part and checks that no picture is in two parts.
pub(crate) fn finish(dataset: &mut Dataset, spec: &DataSpec, seed: u64) -> Result<()> {
    match spec.protocol {
        Protocol::LeakFree => {
            if dataset.val.is_empty() {
                let count = share(dataset.train.len(), spec.val_ratio);
                dataset.val = hold_out(&mut dataset.train, count, seed);
                if !dataset.val.is_empty() {
                    let note = format!("{} of {} good training pictures are held out for validation", count, {
                        dataset.val.len() + dataset.train.len()
                    });
                    dataset.notes.push(note);
                }
            }
            disjoint(&dataset.val, "validation", &dataset.test, "test")?;
        }
        Protocol::Paper => {
            if !dataset.val.is_empty() {
                dataset.notes.push(format!("{} validation pictures are left out", dataset.val.len()));
            }
            dataset.val = dataset.test.clone();
            if !dataset.test.is_empty() {
                dataset
                    .notes
                    .push("paper protocol: the threshold is chosen on the test pictures, which flatters".to_owned());
            }
        }
    }
    disjoint(&dataset.train, "training", &dataset.val, "validation")?;
    disjoint(&dataset.train, "training", &dataset.test, "test")
}

/// `ratio` of `count`, rounded; at least one if anything is asked for and something remains.
pub(crate) fn share(count: usize, ratio: f64) -> usize {
    if ratio <= 0.0 || count < 2 {
        return 0;
    }
    ((count as f64 * ratio).round() as usize).clamp(1, count - 1)
}

/// Takes `count` samples out at random; both lists keep their order.
pub(crate) fn hold_out(samples: &mut Vec<Sample>, count: usize, seed: u64) -> Vec<Sample> {
    let mut chosen: Vec<bool> = (0..samples.len()).map(|i| i < count).collect();
    chosen.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let (mut kept, mut held) = (Vec::new(), Vec::new());
    for (sample, out) in std::mem::take(samples).into_iter().zip(chosen) {
        if out { held.push(sample) } else { kept.push(sample) }
    }
    *samples = kept;
    held
}

fn disjoint(a: &[Sample], first: &'static str, b: &[Sample], second: &'static str) -> Result<()> {
    // Links to one file are that file; what cannot be resolved is compared by name.
    let real = |s: &Sample| s.path.canonicalize().unwrap_or_else(|_| s.path.clone());
    let known: HashMap<PathBuf, ()> = a.iter().map(|s| (real(s), ())).collect();
    match b.iter().find(|s| known.contains_key(&real(s))) {
        Some(sample) => Err(DataError::Leak { path: sample.path.clone(), first, second }),
        None => Ok(()),
    }
}
