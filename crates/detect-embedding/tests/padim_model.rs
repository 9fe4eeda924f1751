//! PaDiM as a detector on small pictures and an untrained network: params, files, batches, threads.

use std::path::Path;

use blemish_core::{
    CoreError, Detect, Fit, Image, ImageSource, ModelFile, ModelWriter, Preprocess, Progress, Resize, Session,
};
use blemish_detect_embedding::padim::Form;
use blemish_detect_embedding::{Mode, Padim, PadimParams};
use blemish_tensor::Tensor;
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

fn params() -> PadimParams {
    PadimParams {
        backbone: "mobilenetv2_100".to_owned(),
        layers: ["blocks.1", "blocks.2", "blocks.3"].map(str::to_owned).to_vec(),
        n_features: Some(40),
        // No powers of two: grids of 15 x 13, 8 x 7 and 4 x 4.
        preprocess: Preprocess { resize: Resize::Stretch { height: 60, width: 52 }, ..Preprocess::default() },
        batch_size: 4,
        ..PadimParams::default()
    }
}

fn write(model: &Padim, path: &Path) {
    let mut writer = ModelWriter::new(model.kind());
    model.save(&mut writer).unwrap();
    writer.add_self_test(model).unwrap();
    writer.write(path).unwrap();
}

#[test]
fn the_same_bits_for_any_threads() {
    for form in [Form::Nested, Form::LowRank] {
        let fit = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model");
            pool.install(|| {
                write(&PadimParams { form, ..params() }.fit(&Session::quiet(3), &Noise(6)).unwrap(), &path);
                std::fs::read(path).unwrap()
            })
        };
        let one = fit(1);
        assert!(one == fit(2));
        assert!(one == fit(7));
    }
}

#[test]
fn pictures_score_alike_alone_and_together_and_after_loading() {
    let folder = tempfile::tempdir().unwrap();
    for (i, (form, mode)) in [
        (Form::Nested, Mode::Anomalib),
        (Form::Triangle, Mode::Anomalib),
        (Form::LowRank, Mode::Anomalib),
        (Form::Auto, Mode::Paper),
    ]
    .into_iter()
    .enumerate()
    {
        let model = PadimParams { form, mode, ..params() }.fit(&Session::quiet(1), &Noise(7)).unwrap();
        let images: Vec<Image> = (10..15).map(|i| Noise(20).get(i).unwrap()).collect();
        let together = model.predict_batch(model.preprocess().batch(&images).unwrap().view()).unwrap();
        let path = folder.path().join(i.to_string());
        write(&model, &path);
        let file = ModelFile::open(&path).unwrap();
        let loaded = Padim::load(&file).unwrap();
        file.self_test(&loaded).unwrap();
        for (a, b) in together.iter().zip(loaded.predict(&images).unwrap()) {
            assert_eq!((a.score.to_bits(), &a.map), (b.score.to_bits(), &b.map));
            assert_eq!(a.map.as_ref().unwrap().dim(), (60, 52));
            assert_eq!(a.score, a.map.as_ref().unwrap().max().unwrap());
        }
        assert_eq!(loaded.summary(), model.summary());
        assert_eq!(loaded.gaussians().form(), model.gaussians().form());
        assert!(model.predict_batch(ndarray::Array4::zeros((0, 60, 52, 3)).view()).unwrap().is_empty());
        let error = model.predict_batch(ndarray::Array4::zeros((1, 64, 64, 3)).view()).unwrap_err();
        assert!(matches!(error, CoreError::Shape { .. }), "{error}");
    }
}

#[test]
fn the_forms_and_any_order_of_layers_agree() {
    let scores = |form: Form, layers: [&str; 3], channels: Vec<usize>| {
        let layers = layers.map(str::to_owned).to_vec();
        let params = PadimParams { form, layers, channels: Some(channels), n_features: None, ..params() };
        let model = params.fit(&Session::quiet(1), &Noise(7)).unwrap();
        let images: Vec<Image> = (10..13).map(|i| Noise(20).get(i).unwrap()).collect();
        model.predict(&images).unwrap().iter().map(|p| p.score).collect::<Vec<_>>()
    };
    // blocks.1 to blocks.3 have 24, 32 and 64 channels.
    let first = scores(Form::Nested, ["blocks.1", "blocks.2", "blocks.3"], vec![3, 20, 30, 55, 60, 61, 100]);
    for other in [
        scores(Form::Triangle, ["blocks.1", "blocks.2", "blocks.3"], vec![100, 61, 60, 55, 30, 20, 3]),
        scores(Form::LowRank, ["blocks.1", "blocks.2", "blocks.3"], vec![3, 20, 30, 55, 60, 61, 100]),
        scores(Form::Nested, ["blocks.3", "blocks.2", "blocks.1"], vec![4, 5, 44, 70, 95, 99, 116]),
    ] {
        assert!(first.iter().zip(&other).all(|(a, b)| (a / b - 1.0).abs() < 1e-4), "{first:?} {other:?}");
    }
    // Channels of the coarsest layer alone still give the finest layer's grid.
    let params = PadimParams { channels: Some(vec![60, 61]), n_features: None, form: Form::Nested, ..params() };
    let model = params.fit(&Session::quiet(1), &Noise(7)).unwrap();
    assert_eq!((model.gaussians().grid(), model.gaussians().form()), ((15, 13), Form::Nested));
    let folder = tempfile::tempdir().unwrap();
    write(&model, &folder.path().join("model"));
    let file = ModelFile::open(&folder.path().join("model")).unwrap();
    file.self_test(&Padim::load(&file).unwrap()).unwrap();
}

#[test]
fn settings_out_of_range_say_which() {
    let layers = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let cases: [(PadimParams, &str); 11] = [
        (PadimParams { n_features: Some(0), ..params() }, "n_features: 0"),
        (PadimParams { n_features: Some(121), ..params() }, "n_features: 121; the layers have 120"),
        (PadimParams { channels: Some(vec![]), n_features: None, ..params() }, "channels: none"),
        (PadimParams { channels: Some(vec![5, 120]), n_features: None, ..params() }, "120 is out of range"),
        (PadimParams { channels: Some(vec![5, 7, 5]), n_features: None, ..params() }, "5 is named twice"),
        (PadimParams { channels: Some(vec![5, 7]), ..params() }, "n_features is 40"),
        (PadimParams { epsilon: 0.0, ..params() }, "epsilon: 0"),
        (PadimParams { epsilon: f64::NAN, ..params() }, "epsilon"),
        (PadimParams { sigma: f32::NAN, ..params() }, "sigma"),
        (PadimParams { batch_size: 0, ..params() }, "batch_size"),
        (PadimParams { layers: layers(&[]), ..params() }, "layers"),
    ];
    for (params, want) in cases {
        let error = params.fit(&Session::quiet(0), &Noise(3)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    for n in [0, 1] {
        let error = params().fit(&Session::quiet(0), &Noise(n)).map(|_| ()).unwrap_err();
        assert!(matches!(error, CoreError::TooFewImages { got, .. } if got == n), "{error}");
    }
}

#[test]
fn params_are_plain_data() {
    let text = serde_json::to_string(&params()).unwrap();
    assert_eq!(serde_json::from_str::<PadimParams>(&text).unwrap(), params());
    assert_eq!(serde_json::from_str::<PadimParams>("{}").unwrap(), PadimParams::default());
    assert_eq!(serde_json::from_str::<PadimParams>(r#"{"form": "low_rank"}"#).unwrap().form, Form::LowRank);
    assert!(serde_json::from_str::<PadimParams>(r#"{"n_feature": 10}"#).is_err());
    let counts = |backbone: &str, total: usize| {
        PadimParams { backbone: backbone.to_owned(), ..PadimParams::default() }.select(total, 0).unwrap().len()
    };
    let (wide, small) = (counts("wide_resnet50_2", 1792), counts("mobilenetv2_100", 64));
    assert_eq!((counts("resnet18", 448), wide, small), (100, 550, 64));
    let draw = |seed| PadimParams::default().select(448, seed).unwrap();
    assert!(draw(1) == draw(1) && draw(1) != draw(2));
}

/// A model file with one tensor or metadata entry changed.
#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let model = PadimParams { form: Form::Nested, ..params() }.fit(&Session::quiet(1), &Noise(5)).unwrap();
    let low = PadimParams { form: Form::LowRank, ..params() }.fit(&Session::quiet(1), &Noise(5)).unwrap();
    let load = |model: &Padim, change: &dyn Fn(&str, &Tensor) -> Option<Tensor>, meta: Option<(&str, &str)>| {
        let whole = folder.path().join("whole");
        write(model, &whole);
        let file = ModelFile::open(&whole).unwrap();
        let mut writer = ModelWriter::new("padim");
        for (key, value) in file.meta() {
            writer.set(key, value).unwrap();
        }
        if let Some((key, value)) = meta {
            writer.set(key, &serde_json::from_str::<serde_json::Value>(value).unwrap()).unwrap();
        }
        for (name, tensor) in file.tensors() {
            if let Some(tensor) = change(name, tensor) {
                writer.add(name, tensor).unwrap();
            }
        }
        writer.write(&path).unwrap();
        Padim::load(&ModelFile::open(&path).unwrap()).map(|_| ()).map_err(|e| e.to_string())
    };
    let keep = |_: &str, t: &Tensor| Some(t.clone());
    load(&model, &keep, None).unwrap();
    load(&low, &keep, None).unwrap();
    let names = ["padim.channels", "padim.mean.0", "padim.mean.2", "padim.weight.1"];
    for (model, name) in names.iter().map(|n| (&model, *n)).chain([(&low, "padim.basis"), (&low, "padim.scale")]) {
        let error = load(model, &|n, t| (n != name).then(|| t.clone()), None).unwrap_err();
        assert!(error.contains(name), "{error}");
        let short = Tensor::from_vec(vec![1], vec![0.0f32]).unwrap();
        let error = load(model, &|n, t| Some(if n == name { short.clone() } else { t.clone() }), None).unwrap_err();
        assert!(error.contains("padim"), "{error}");
    }
    let channels = |first: u32| {
        move |n: &str, t: &Tensor| {
            if n != "padim.channels" {
                return Some(t.clone());
            }
            let mut values = t.as_slice::<u32>().unwrap().to_vec();
            values[0] = if first == 0 { values[1] } else { first };
            Tensor::from_vec(vec![values.len()], values).ok()
        }
    };
    assert!(load(&model, &channels(0), None).unwrap_err().contains("named twice"));
    assert!(load(&model, &channels(u32::MAX), None).unwrap_err().contains("of 120"));
    for (key, value) in [
        ("padim.gaussians", r#"{"form": "nested", "maps": [[15, 13, 24], [8, 7, 32], [4, 4, 64]], "epsilon": -1.0}"#),
        ("padim.gaussians", r#"{"form": "nested", "maps": [], "epsilon": 0.01}"#),
        (
            "padim.gaussians",
            r#"{"form": "nested", "maps": [[15, 13, 24], [8, 7, 32], [4, 4, 99999999999]], "epsilon": 1}"#,
        ),
        ("padim.gaussians", r#"{"form": "nested", "maps": [[15, 14, 24], [8, 7, 32], [4, 4, 64]], "epsilon": 0.01}"#),
        ("padim.gaussians", r#"{"form": "triangle", "maps": [[15, 13, 24], [8, 7, 32], [4, 4, 64]], "epsilon": 0.01}"#),
        ("padim.gaussians", r#"{"form": "spiral", "maps": [], "epsilon": 0.01}"#),
        ("padim", r#"{"sigma": -4.0, "mode": "anomalib", "images": 5}"#),
        ("padim", "3"),
    ] {
        assert!(load(&model, &keep, Some((key, value))).is_err(), "{value}");
    }
}

/// Stops after the first batch.
struct Impatient;

impl Progress for Impatient {
    fn begin(&self, _: &'static str, _: usize) {}
    fn advance(&self, _: &'static str, _: usize, _: usize) {}
    fn end(&self, _: &'static str) {}
    fn interrupted(&self) -> bool {
        true
    }
}

#[test]
fn learning_can_be_interrupted() {
    let session = Session { progress: &Impatient, ..Session::quiet(0) };
    assert!(matches!(params().fit(&session, &Noise(9)), Err(CoreError::Interrupted)));
}
