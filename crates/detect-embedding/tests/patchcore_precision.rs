//! PatchCore in bf16 and int8 on MVTec AD's Screw with ImageNet weights: AUROCs beside those in f32, with the same patches
//! kept. (Left to itself a coreset in another precision keeps other patches, which moves the image AUROC by 0.01, as
//! another seed does.)

use std::path::Path;

use blemish_core::{Fit, ImageSource, Preprocess, Session};
use blemish_datasets::{DataSpec, Dataset, Files, Protocol, read_mask};
use blemish_detect_embedding::patchcore::{MemoryBank, PatchcoreParams, embed};
use blemish_detect_embedding::{Embedder, EmbeddingError};
use blemish_embed::Precision;
use blemish_metrics::auroc;
use ndarray::{Array2, Axis, concatenate};

const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");

/// Patches of all pictures, and rows and columns of each one's.
fn patches(embedder: &Embedder, session: &Session<'_>, source: &Files) -> (Vec<Array2<f32>>, (usize, usize)) {
    let (mut all, mut grid) = (Vec::new(), (0, 0));
    let mut sink = |_, maps: Vec<ndarray::Array4<f32>>| {
        grid = (maps[0].dim().1, maps[0].dim().2);
        all.push(embed(&maps, blemish_detect_embedding::Mode::Anomalib)?);
        Ok::<_, EmbeddingError>(())
    };
    embedder.stream(session, "features", source, 1, &mut sink).unwrap();
    (all, grid)
}

#[test]
fn aurocs_hardly_change_with_the_same_patches() {
    let weights = Path::new(SHARED).join("weights/mobilenetv2_100.safetensors");
    let data = Path::new(SHARED).join("data/mvtec");
    if !(weights.is_file() && data.join("screw").is_dir()) {
        eprintln!("skipped: no folder `shared` with data and weights beside the repository");
        return;
    }
    let (category, protocol) = (Some("screw".into()), Protocol::Paper);
    let spec = DataSpec { data: Some(data), category, protocol, ..DataSpec::default() };
    let dataset = Dataset::open(&spec, 0).unwrap();
    let labels: Vec<bool> = dataset.test.iter().map(|s| s.good == Some(false)).collect();
    let mut truth = Vec::new();
    for sample in &dataset.test {
        let mask = sample.mask.as_ref().map(|path| read_mask(path).unwrap());
        let at = |i: usize| (2 * i + 1) * 1024 / 512;
        truth.extend((0..256 * 256).map(|i| mask.as_ref().is_some_and(|mask| mask[[at(i / 256), at(i % 256)]])));
    }
    let (train, test) = (Files::new(dataset.train), Files::new(dataset.test));
    let session = Session::quiet(0);
    let (layers, preprocess) = (["blocks.2", "blocks.4"].map(str::to_owned), Preprocess::default());
    let params = PatchcoreParams {
        backbone: "mobilenetv2_100".to_owned(),
        layers: layers.to_vec(),
        weights: Some(weights.clone()),
        coreset_ratio: 0.01,
        preprocess: preprocess.clone(),
        ..PatchcoreParams::default()
    };
    let model = params.fit(&session, &train).unwrap();
    let mut first: Option<(f64, f64)> = None;
    for (precision, most) in [(Precision::F32, 0.0), (Precision::Bf16, 0.002), (Precision::Int8, 0.005)] {
        let embedder = Embedder::new("mobilenetv2_100", &layers, Some(&weights), 0, preprocess.clone()).unwrap();
        let embedder = embedder.with_precision(precision, &session, &train).unwrap();
        let (all, grid) = patches(&embedder, &session, &train);
        let each = grid.0 * grid.1;
        let kept: Vec<_> = model
            .coreset()
            .iter()
            .map(|&i| all[i as usize / each].row(i as usize % each).insert_axis(Axis(0)))
            .collect();
        let bank = MemoryBank::new(concatenate(Axis(0), &kept).unwrap(), model.memory_bank().scoring()).unwrap();
        let (mut scores, mut pixels) = (Vec::with_capacity(test.len()), Vec::with_capacity(truth.len()));
        for patches in patches(&embedder, &session, &test).0 {
            let prediction = bank.score(patches.view(), grid, (256, 256)).unwrap().remove(0);
            scores.push(prediction.score);
            pixels.extend(prediction.map.unwrap().view().iter().copied());
        }
        let (image, pixel) = (auroc(&scores, &labels).unwrap(), auroc(&pixels, &truth).unwrap());
        eprintln!("{precision} (computed in {}): image AUROC {image:.4}, pixel {pixel:.4}", embedder.computes_in());
        let (want_image, want_pixel) = *first.get_or_insert((image, pixel));
        assert!((image - want_image).abs() <= most, "{precision}: image AUROC {image} for {want_image}");
        assert!((pixel - want_pixel).abs() <= most, "{precision}: pixel AUROC {pixel} for {want_pixel}");
    }
}
