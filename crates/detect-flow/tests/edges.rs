//! What can go wrong, and its error.

mod common;

use std::path::Path;

use blemish_core::{CoreError, Detect, Fit, Image, ImageSource, ModelFile, Session};
use blemish_detect_flow::{Cflow, CflowParams, Fastflow, FastflowParams, FlowDetectorError, Mode};
use blemish_embed::Precision;
use blemish_grad::optim::Schedule;
use common::{Common, KINDS, bytes, cflow, fastflow, fit, inner, noise, write};
use ndarray::Array3;

fn error(kind: &str, common: &Common, images: usize) -> CoreError {
    match fit(kind, common, images) {
        Err(error) => error,
        Ok(model) => panic!("{}", model.summary()),
    }
}

#[test]
fn one_picture() {
    for kind in KINDS {
        let model = fit(kind, &Common::default(), 1).unwrap();
        let score = model.predict(&[noise(1).get(0).unwrap()]).unwrap()[0].score;
        assert!(score.is_finite(), "{kind}: {score}");
    }
}

#[test]
fn no_pictures() {
    for kind in KINDS {
        let error = error(kind, &Common::default(), 0);
        assert!(matches!(error, CoreError::TooFewImages { got: 0, .. }), "{kind}: {error}");
    }
}

#[test]
fn pictures_all_alike() {
    struct Grey;
    impl ImageSource for Grey {
        fn len(&self) -> usize {
            4
        }
        fn name(&self, index: usize) -> String {
            format!("grey {index}")
        }
        fn get(&self, _: usize) -> blemish_core::Result<Image> {
            Image::from_u8(Array3::from_elem((40, 40, 3), 77))
        }
    }
    let session = Session::quiet(0);
    let models: [Box<dyn Detect>; 2] =
        [Box::new(cflow().fit(&session, &Grey).unwrap()), Box::new(fastflow().fit(&session, &Grey).unwrap())];
    for model in models {
        assert!(model.predict(&[Grey.get(0).unwrap()]).unwrap()[0].score.is_finite(), "{}", model.kind());
    }
}

#[test]
fn steps_far_too_large() {
    for kind in KINDS {
        for share in [0.0, 0.3] {
            for epochs in [1, 5] {
                let common = Common { lr: 1e6, epochs, patience: None, validation_share: share, ..Common::default() };
                let error = error(kind, &common, 5);
                assert!(matches!(inner(&error), FlowDetectorError::Diverged { .. }), "{kind}: {error}");
                let text = error.to_string();
                assert!(text.contains("lower learning rate"), "{text}");
            }
        }
        // A single step, so that no later loss shows it.
        let common = Common { lr: 1e30, epochs: 1, validation_share: 0.0, ..Common::default() };
        let error = error(kind, &common, 1);
        assert!(matches!(inner(&error), FlowDetectorError::Diverged { .. }), "{kind}: {error}");
    }
}

#[test]
fn a_run_that_went_wrong_leaves_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.checkpoint");
    for kind in KINDS {
        let common = Common { checkpoint: Some(path.clone()), patience: None, ..Common::default() };
        fit(kind, &common, 5).unwrap();
        let good = std::fs::read(&path).unwrap();
        error(kind, &Common { lr: 1e30, ..common }, 5);
        assert!(good == std::fs::read(&path).unwrap(), "{kind}");
    }
}

#[test]
fn settings_out_of_range() {
    let wrong = |common: Common, field: &str| {
        for kind in KINDS {
            let error = error(kind, &common, 3);
            assert!(matches!(&error, CoreError::Params { name, .. } if *name == field), "{kind}: {error}");
        }
    };
    let default = Common::default;
    wrong(Common { epochs: 0, ..default() }, "epochs");
    for lr in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        wrong(Common { lr, ..default() }, "lr");
    }
    for validation_share in [1.0, -0.1, f64::NAN] {
        wrong(Common { validation_share, ..default() }, "validation_share");
    }
    wrong(Common { patience: Some(0), ..default() }, "patience");
    wrong(Common { resume: true, ..default() }, "resume");
    for cache_gigabytes in [-1.0, f64::NAN] {
        wrong(Common { cache_gigabytes, ..default() }, "cache_gigabytes");
    }
    let session = Session::quiet(0);
    let cflows = [
        ("layers", CflowParams { layers: Vec::new(), ..cflow() }),
        ("blocks", CflowParams { blocks: 0, ..cflow() }),
        ("blocks", CflowParams { blocks: 65, ..cflow() }),
        ("condition", CflowParams { condition: 6, ..cflow() }),
        ("condition", CflowParams { condition: 0, ..cflow() }),
        ("clamp", CflowParams { clamp: 0.0, ..cflow() }),
        ("clamp", CflowParams { clamp: f32::NAN, ..cflow() }),
        ("fibre_batch", CflowParams { fibre_batch: 0, ..cflow() }),
        ("flow_precision", CflowParams { flow_precision: Precision::Int8, ..cflow() }),
        ("image_batch", CflowParams { image_batch: 0, ..cflow() }),
        ("batch_size", CflowParams { batch_size: 0, ..cflow() }),
    ];
    for (field, params) in cflows {
        let error = params.fit(&session, &noise(2)).err().unwrap();
        assert!(matches!(&error, CoreError::Params { name, .. } if *name == field), "{error}");
    }
    let fastflows = [
        ("layers", FastflowParams { layers: Vec::new(), ..fastflow() }),
        ("steps", FastflowParams { steps: 0, ..fastflow() }),
        ("hidden_ratio", FastflowParams { hidden_ratio: 0.0, ..fastflow() }),
        ("hidden_ratio", FastflowParams { hidden_ratio: f64::NAN, ..fastflow() }),
        ("clamp", FastflowParams { clamp: -1.0, ..fastflow() }),
        ("sigma", FastflowParams { sigma: -1.0, ..fastflow() }),
        ("sigma", FastflowParams { sigma: f32::NAN, ..fastflow() }),
        ("weight_decay", FastflowParams { weight_decay: -1.0, ..fastflow() }),
        ("weight_decay", FastflowParams { weight_decay: f32::NAN, ..fastflow() }),
        ("image_batch", FastflowParams { image_batch: 0, ..fastflow() }),
        ("batch_size", FastflowParams { batch_size: 0, ..fastflow() }),
    ];
    for (field, params) in fastflows {
        let error = params.fit(&session, &noise(2)).err().unwrap();
        assert!(matches!(&error, CoreError::Params { name, .. } if *name == field), "{error}");
    }
    assert!(CflowParams::default().validate().is_ok());
    assert!(CflowParams::paper().validate().is_ok());
    assert!(FastflowParams::default().validate().is_ok());
}

#[test]
fn checkpoints_of_something_else() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let path = folder.path().join(kind);
        let common = Common { checkpoint: Some(path.clone()), patience: None, ..Common::default() };
        let model = fit(kind, &common, 5).unwrap();
        let resume = Common { resume: true, ..common.clone() };
        let refused = |common: &Common, seed: u64, images: &common::Noise, why: &str| {
            let error = common::params(kind, common).fit_dyn(&Session::quiet(seed), images).err().unwrap();
            let FlowDetectorError::Checkpoint { path: named, why: text } = inner(&error) else { panic!("{error:?}") };
            assert!(*named == path && text.contains(why), "{kind}: {text}");
        };
        refused(&resume, 4, &noise(5), "seed");
        refused(&resume, 3, &noise(6), "pictures");
        refused(&resume, 3, &common::Noise { start: 7, count: 5 }, "first picture");
        refused(&Common { lr: 0.01, ..resume.clone() }, 3, &noise(5), "lr");
        refused(&Common { validation_share: 0.5, ..resume.clone() }, 3, &noise(5), "validation_share");
        refused(&Common { patience: Some(1), ..resume.clone() }, 3, &noise(5), "patience");

        let broken = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            let error = error(kind, &resume, 5);
            assert!(matches!(error, CoreError::ModelFile { .. }), "{kind}: {error}");
        };
        let content = std::fs::read(&path).unwrap();
        for part in [0, 1, 7, 100, content.len() / 2, content.len() - 1] {
            broken(&content[..part]);
        }
        broken(b"not a checkpoint at all, whatever its name says");
        // Weights that are no numbers.
        let mut nan = content.clone();
        let end = nan.len();
        nan[end - 4000..].fill(0xff);
        broken(&nan);
        // A model, which is a file of the same format, is none either.
        write(model.as_ref(), &path);
        refused(&resume, 3, &noise(5), "no checkpoint");
        // The other detector's.
        let other = KINDS.iter().find(|k| **k != kind).unwrap();
        let error = {
            fit(other, &Common { checkpoint: Some(path.clone()), ..common.clone() }, 5).unwrap();
            error(kind, &resume, 5)
        };
        assert!(matches!(inner(&error), FlowDetectorError::Checkpoint { .. }), "{error}");
        std::fs::remove_file(&path).unwrap();
        fit(kind, &resume, 5).unwrap();
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let path = folder.path().join("nowhere").join("run.checkpoint");
        let error = error(kind, &Common { checkpoint: Some(path), ..Common::default() }, 3);
        assert!(matches!(error, CoreError::Io { .. }), "{kind}: {error}");
    }
}

fn reload(kind: &str, path: &Path) -> Result<Box<dyn Detect>, FlowDetectorError> {
    common::load(kind, &ModelFile::open(path)?)
}

#[test]
fn damaged_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    for kind in KINDS {
        let content = bytes(fit(kind, &Common::default(), 3).unwrap().as_ref());
        let header = u64::from_le_bytes(content[..8].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&content[8..8 + header]).unwrap();
        // Changes that keep the length: the metadata is JSON inside JSON.
        let replace = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            assert!(text.contains(from), "{kind}: {from} in {}", &text[..text.len().min(1500)]);
            let mut changed = content.clone();
            changed[8..8 + header].copy_from_slice(text.replace(from, to).as_bytes());
            std::fs::write(&path, changed).unwrap();
            let error = reload(kind, &path).err().unwrap_or_else(|| panic!("{kind}: {to}"));
            assert!(matches!(error, FlowDetectorError::Core(CoreError::ModelFile { .. })), "{kind}, {to}: {error:?}");
        };
        let count = if kind == "cflow" { "blocks" } else { "steps" };
        for number in ["0", "9"] {
            replace(&format!("\\\"{count}\\\":2"), &format!("\\\"{count}\\\":{number}"));
        }
        replace(&format!("\\\"{count}\\\":2"), &format!("\\\"{}\\\":2", "x".repeat(count.len())));
        replace(&format!("{kind}.0.mixing.0"), &format!("{kind}.0.mixinx.0"));
        // The other detector's loader, and a file cut short.
        std::fs::write(&path, &content).unwrap();
        let file = ModelFile::open(&path).unwrap();
        let wrong = if kind == "cflow" { Fastflow::load(&file).err() } else { Cflow::load(&file).err() };
        assert!(matches!(wrong, Some(FlowDetectorError::Core(CoreError::ModelFile { .. }))), "{kind}: {wrong:?}");
        std::fs::write(&path, &content[..content.len() - 5]).unwrap();
        assert!(reload(kind, &path).is_err());
    }
}

#[test]
fn modes_and_schedules_are_settings() {
    let session = Session::quiet(3);
    let cosine = Schedule::Cosine { total: 3, floor: 1e-3, warm_up: 1, start: 0.1 };
    let step = Schedule::Step { every: 1, factor: 0.5 };
    let fits = |schedule: Schedule, mode: Mode| {
        let cflow = CflowParams { schedule, mode, lr: 1e-2, patience: None, ..cflow() };
        let fastflow = FastflowParams { schedule, mode, lr: 1e-2, patience: None, ..fastflow() };
        let cflow = cflow.fit(&session, &noise(5)).unwrap();
        let fastflow = fastflow.fit(&session, &noise(5)).unwrap();
        let rates = |curve: &[blemish_detect_flow::Epoch]| curve.iter().map(|e| e.lr).collect::<Vec<_>>();
        assert_eq!(rates(cflow.curve()), rates(fastflow.curve()));
        (rates(cflow.curve()), bytes(&cflow), bytes(&fastflow))
    };
    let constant = fits(Schedule::Constant, Mode::Anomalib);
    let (halved, paper) = (fits(step, Mode::Anomalib), fits(Schedule::Constant, Mode::Paper));
    let expect = |got: &[f64], want: [f64; 3]| {
        got.iter().zip(want).for_each(|(g, w)| assert!((g / w - 1.0).abs() < 1e-6, "{got:?} for {want:?}"));
    };
    expect(&constant.0, [1e-2, 1e-2, 1e-2]);
    expect(&halved.0, [1e-2, 5e-3, 2.5e-3]);
    let at = |s: f64| 1e-2 * (1e-3 + (1.0 - 1e-3) * 0.5 * (1.0 + (std::f64::consts::PI * s / 3.0).cos()));
    expect(&fits(cosine, Mode::Anomalib).0, [1e-3, at(1.0), at(2.0)]);
    assert!(constant.1 != halved.1 && constant.2 != halved.2);
    // The paper leaves out what does not fill a batch, and FastFlow's norm.
    assert!(constant.1 != paper.1 && constant.2 != paper.2);
}
