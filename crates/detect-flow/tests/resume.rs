//! A run that was stopped, by the user or by the machine, and resumed gives the bits of one that was not.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use blemish_core::{CoreError, Detect, FitDyn, ImageSource, Judge, Session};
use blemish_detect_flow::CflowParams;
use blemish_embed::Precision;
use common::{Common, KINDS, bytes, curve, fit, fit_until, noise, params};

/// Batches of an epoch of seven pictures, two of them held out, by three.
const BATCHES: usize = 2;
const PICTURES: usize = 7;

fn with_checkpoint(common: &Common, folder: &Path, resume: bool) -> Common {
    Common { checkpoint: Some(folder.join("run.checkpoint")), resume, ..common.clone() }
}

fn refused(result: blemish_core::Result<Box<dyn Detect>>) {
    match result {
        Err(CoreError::Interrupted) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not stopped"),
    }
}

#[test]
fn stopped_at_any_batch() {
    for kind in KINDS {
        let common = Common { epochs: 4, patience: None, ..Common::default() };
        let whole = bytes(fit(kind, &common, PICTURES).unwrap().as_ref());
        for batch in 1..=4 * BATCHES {
            let folder = tempfile::tempdir().unwrap();
            refused(fit_until(kind, &with_checkpoint(&common, folder.path(), false), PICTURES, "training", batch));
            // The checkpoint is that of the last whole epoch; the epoch stopped in starts again.
            assert_eq!(folder.path().join("run.checkpoint").exists(), batch > BATCHES, "{kind}, batch {batch}");
            let resumed = fit(kind, &with_checkpoint(&common, folder.path(), true), PICTURES).unwrap();
            assert!(whole == bytes(resumed.as_ref()), "{kind}, stopped at batch {batch}");
        }
    }
}

#[test]
fn stopped_again_and_again() {
    for kind in KINDS {
        let common = Common { epochs: 5, patience: None, ..Common::default() };
        let whole = bytes(fit(kind, &common, PICTURES).unwrap().as_ref());
        let folder = tempfile::tempdir().unwrap();
        let again = with_checkpoint(&common, folder.path(), true);
        // One whole epoch and half of the next each time; that of the features and of the likelihoods in between. Resuming
        // reports the epochs done as one step.
        refused(fit_until(kind, &again, PICTURES, "features", 1));
        refused(fit_until(kind, &again, PICTURES, "training", BATCHES + 1));
        refused(fit_until(kind, &again, PICTURES, "features", 1));
        refused(fit_until(kind, &again, PICTURES, "training", 1 + BATCHES + 1));
        refused(fit_until(kind, &again, PICTURES, "training", 1 + BATCHES + 1));
        if kind == "cflow" {
            refused(fit_until(kind, &again, PICTURES, "likelihoods", 1));
        }
        let resumed = fit(kind, &again, PICTURES).unwrap();
        assert!(whole == bytes(resumed.as_ref()), "{kind}");
        // Once done, it stays done.
        assert!(whole == bytes(fit(kind, &again, PICTURES).unwrap().as_ref()), "{kind}");
        assert_eq!(curve(resumed.as_ref()).len(), 5);
    }
}

#[test]
fn stopping_early_keeps_the_best_epoch() {
    for (kind, rates) in [("cflow", [0.02, 0.03, 0.05]), ("fastflow", [0.1, 0.15, 0.08])] {
        // Steps that are too large, so that the held-out loss rises again; which rate does it depends on last digits.
        let long = |lr: f32| Common { epochs: 60, patience: Some(2), lr, ..Common::default() };
        let tried = rates.iter().map(|lr| (long(*lr), fit(kind, &long(*lr), PICTURES).unwrap()));
        let (common, whole) = tried
            .into_iter()
            .find(|(_, model)| (4..60).contains(&curve(model.as_ref()).len()))
            .unwrap_or_else(|| panic!("{kind}: no rate stops early"));
        let curve = curve(whole.as_ref());
        let loss = |i: usize| curve[i].validation_loss.unwrap();
        let best = (0..curve.len()).min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap();
        assert_eq!(curve.len(), best + 1 + 2, "{kind}: two epochs after the best: {curve:?}");
        // Training just as long as the best epoch gives the same weights.
        let short = fit(kind, &Common { epochs: best + 1, ..common.clone() }, PICTURES).unwrap();
        let image = noise(50).get(40).unwrap();
        let score = |model: &dyn Detect| model.predict(std::slice::from_ref(&image)).unwrap()[0].score;
        assert_eq!(score(whole.as_ref()).to_bits(), score(short.as_ref()).to_bits(), "{kind}");
        // Stopped before the best epoch, in the patience after it, and after the end.
        let whole = bytes(whole.as_ref());
        for batch in [best * BATCHES + 1, (best + 1) * BATCHES + 1] {
            let folder = tempfile::tempdir().unwrap();
            refused(fit_until(kind, &with_checkpoint(&common, folder.path(), false), PICTURES, "training", batch));
            for _ in 0..2 {
                let resumed = fit(kind, &with_checkpoint(&common, folder.path(), true), PICTURES).unwrap();
                assert!(whole == bytes(resumed.as_ref()), "{kind}, stopped at batch {batch}");
            }
        }
    }
}

#[test]
fn more_epochs_go_on_from_the_checkpoint() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let common = Common { epochs: 4, patience: None, ..Common::default() };
        let whole = bytes(fit(kind, &common, PICTURES).unwrap().as_ref());
        let first = Common { epochs: 2, ..with_checkpoint(&common, folder.path(), false) };
        fit(kind, &first, PICTURES).unwrap();
        let second = with_checkpoint(&common, folder.path(), true);
        assert!(whole == bytes(fit(kind, &second, PICTURES).unwrap().as_ref()), "{kind}");
        // Without `resume` the run starts anew and replaces the checkpoint.
        assert_eq!(curve(fit(kind, &first, PICTURES).unwrap().as_ref()).len(), 2, "{kind}");
    }
}

#[test]
fn in_bf16_too_and_only_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = |flow_precision: Precision, epochs: usize, resume: bool| {
        let checkpoint = Some(folder.path().join("run.checkpoint"));
        let params = CflowParams { flow_precision, epochs, patience: None, checkpoint, resume, ..common::cflow() };
        params.fit_dyn(&Session::quiet(3), &noise(PICTURES))
    };
    let whole = run(Precision::Bf16, 4, false).unwrap();
    run(Precision::Bf16, 2, false).unwrap();
    let error = run(Precision::F32, 4, true).err().unwrap().to_string();
    assert!(error.contains("its flow_precision is \"bf16\", here it is \"f32\""), "{error}");
    let resumed = run(Precision::Bf16, 4, true).unwrap();
    assert!(bytes(whole.as_ref()) == bytes(resumed.as_ref()));
    if Precision::Bf16.is_available() {
        let score = |model: &dyn Detect| model.predict(&[noise(50).get(40).unwrap()]).unwrap()[0].score;
        let single = run(Precision::F32, 4, false).unwrap();
        let (single, half) = (score(single.as_ref()), score(whole.as_ref()));
        assert!(single != half && (single - half).abs() < 0.01 * single.abs(), "{half} for {single}");
    }
}

/// Likes the models that give pictures of noise a middling score, whose opinion thus changes from epoch to epoch.
struct Fussy;

impl Judge for Fussy {
    fn judge(&self, model: &dyn Detect) -> blemish_core::Result<f64> {
        let score = f64::from(model.predict(&[noise(50).get(40)?])?[0].score);
        Ok((score * 1e4).sin())
    }
}

/// Never has an opinion.
struct Dumb;

impl Judge for Dumb {
    fn judge(&self, _: &dyn Detect) -> blemish_core::Result<f64> {
        Ok(f64::NAN)
    }
}

#[test]
fn a_judge_chooses_the_epoch_however_often_the_run_is_stopped() {
    for kind in KINDS {
        let common = Common { epochs: 6, patience: None, ..Common::default() };
        let judged = |common: &Common, judge: &dyn Judge| {
            let session = Session { judge: Some(judge), ..Session::quiet(3) };
            params(kind, common).fit_dyn(&session, &noise(PICTURES))
        };
        let whole = judged(&common, &Fussy).unwrap();
        let curve = curve(whole.as_ref());
        let opinions: Vec<f64> = curve.iter().map(|e| e.judged.unwrap()).collect();
        let best = (0..6).max_by(|a, b| opinions[*a].total_cmp(&opinions[*b]).then(b.cmp(a))).unwrap();
        let short = fit(kind, &Common { epochs: best + 1, ..common.clone() }, PICTURES).unwrap();
        let score = |model: &dyn Detect| model.predict(&[noise(50).get(40).unwrap()]).unwrap()[0].score.to_bits();
        assert_eq!(score(whole.as_ref()), score(short.as_ref()), "{kind}: {opinions:?}");
        let folder = tempfile::tempdir().unwrap();
        // Trained to each epoch and gone on from there.
        for epochs in 1..6 {
            judged(&Common { epochs, ..with_checkpoint(&common, folder.path(), epochs > 1) }, &Fussy).unwrap();
        }
        let again = judged(&with_checkpoint(&common, folder.path(), true), &Fussy).unwrap();
        assert!(bytes(whole.as_ref()) == bytes(again.as_ref()), "{kind}: {opinions:?}");
        // Without an opinion it is the last epoch, as without a judge; and such a run can be resumed, too.
        let folder = tempfile::tempdir().unwrap();
        let last = score(fit(kind, &common, PICTURES).unwrap().as_ref());
        let first = Common { epochs: 2, ..with_checkpoint(&common, folder.path(), false) };
        judged(&first, &Dumb).unwrap();
        assert_eq!(score(judged(&with_checkpoint(&common, folder.path(), true), &Dumb).unwrap().as_ref()), last);
    }
}

/// Names the folder in which the test binary, started again, trains until it is killed.
const FOLDER: &str = "BLEMISH_TEST_KILLED_FOLDER";

fn long() -> Common {
    Common { epochs: 40, patience: None, ..Common::default() }
}

/// What the killed process runs; on its own it sees that a run without interruption repeats.
#[test]
fn trains_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else {
        let run = || bytes(fit("cflow", &Common::default(), PICTURES).unwrap().as_ref());
        assert!(run() == run());
        return;
    };
    for kind in KINDS {
        let folder = Path::new(&folder).join(kind);
        fit(kind, &with_checkpoint(&long(), &folder, false), PICTURES).unwrap();
    }
}

#[test]
fn killed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = |kind: &str| folder.path().join(kind).join("run.checkpoint");
    KINDS.iter().for_each(|kind| std::fs::create_dir(folder.path().join(kind)).unwrap());
    // The first process is killed while it trains CFlow, the second, which starts anew, while it trains FastFlow.
    for kind in KINDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "trains_until_it_is_killed"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !checkpoint(kind).exists() && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(checkpoint(kind).exists(), "{kind}");
        let resumed = fit(kind, &with_checkpoint(&long(), &folder.path().join(kind), true), PICTURES).unwrap();
        assert!(bytes(resumed.as_ref()) == bytes(fit(kind, &long(), PICTURES).unwrap().as_ref()), "{kind}");
    }
}
