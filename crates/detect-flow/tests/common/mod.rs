//! Both detectors on small pictures of noise and an untrained network.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use blemish_core::{
    CoreError, Detect, FitDyn, Image, ImageSource, ModelFile, ModelWriter, Preprocess, Progress, Resize, Session,
};
use blemish_detect_flow::{Cflow, CflowParams, Epoch, Fastflow, FastflowParams, FlowDetectorError};
use ndarray::Array3;
use rand::{Rng, SeedableRng};

/// Pictures `start..start + count` of noise.
pub struct Noise {
    pub start: usize,
    pub count: usize,
}

pub fn noise(count: usize) -> Noise {
    Noise { start: 0, count }
}

impl ImageSource for Noise {
    fn len(&self) -> usize {
        self.count
    }

    fn name(&self, index: usize) -> String {
        format!("noise {index}")
    }

    fn get(&self, index: usize) -> blemish_core::Result<Image> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64((self.start + index) as u64);
        Image::from_u8(Array3::from_shape_simple_fn((40, 40, 3), || rng.random()))
    }
}

pub const KINDS: [&str; 2] = ["cflow", "fastflow"];

/// Height and width of the network's input: no powers of two.
pub const SIZE: (usize, usize) = (40, 36);

pub fn cflow() -> CflowParams {
    CflowParams {
        backbone: "mobilenetv2_100".to_owned(),
        layers: ["blocks.1", "blocks.2"].map(str::to_owned).to_vec(),
        blocks: 2,
        condition: 8,
        fibre_batch: 50,
        image_batch: 3,
        epochs: 3,
        validation_share: 0.3,
        preprocess: preprocess(),
        batch_size: 4,
        ..CflowParams::default()
    }
}

pub fn fastflow() -> FastflowParams {
    FastflowParams {
        backbone: "mobilenetv2_100".to_owned(),
        layers: ["blocks.1", "blocks.2"].map(str::to_owned).to_vec(),
        steps: 2,
        image_batch: 3,
        epochs: 3,
        validation_share: 0.3,
        preprocess: preprocess(),
        batch_size: 4,
        ..FastflowParams::default()
    }
}

fn preprocess() -> Preprocess {
    Preprocess { resize: Resize::Stretch { height: SIZE.0, width: SIZE.1 }, ..Preprocess::default() }
}

/// The settings both detectors have.
#[derive(Clone)]
pub struct Common {
    pub epochs: usize,
    pub lr: f32,
    pub validation_share: f64,
    pub patience: Option<usize>,
    pub checkpoint: Option<PathBuf>,
    pub resume: bool,
    pub cache_gigabytes: f64,
}

impl Default for Common {
    fn default() -> Self {
        Common {
            epochs: 3,
            lr: 1e-3,
            validation_share: 0.3,
            patience: Some(2),
            checkpoint: None,
            resume: false,
            cache_gigabytes: 1.0,
        }
    }
}

pub fn params(kind: &str, common: &Common) -> Box<dyn FitDyn> {
    let Common { epochs, lr, validation_share, patience, checkpoint, resume, cache_gigabytes } = common.clone();
    match kind {
        "cflow" => Box::new(CflowParams {
            epochs,
            lr,
            validation_share,
            patience,
            checkpoint,
            resume,
            cache_gigabytes,
            ..cflow()
        }),
        _ => Box::new(FastflowParams {
            epochs,
            lr,
            validation_share,
            patience,
            checkpoint,
            resume,
            cache_gigabytes,
            ..fastflow()
        }),
    }
}

/// Fits on `images` pictures with seed 3.
pub fn fit(kind: &str, common: &Common, images: usize) -> blemish_core::Result<Box<dyn Detect>> {
    params(kind, common).fit_dyn(&Session::quiet(3), &noise(images))
}

/// The bytes of the model's file.
pub fn bytes(model: &dyn Detect) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    write(model, &path);
    std::fs::read(path).unwrap()
}

pub fn write(model: &dyn Detect, path: &Path) {
    let mut writer = ModelWriter::new(model.kind());
    model.save(&mut writer).unwrap();
    writer.add_self_test(model).unwrap();
    writer.write(path).unwrap();
}

pub fn load(kind: &str, file: &ModelFile) -> Result<Box<dyn Detect>, FlowDetectorError> {
    Ok(match kind {
        "cflow" => Box::new(Cflow::load(file)?),
        _ => Box::new(Fastflow::load(file)?),
    })
}

/// The training curve in a model's file.
pub fn curve(model: &dyn Detect) -> Vec<Epoch> {
    #[derive(serde::Deserialize)]
    struct Stored {
        curve: Vec<Epoch>,
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    write(model, &path);
    ModelFile::open(&path).unwrap().get::<Stored>(model.kind()).unwrap().curve
}

/// Asks to stop once `task` has been told `after` times that it goes on.
pub struct StopAfter {
    task: &'static str,
    after: usize,
    seen: AtomicUsize,
}

impl Progress for StopAfter {
    fn begin(&self, _: &'static str, _: usize) {}

    fn advance(&self, task: &'static str, _: usize, _: usize) {
        if task == self.task {
            self.seen.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn end(&self, _: &'static str) {}

    fn interrupted(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= self.after
    }
}

/// As [`fit`], stopped at the `after`-th step of `task`, if it takes that many.
pub fn fit_until(
    kind: &str,
    common: &Common,
    images: usize,
    task: &'static str,
    after: usize,
) -> blemish_core::Result<Box<dyn Detect>> {
    let progress = StopAfter { task, after, seen: AtomicUsize::new(0) };
    let session = Session { progress: &progress, ..Session::quiet(3) };
    params(kind, common).fit_dyn(&session, &noise(images))
}

/// The detector's own error inside the error of the traits.
pub fn inner(error: &CoreError) -> &FlowDetectorError {
    let CoreError::Detector { source, .. } = error else { panic!("{error:?}") };
    source.downcast_ref().unwrap_or_else(|| panic!("{error:?}"))
}
