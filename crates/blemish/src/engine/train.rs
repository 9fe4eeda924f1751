use std::time::{Duration, Instant};

use blemish_core::{CoreError, Image, ImageSource, Progress, Session};
use blemish_datasets::{Dataset, Files, Protocol, Sample, read_mask};
use ndarray::Array2;
use rayon::prelude::*;

use super::decide::{Evidence, Origin, decide};
use super::judge::OnTest;
use crate::model::LearntFrom;
use crate::{Config, Engine, Error, Model, Result, registry};

/// A new model and what is worth knowing of how it came about.
pub struct Trained {
    /// The model.
    pub model: Model,
    /// The data set; its test part was not looked at, unless the protocol says so.
    pub dataset: Dataset,
    /// From the first picture decoded to the thresholds.
    pub time: Duration,
    /// What was skipped or decided, a sentence each.
    pub notes: Vec<String>,
}

impl Engine {
    /// Learns from the good training pictures and finds the thresholds.
    ///
    /// # Errors
    /// Data or settings that cannot be used, unreadable pictures (all of them named), or an interruption.
    pub fn train(&self, config: &Config, progress: &dyn Progress) -> Result<Trained> {
        self.train_on(config, Dataset::open(&config.data, config.seed)?, progress)
    }

    /// As [`train`](Self::train), on a data set that is open already.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn train_on(&self, config: &Config, dataset: Dataset, progress: &dyn Progress) -> Result<Trained> {
        let entry = registry::find(&config.model)?;
        let params = config.model_params()?;
        let fit = (entry.params)(params.clone())
            .map_err(|e| Error::Setting { key: config.model.clone(), why: e.to_string() })?;
        let judge = OnTest { engine: self, samples: &dataset.test, seed: config.seed };
        let mut session = self.session(config.seed, progress);
        let mut notes = dataset.notes.clone();
        if config.best_on_test {
            judge.check(&config.model, &params)?;
            session.judge = Some(&judge);
            notes.push("the best epoch was chosen on the test pictures: results on them flatter".to_owned());
        }
        let start = Instant::now();
        let mut train = dataset.train.clone();
        let fitted = match self.install(|| fit.fit_dyn(&session, &Files::new(train.clone()))) {
            Err(CoreError::Image { .. }) => {
                train = self.readable(train, config.skip_unreadable, &mut notes)?;
                self.install(|| fit.fit_dyn(&session, &Files::new(train.clone())))?
            }
            other => other?,
        };
        let paper = config.data.protocol == Protocol::Paper;
        let val = if paper { &dataset.test } else { &dataset.val };
        let mut evidence = self.evidence(fitted.as_ref(), val, &session, &mut notes)?;
        let held_out = evidence.iter().any(|e| e.good);
        if !held_out {
            let none = "no good picture is held out: the thresholds come from the training pictures themselves and will be \
                        too low; give more pictures, or a val_ratio above 0";
            notes.push(none.to_owned());
            evidence = self.evidence(fitted.as_ref(), &train, &session, &mut notes)?;
        }
        let origin = match (held_out, paper) {
            (false, _) => Origin::Training,
            (true, true) => Origin::Test,
            (true, false) => Origin::HeldOut,
        };
        let decision = decide(&evidence, config.false_reject_rate, origin)?;
        if origin == Origin::Test {
            notes.push("paper protocol: the thresholds were found on the test pictures; they flatter".to_owned());
        }
        let learnt_from = LearntFrom {
            name: dataset.name.clone(),
            category: dataset.category.clone(),
            train: train.len(),
            val: if held_out { evidence.len() } else { 0 },
        };
        // The same model, whether its training was interrupted or not.
        let mut params = params;
        for key in registry::OF_THE_RUN {
            if let Some(value) = params.get_mut(key) {
                *value = (entry.defaults)()[key].take();
            }
        }
        let model = Model { detector: fitted, decision, params, seed: config.seed, learnt_from, refused: None };
        if !self.device().is_cpu() {
            notes.push(model.placement());
        }
        Ok(Trained { model, dataset, time: start.elapsed(), notes })
    }

    /// The pictures that can be decoded.
    fn readable(&self, samples: Vec<Sample>, skip: bool, notes: &mut Vec<String>) -> Result<Vec<Sample>> {
        let total = samples.len();
        let files = Files::new(samples.clone());
        let errors: Vec<Option<String>> =
            self.install(|| (0..total).into_par_iter().map(|i| files.get(i).err().map(|e| e.to_string())).collect());
        let list: Vec<String> = errors.iter().flatten().cloned().collect();
        if !skip {
            return Err(Error::Unreadable { list, total });
        }
        notes.extend(list.iter().map(|line| format!("skipped {line}")));
        Ok(samples.into_iter().zip(errors).filter(|(_, e)| e.is_none()).map(|(s, _)| s).collect())
    }

    /// Raw predictions on validation pictures; unreadable ones are passed over with a note.
    pub(super) fn evidence(
        &self,
        detector: &dyn blemish_core::Detect,
        samples: &[Sample],
        session: &Session<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Evidence>> {
        let task = session.task("validate", samples.len());
        let mut evidence = Vec::with_capacity(samples.len());
        for group in samples.chunks(self.threads().max(1) * 2) {
            let scored: Vec<Result<Evidence>> = self.install(|| {
                let one = |sample: &Sample| -> Result<Evidence> {
                    let image = blemish_datasets::decode(&sample.path)?;
                    let mask = mask(sample, &image, detector.preprocess())?;
                    let prediction = detector.predict(std::slice::from_ref(&image))?.remove(0);
                    Ok(Evidence { prediction, good: sample.good != Some(false), mask })
                };
                group.par_iter().map(one).collect()
            });
            for result in scored {
                match result {
                    Ok(e) => evidence.push(e),
                    Err(Error::Core(CoreError::Image { path, why })) => {
                        notes.push(format!("not used for the thresholds: {path}: {why}"));
                    }
                    Err(other) => return Err(other),
                }
            }
            task.step(group.len())?;
        }
        Ok(evidence)
    }
}

/// The defect pixels of a sample at the size of the network input.
///
/// # Errors
/// A mask that cannot be read or has another size than its picture.
pub(super) fn mask(
    sample: &Sample,
    image: &Image,
    preprocess: &blemish_core::Preprocess,
) -> Result<Option<Array2<bool>>> {
    let Some(path) = &sample.mask else { return Ok(None) };
    let mask = read_mask(path)?;
    let (h, w, _) = image.dim();
    if mask.dim() != (h, w) {
        let why = format!(
            "the mask has {}x{} pixels, its picture {} has {w}x{h}",
            mask.dim().1,
            mask.dim().0,
            sample.path.display()
        );
        return Err(CoreError::Image { path: path.display().to_string(), why }.into());
    }
    Ok(Some(preprocess.apply_mask(mask.view())?))
}
