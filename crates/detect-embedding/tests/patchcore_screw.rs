//! PatchCore on MVTec AD's Screw with ImageNet weights, file to AUROC, against anomalib 2.7's own modules.

use std::path::{Path, PathBuf};

use blemish_core::{Detect, Fit, ImageSource, ModelFile, ModelWriter, Prediction, Preprocess, Session};
use blemish_datasets::{DataSpec, Dataset, Files, Protocol, read_mask};
use blemish_detect_embedding::patchcore::BankStorage;
use blemish_detect_embedding::{Patchcore, PatchcoreParams};
use blemish_kernels::nearest::pairwise_squared;
use blemish_metrics::auroc;
use ndarray::{Axis, s};
use safetensors::SafeTensors;

const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");

struct Screw {
    train: Files,
    test: Files,
    reference: Vec<u8>,
}

/// The data, or `None` on a machine without it.
fn screw() -> Option<Screw> {
    let shared = Path::new(SHARED);
    let Ok(reference) = std::fs::read(shared.join("reference/screw_end_to_end.safetensors")) else {
        eprintln!("skipped: no folder `shared` with data and weights beside the repository");
        return None;
    };
    let data = Some(shared.join("data/mvtec"));
    let spec = DataSpec { data, category: Some("screw".into()), protocol: Protocol::Paper, ..DataSpec::default() };
    let mut data = Dataset::open(&spec, 0).unwrap();
    data.train.sort_by(|a, b| a.path.cmp(&b.path));
    data.test.sort_by(|a, b| a.path.cmp(&b.path));
    Some(Screw { train: Files::new(data.train), test: Files::new(data.test), reference })
}

fn params(ratio: f64) -> PatchcoreParams {
    PatchcoreParams {
        backbone: "mobilenetv2_100".to_owned(),
        layers: vec!["blocks.2".to_owned(), "blocks.4".to_owned()],
        weights: Some(PathBuf::from(SHARED).join("weights/mobilenetv2_100.safetensors")),
        coreset_ratio: ratio,
        coreset_start: Some(12_345),
        preprocess: Preprocess { crop: Some([224, 224]), ..Preprocess::default() },
        batch_size: 16,
        ..PatchcoreParams::default()
    }
}

fn predict(model: &dyn Detect, source: &Files) -> Vec<Prediction> {
    let mut all = Vec::new();
    for first in (0..source.len()).step_by(16) {
        let images: Vec<_> = (first..source.len().min(first + 16)).map(|i| source.get(i).unwrap()).collect();
        let input = model.preprocess().batch(&images).unwrap();
        all.extend(model.predict_batch(input.view()).unwrap());
    }
    all
}

/// The mask as the reference run takes it: Pillow's nearest, the pixel in the middle of the four by four, then the crop.
/// (`Preprocess::apply_mask` takes the first one, as anomalib does; that moves the pixel AUROC by 0.006.)
fn mask(path: &Path) -> Vec<bool> {
    let mask = read_mask(path).unwrap();
    assert_eq!(mask.dim(), (1024, 1024));
    (0..224 * 224).map(|i| mask[[(i / 224 + 16) * 4 + 2, (i % 224 + 16) * 4 + 2]]).collect()
}

/// Image and pixel AUROC.
fn aurocs(test: &Files, predictions: &[Prediction]) -> (f64, f64) {
    let labels: Vec<bool> = test.samples().iter().map(|s| s.good == Some(false)).collect();
    let scores: Vec<f32> = predictions.iter().map(|p| p.score).collect();
    let (mut pixels, mut truth) = (Vec::new(), Vec::new());
    for (sample, prediction) in test.samples().iter().zip(predictions) {
        let map = prediction.map.as_ref().unwrap().view();
        pixels.extend(map.iter().copied());
        match &sample.mask {
            Some(path) => truth.extend(mask(path)),
            None => truth.extend(std::iter::repeat_n(false, map.len())),
        }
    }
    (auroc(&scores, &labels).unwrap(), auroc(&pixels, &truth).unwrap())
}

/// The picks are those of the reference, in its order, but for neighbours in that order that are equally far within the
/// accuracy of the features (about 3e-6, as two networks differ that add in another order).
fn check_picks(model: &Patchcore, want: &[u32]) {
    let (got, rows) = (model.coreset(), model.memory_bank().rows());
    assert_eq!((got.len(), want.len()), (2508, 2508));
    let (mut i, mut swapped) = (0, 0);
    while i < got.len() {
        if got[i] == want[i] {
            i += 1;
            continue;
        }
        assert!(i + 1 < got.len() && got[i] == want[i + 1] && got[i + 1] == want[i], "pick {i}");
        let both = pairwise_squared(rows.slice(s![i..i + 2, ..]), rows.slice(s![..i, ..])).unwrap();
        let far = both.map_axis(Axis(1), |d| d.iter().copied().fold(f32::INFINITY, f32::min));
        assert!((far[1] / far[0] - 1.0).abs() < 1e-5, "pick {i}: {} and {}", far[0], far[1]);
        (i, swapped) = (i + 2, swapped + 1);
    }
    eprintln!("{swapped} pairs of equally far picks are swapped");
    assert!(swapped <= 8);
}

#[test]
fn one_percent_is_anomalibs() {
    let Some(Screw { train, test, reference }) = screw() else { return };
    let reference = SafeTensors::deserialize(&reference).unwrap();
    let words = |name: &str| -> Vec<[u8; 4]> {
        reference.tensor(name).unwrap().data().chunks_exact(4).map(|b| b.try_into().unwrap()).collect()
    };
    let model = params(0.01).fit(&Session::quiet(0), &train).unwrap();
    let picks: Vec<u32> = words("patchcore.coreset").into_iter().map(u32::from_le_bytes).collect();
    check_picks(&model, &picks);

    let predictions = predict(&model, &test);
    let want = words("patchcore.scores").into_iter().map(f32::from_le_bytes);
    for ((got, want), sample) in predictions.iter().zip(want).zip(test.samples()) {
        let path = sample.path.display();
        assert!((got.score / want - 1.0).abs() < 1e-3, "{path}: {} instead of {want}", got.score);
    }
    let map = predictions[0].map.as_ref().unwrap().view();
    for (got, want) in map.iter().zip(words("patchcore.first_map").into_iter().map(f32::from_le_bytes)) {
        assert!((got / want - 1.0).abs() < 2e-3, "{got} {want}");
    }
    let (image, pixel) = aurocs(&test, &predictions);
    eprintln!("1 %: image AUROC {image:.4}, pixel {pixel:.4}");
    assert!((image - 0.9219).abs() < 1e-3, "{image}");
    assert!((pixel - 0.9390).abs() < 1e-3, "{pixel}");

    // What is loaded predicts the same bits.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut writer = ModelWriter::new(model.kind());
    model.save(&mut writer).unwrap();
    writer.add_self_test(&model).unwrap();
    writer.write(&path).unwrap();
    let file = ModelFile::open(&path).unwrap();
    let loaded = Patchcore::load(&file).unwrap();
    file.self_test(&loaded).unwrap();
    assert_eq!(loaded.summary(), model.summary());
    assert_eq!(loaded.coreset(), model.coreset());
    let images = [test.get(3).unwrap(), test.get(70).unwrap()];
    for (a, b) in loaded.predict(&images).unwrap().iter().zip(model.predict(&images).unwrap()) {
        assert_eq!((a.score.to_bits(), &a.map), (b.score.to_bits(), &b.map));
    }

    // A bank of fewer bits finds the same defects.
    let mut model = model;
    for (storage, most) in [(BankStorage::F16, 1e-3), (BankStorage::Int8, 5e-3)] {
        model = model.rounded(storage).unwrap();
        let (i, p) = aurocs(&test, &predict(&model, &test));
        eprintln!("1 %, {storage:?}: image AUROC {:+.5}, pixel {:+.5}; {}", i - image, p - pixel, model.summary());
        assert!((i - image).abs() < most && (p - pixel).abs() < most, "{storage:?}: {i} {p}");
    }
}
