//! PaDiM on MVTec AD's Screw with ImageNet weights, file to AUROC, against anomalib 2.7's own modules.

use std::path::{Path, PathBuf};

use blemish_core::{Detect, Fit, ImageSource, ModelFile, ModelWriter, Prediction, Session};
use blemish_datasets::{DataSpec, Dataset, Files, Protocol, read_mask};
use blemish_detect_embedding::padim::Form;
use blemish_detect_embedding::{Padim, PadimParams};
use blemish_metrics::auroc;
use safetensors::SafeTensors;

const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");

#[test]
fn scores_and_aurocs_are_anomalibs() {
    let shared = Path::new(SHARED);
    let Ok(bytes) = std::fs::read(shared.join("reference/screw_end_to_end.safetensors")) else {
        eprintln!("skipped: no folder `shared` with data and weights beside the repository");
        return;
    };
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| -> Vec<[u8; 4]> { reference.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec() };
    let data = Some(shared.join("data/mvtec"));
    let spec = DataSpec { data, category: Some("screw".into()), protocol: Protocol::Paper, ..DataSpec::default() };
    let mut data = Dataset::open(&spec, 0).unwrap();
    data.train.sort_by(|a, b| a.path.cmp(&b.path));
    data.test.sort_by(|a, b| a.path.cmp(&b.path));
    let (train, test) = (Files::new(data.train), Files::new(data.test));

    let params = PadimParams {
        backbone: "mobilenetv2_100".to_owned(),
        layers: ["blocks.1", "blocks.2", "blocks.4"].map(str::to_owned).to_vec(),
        weights: Some(PathBuf::from(SHARED).join("weights/mobilenetv2_100.safetensors")),
        channels: Some(words("padim.channels").into_iter().map(|b| i32::from_le_bytes(b) as usize).collect()),
        ..PadimParams::default()
    };
    let model = params.fit(&Session::quiet(0), &train).unwrap();
    assert_eq!(model.gaussians().form(), Form::Nested);

    let mut predictions: Vec<Prediction> = Vec::new();
    for first in (0..test.len()).step_by(16) {
        let images: Vec<_> = (first..test.len().min(first + 16)).map(|i| test.get(i).unwrap()).collect();
        let input = model.preprocess().batch(&images).unwrap();
        predictions.extend(model.predict_batch(input.view()).unwrap());
    }
    let want = words("padim.scores").into_iter().map(f32::from_le_bytes);
    let mut worst = 0.0f32;
    for ((got, want), sample) in predictions.iter().zip(want).zip(test.samples()) {
        let error = (got.score / want - 1.0).abs();
        assert!(error < 1e-3, "{}: {} instead of {want}", sample.path.display(), got.score);
        worst = worst.max(error);
    }
    let map = predictions[0].map.as_ref().unwrap().view();
    for (got, want) in map.iter().zip(words("padim.first_map").into_iter().map(f32::from_le_bytes)) {
        assert!((got / want - 1.0).abs() < 2e-3, "{got} {want}");
    }

    let labels: Vec<bool> = test.samples().iter().map(|s| s.good == Some(false)).collect();
    let scores: Vec<f32> = predictions.iter().map(|p| p.score).collect();
    let (mut pixels, mut truth) = (Vec::new(), Vec::new());
    for (sample, prediction) in test.samples().iter().zip(&predictions) {
        let map = prediction.map.as_ref().unwrap().view();
        pixels.extend(map.iter().copied());
        match &sample.mask {
            // The reference took its masks with Pillow's nearest rule, at pixel centres.
            Some(path) => {
                let mask = read_mask(path).unwrap();
                let at = |i: usize, from: usize, to: usize| (2 * i + 1) * from / (2 * to);
                let ((h, w), (rows, columns)) = (map.dim(), mask.dim());
                truth.extend((0..h * w).map(|i| mask[[at(i / w, rows, h), at(i % w, columns, w)]]));
            }
            None => truth.extend(std::iter::repeat_n(false, map.len())),
        }
    }
    let (image, pixel) = (auroc(&scores, &labels).unwrap(), auroc(&pixels, &truth).unwrap());
    eprintln!("image AUROC {image:.4}, pixel {pixel:.4}, worst score {worst:.1e}; {}", model.summary());
    assert!((image - 0.7495).abs() < 1e-3, "{image}");
    assert!((pixel - 0.9628).abs() < 1e-3, "{pixel}");

    // What is loaded predicts the same bits.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut writer = ModelWriter::new(model.kind());
    model.save(&mut writer).unwrap();
    writer.add_self_test(&model).unwrap();
    writer.write(&path).unwrap();
    let file = ModelFile::open(&path).unwrap();
    let loaded = Padim::load(&file).unwrap();
    file.self_test(&loaded).unwrap();
    let images = [test.get(3).unwrap(), test.get(70).unwrap()];
    for (a, b) in loaded.predict(&images).unwrap().iter().zip(model.predict(&images).unwrap()) {
        assert_eq!((a.score.to_bits(), &a.map), (b.score.to_bits(), &b.map));
    }
}
