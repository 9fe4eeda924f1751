//! PatchCore as a detector on small pictures and an untrained network: params, files, batches, threads.

use blemish_core::{
    CoreError, Detect, Fit, Image, ImageSource, ModelFile, ModelWriter, Preprocess, Progress, Resize, Session,
};
use blemish_detect_embedding::patchcore::BankStorage;
use blemish_detect_embedding::{Mode, Patchcore, PatchcoreParams};
use ndarray::Array3;
use rand::{Rng, SeedableRng};

struct Noise(usize);

impl ImageSource for Noise {
    fn len(&self) -> usize {
        self.0
    }

    fn name(&self, index: usize) -> String {
        format!("noise {index}")
    }

    fn get(&self, index: usize) -> blemish_core::Result<Image> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(index as u64);
        Image::from_u8(Array3::from_shape_simple_fn((64, 64, 3), || rng.random()))
    }
}

fn params() -> PatchcoreParams {
    PatchcoreParams {
        backbone: "mobilenetv2_100".to_owned(),
        layers: vec!["blocks.1".to_owned(), "blocks.2".to_owned()],
        preprocess: Preprocess { resize: Resize::Stretch { height: 64, width: 64 }, ..Preprocess::default() },
        batch_size: 4,
        ..PatchcoreParams::default()
    }
}

/// Everything a model is, as bytes.
fn bytes(model: &Patchcore) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let mut writer = ModelWriter::new(model.kind());
    model.save(&mut writer).unwrap();
    writer.write(&path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn the_same_bits_for_any_threads_and_batches() {
    let fit = |threads: usize, batch_size: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let params = PatchcoreParams { batch_size, ..params() };
        pool.install(|| bytes(&params.fit(&Session::quiet(3), &Noise(6)).unwrap()))
    };
    let one = fit(1, 4);
    assert!(one == fit(2, 4));
    assert!(one == fit(7, 1));
}

#[test]
fn pictures_score_alike_alone_and_together_and_after_loading() {
    for mode in [Mode::Anomalib, Mode::Paper] {
        let params = PatchcoreParams { mode, projection: Some(24), ..params() };
        let model = params.fit(&Session::quiet(1), &Noise(5)).unwrap();
        let images: Vec<Image> = (10..15).map(|i| Noise(20).get(i).unwrap()).collect();
        let together = model.predict_batch(model.preprocess().batch(&images).unwrap().view()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let mut writer = ModelWriter::new(model.kind());
        model.save(&mut writer).unwrap();
        writer.add_self_test(&model).unwrap();
        writer.write(&path).unwrap();
        let file = ModelFile::open(&path).unwrap();
        let loaded = Patchcore::load(&file).unwrap();
        file.self_test(&loaded).unwrap();
        for (a, b) in together.iter().zip(loaded.predict(&images).unwrap()) {
            assert_eq!((a.score.to_bits(), &a.map), (b.score.to_bits(), &b.map));
            assert_eq!(a.map.as_ref().unwrap().dim(), (64, 64));
            assert!(a.score > 0.0);
        }
        assert_eq!(loaded.memory_bank().rows(), model.memory_bank().rows());
        assert!(model.predict_batch(ndarray::Array4::zeros((0, 64, 64, 3)).view()).unwrap().is_empty());
    }
}

#[test]
fn a_bank_of_fewer_bits_survives_the_file() {
    let fit = |bank| PatchcoreParams { bank, ..params() }.fit(&Session::quiet(1), &Noise(5)).unwrap();
    let whole = fit(BankStorage::F32);
    let images: Vec<Image> = (10..13).map(|i| Noise(20).get(i).unwrap()).collect();
    let want = whole.predict(&images).unwrap();
    let scores =
        |model: &Patchcore| -> Vec<u32> { model.predict(&images).unwrap().iter().map(|p| p.score.to_bits()).collect() };
    let mut sizes = vec![bytes(&whole).len()];
    for (bank, bits, tolerance) in [(BankStorage::F16, 16, 1e-3), (BankStorage::Int8, 8, 2e-2)] {
        let model = fit(bank);
        assert!(model.summary().contains(&format!("in {bits} bits")), "{}", model.summary());
        for (a, b) in model.predict(&images).unwrap().iter().zip(&want) {
            assert!((a.score / b.score - 1.0).abs() < tolerance, "{bank:?}: {} and {}", a.score, b.score);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        std::fs::write(&path, bytes(&model)).unwrap();
        sizes.push(bytes(&model).len());
        let loaded = Patchcore::load(&ModelFile::open(&path).unwrap()).unwrap();
        assert_eq!(loaded.memory_bank().rows(), model.memory_bank().rows());
        assert_eq!(scores(&loaded), scores(&model));
        // What is loaded and saved again is the same file, and rounding later the same as rounding at once.
        assert!(bytes(&loaded) == bytes(&model));
        assert_eq!(scores(&fit(BankStorage::F32).rounded(bank).unwrap()), scores(&model));
    }
    let numbers = whole.memory_bank().rows().len();
    assert!(sizes[0] - sizes[1] > numbers * 2 - 2000 && sizes[1] - sizes[2] > numbers - 2000, "{sizes:?} {numbers}");
}

#[test]
fn training_pictures_score_zero_with_the_whole_bank() {
    let params = PatchcoreParams { coreset_ratio: 1.0, ..params() };
    let model = params.fit(&Session::quiet(1), &Noise(3)).unwrap();
    assert_eq!(model.coreset().len(), 3 * 16 * 16);
    assert_eq!(model.predict(&[Noise(3).get(1).unwrap()]).unwrap()[0].score, 0.0);
}

#[test]
fn settings_out_of_range_say_which() {
    let cases: [(PatchcoreParams, &str); 9] = [
        (PatchcoreParams { coreset_ratio: 1e-4, ..params() }, "0.0001 of 512 patches"),
        (PatchcoreParams { coreset_ratio: 1.5, ..params() }, "coreset_ratio: 1.5"),
        (PatchcoreParams { coreset_ratio: f64::NAN, ..params() }, "coreset_ratio"),
        (PatchcoreParams { coreset_count: Some(513), ..params() }, "513 of the 512"),
        (PatchcoreParams { coreset_start: Some(512), ..params() }, "coreset_start"),
        (PatchcoreParams { num_neighbors: 0, ..params() }, "num_neighbors"),
        (PatchcoreParams { sigma: -1.0, ..params() }, "sigma"),
        (PatchcoreParams { projection: Some(0), ..params() }, "projection"),
        (PatchcoreParams { layers: vec![], ..params() }, "layers"),
    ];
    for (params, want) in cases {
        let error = params.fit(&Session::quiet(0), &Noise(2)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    assert!(matches!(params().fit(&Session::quiet(0), &Noise(0)), Err(CoreError::TooFewImages { .. })));
}

#[test]
fn params_are_plain_data() {
    let text = serde_json::to_string(&params()).unwrap();
    assert_eq!(serde_json::from_str::<PatchcoreParams>(&text).unwrap(), params());
    assert_eq!(serde_json::from_str::<PatchcoreParams>("{}").unwrap(), PatchcoreParams::default());
    let int8 = serde_json::from_str::<PatchcoreParams>(r#"{"bank": "int8"}"#).unwrap();
    assert_eq!(int8.bank, BankStorage::Int8);
    assert!(serde_json::from_str::<PatchcoreParams>(r#"{"bank": "int4"}"#).is_err());
    assert!(serde_json::from_str::<PatchcoreParams>(r#"{"coreset_ration": 0.1}"#).is_err());
}

/// Stops when the coreset begins.
struct Impatient(std::sync::atomic::AtomicBool);

impl Progress for Impatient {
    fn begin(&self, task: &'static str, _: usize) {
        self.0.fetch_or(task == "coreset", std::sync::atomic::Ordering::Relaxed);
    }
    fn advance(&self, _: &'static str, _: usize, _: usize) {}
    fn end(&self, _: &'static str) {}
    fn interrupted(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn the_coreset_can_be_interrupted() {
    let progress = Impatient(false.into());
    let session = Session { progress: &progress, ..Session::quiet(0) };
    let params = PatchcoreParams { coreset_ratio: 0.5, ..params() };
    assert!(matches!(params.fit(&session, &Noise(4)), Err(CoreError::Interrupted)));
}
