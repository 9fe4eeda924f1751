//! Whole models on a GPU against the CPU, on real pictures where they are at hand: on a GPU, or on the stand-in driver of
//! kernels/emu (`cargo xtask emu`), with smaller pictures there.
#![cfg(feature = "cuda")]

use std::path::{Path, PathBuf};

use blemish::Model;
use blemish::core::{Calibration, Decision, ThresholdSource};
use blemish::core::{CoreError, Detect, Fit, Image, ImageSource, Preprocess, Resize, Session};
use blemish::detect_embedding::{PadimParams, PatchcoreParams};
use blemish::detect_flow::{CflowParams, FastflowParams};
use blemish::tensor::Device;
use blemish::tensor::cuda::Cuda;

fn open() -> Option<Cuda> {
    match Cuda::open(0) {
        Ok(cuda) => Some(cuda),
        Err(why) if std::env::var_os("BLEMISH_REQUIRE_CUDA").is_some() => panic!("{why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn shared() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"))
}

/// Screws, or drawn pictures where there are none.
struct Pictures(Vec<PathBuf>, usize);

impl Pictures {
    fn new(folder: &str, count: usize) -> Self {
        let read = std::fs::read_dir(shared().join("data/mvtec/screw").join(folder));
        let mut found: Vec<PathBuf> = read.into_iter().flatten().flatten().map(|e| e.path()).collect();
        found.sort();
        if found.is_empty() {
            eprintln!("the screws are not here: drawn pictures take their place");
        }
        found.truncate(count);
        Pictures(found, count)
    }

    fn images(&self) -> Vec<Image> {
        (0..self.len()).map(|i| self.get(i).unwrap()).collect()
    }
}

impl ImageSource for Pictures {
    fn len(&self) -> usize {
        self.1
    }

    fn name(&self, index: usize) -> String {
        format!("picture {index}")
    }

    fn get(&self, index: usize) -> Result<Image, CoreError> {
        match self.0.get(index) {
            Some(path) => blemish::datasets::decode(path),
            None => Image::from_u8(ndarray::Array3::from_shape_fn((80, 96, 3), |(y, x, c)| {
                ((x * 7 + y * 13 + index * 29) % 64 + 90 + c * 3) as u8
            })),
        }
    }
}

struct Setting {
    backbone: String,
    layers: Vec<String>,
    weights: Option<PathBuf>,
    preprocess: Preprocess,
    pictures: usize,
}

/// As in use on a GPU; as much as an emulator can do in seconds on the stand-in.
fn setting(cuda: &Cuda) -> Setting {
    let toy = cuda.info().name == "emulated";
    let side = if toy { 48 } else { 256 };
    let layers: &[&str] = if toy { &["blocks.1", "blocks.2"] } else { &["blocks.1", "blocks.2", "blocks.4"] };
    Setting {
        backbone: "mobilenetv2_100".to_owned(),
        layers: layers.iter().map(|l| (*l).to_owned()).collect(),
        weights: Some(shared().join("weights/mobilenetv2_100.safetensors")).filter(|p| p.exists()),
        preprocess: Preprocess {
            resize: Resize::Stretch { height: side, width: side },
            crop: None,
            ..Preprocess::default()
        },
        pictures: if toy { 5 } else { 40 },
    }
}

fn padim(cuda: &Cuda) -> PadimParams {
    let Setting { backbone, layers, weights, preprocess, .. } = setting(cuda);
    PadimParams { backbone, layers, weights, preprocess, n_features: Some(24), ..PadimParams::default() }
}

fn patchcore(cuda: &Cuda) -> PatchcoreParams {
    let Setting { backbone, layers, weights, preprocess, .. } = setting(cuda);
    PatchcoreParams { backbone, layers, weights, preprocess, coreset_ratio: 0.1, ..PatchcoreParams::default() }
}

fn cflow(cuda: &Cuda) -> CflowParams {
    let Setting { backbone, layers, weights, preprocess, .. } = setting(cuda);
    let small = CflowParams {
        blocks: 2,
        condition: 8,
        epochs: 1,
        flow_precision: "f32".parse().unwrap(),
        ..CflowParams::default()
    };
    CflowParams { backbone, layers, weights, preprocess, ..small }
}

fn fastflow(cuda: &Cuda) -> FastflowParams {
    let Setting { backbone, layers, weights, preprocess, .. } = setting(cuda);
    FastflowParams { backbone, layers, weights, preprocess, steps: 2, epochs: 1, ..FastflowParams::default() }
}

fn session(device: &Device) -> Session<'static> {
    Session { device: device.clone(), ..Session::quiet(3) }
}

/// The largest relative difference of scores, and of map values relative to the map's largest.
fn apart(got: &dyn Detect, wanted: &dyn Detect, pictures: &[Image]) -> (f32, f32) {
    let mut worst = (0f32, 0f32);
    for (g, w) in got.predict(pictures).unwrap().iter().zip(wanted.predict(pictures).unwrap()) {
        worst.0 = worst.0.max((g.score - w.score).abs() / w.score.abs());
        let (g, w) = (g.map.as_ref().unwrap(), w.map.as_ref().unwrap());
        let most = w.max().unwrap();
        worst.1 = g.view().iter().zip(w.view()).fold(worst.1, |far, (g, w)| far.max((g - w).abs() / most));
    }
    worst
}

/// Fits on both, compares, and moves the one from the CPU over.
fn compare<P: Fit>(cuda: &Cuda, params: &P, tolerance: f32) -> (P::Model, P::Model) {
    let device = Device::cuda(cuda.clone());
    let good = Pictures::new("train/good", setting(cuda).pictures);
    let test = Pictures::new("test/thread_side", 2).images();
    let mut cpu = params.fit(&session(&Device::cpu()), &good).unwrap();
    let gpu = params.fit(&session(&device), &good).unwrap();
    assert!(gpu.placement().starts_with("network on cuda:0"), "{}", gpu.placement());
    assert_eq!(gpu.placement().matches("on cuda:0").count(), 2, "{}", gpu.placement());
    assert!(gpu.stages().is_none() && cpu.stages().is_some(), "features go on without a copy");
    let learnt = apart(&gpu, &cpu, &test);
    assert!(learnt.0 < tolerance && learnt.1 < tolerance, "learnt there: {learnt:?}");
    let before = cpu.predict(&test).unwrap();
    cpu.use_device(&device);
    let moved = apart(&cpu, &gpu, &test);
    assert!(moved.0 < tolerance && moved.1 < tolerance, "moved there: {moved:?}");
    cpu.use_device(&Device::cpu());
    for (back, before) in cpu.predict(&test).unwrap().iter().zip(before) {
        assert_eq!(back.score, before.score, "and back");
    }
    (cpu, gpu)
}

#[test]
fn padim_agrees() {
    let Some(cuda) = open() else { return };
    compare(&cuda, &padim(&cuda), 2e-3);
    assert_eq!(cuda.memory_used(), 0, "all of it is given back");
}

#[test]
fn patchcore_agrees() {
    let Some(cuda) = open() else { return };
    let (cpu, gpu) = compare(&cuda, &patchcore(&cuda), 2e-3);
    // Features differ in their last digits, so of nearly equal candidates the other may be picked now and then.
    let same = gpu.coreset().iter().filter(|&i| cpu.coreset().contains(i)).count();
    assert!(same * 10 >= cpu.coreset().len() * 9, "{same} of {}", cpu.coreset().len());
    drop((cpu, gpu));
    assert_eq!(cuda.memory_used(), 0);
}

#[test]
fn cflow_agrees() {
    let Some(cuda) = open() else { return };
    let (cpu, gpu) = compare(&cuda, &cflow(&cuda), 1e-2);
    assert_eq!(cpu.curve().len(), gpu.curve().len());
    drop((cpu, gpu));
    assert_eq!(cuda.memory_used(), 0);
}

#[test]
fn fastflow_agrees() {
    let Some(cuda) = open() else { return };
    let (cpu, gpu) = compare(&cuda, &fastflow(&cuda), 1e-2);
    assert_eq!(cpu.curve().len(), gpu.curve().len());
    drop((cpu, gpu));
    assert_eq!(cuda.memory_used(), 0);
}

#[test]
fn half_precision_scores_like_bf16_and_files_move_between_devices() {
    let Some(cuda) = open() else { return };
    if cuda.info().capability < (8, 0) {
        eprintln!("skipped: fp16 on tensor cores needs compute capability 8.0");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let device = Device::cuda(cuda.clone());
    for precision in ["f32", "bf16", "int8"] {
        let params = PadimParams { precision: precision.parse().unwrap(), ..padim(&cuda) };
        let good = Pictures::new("train/good", setting(&cuda).pictures);
        let test = Pictures::new("test/thread_side", 2).images();
        let detector = params.fit(&session(&device), &good).unwrap();
        let words = match precision {
            "f32" => "network on cuda:0 in f32",
            "bf16" => "network on cuda:0 in fp16",
            _ => "network on the CPU in int8 (int8 has no form for GPUs)",
        };
        assert!(detector.placement().starts_with(words), "{}", detector.placement());
        let path = folder.path().join(format!("{precision}.safetensors"));
        save(&detector, &path);
        // The self-test passes on either device, and scores stay close.
        let there = Model::load_on(&path, &device).unwrap();
        let here = Model::load(&path).unwrap();
        assert_eq!(there.placement(), detector.placement(), "the self-test was passed there");
        assert!(here.placement().contains("on the CPU"), "{}", here.placement());
        let far = apart(there.detector.as_ref(), here.detector.as_ref(), &test);
        let tolerance = if precision == "bf16" { 0.1 } else { 2e-3 };
        assert!(far.0 < tolerance && far.1 < tolerance, "{precision}: {far:?}");
    }
}

/// A model file, thresholds and all.
fn save(detector: &dyn Detect, path: &Path) {
    let mut file = blemish::core::ModelWriter::new(detector.kind());
    detector.save(&mut file).unwrap();
    let image = Calibration::new(1.0, 2.0).unwrap();
    let decision = Decision { image, image_source: ThresholdSource::Given, pixel: None, pixel_source: None };
    file.set("decision", &decision).unwrap();
    for key in ["params", "learnt_from"] {
        file.set(key, &serde_json::json!({"name": "", "category": "", "train": 0, "val": 0})).unwrap();
    }
    file.set("seed", &0).unwrap();
    file.add_self_test(detector).unwrap();
    file.write(path).unwrap();
}

#[test]
fn what_does_not_fit_is_computed_on_the_cpu_and_said() {
    let Some(cuda) = open() else { return };
    let device = Device::cuda(cuda.clone());
    let good = Pictures::new("train/good", 4);
    let test = Pictures::new("test/thread_side", 2).images();
    let budget = cuda.memory_budget();
    let mut model = padim(&cuda).fit(&session(&Device::cpu()), &good).unwrap();
    let wanted = model.predict(&test).unwrap();
    // Not even the weights; the weights, but no maps.
    for weights in [false, true] {
        if !weights {
            cuda.set_memory_budget(1 << 10);
        }
        model.use_device(&device);
        if weights {
            cuda.set_memory_budget(cuda.memory_used() + (1 << 10));
        }
        let got = model.predict(&test).unwrap();
        cuda.set_memory_budget(budget);
        for (g, w) in got.iter().zip(&wanted) {
            assert!((g.score - w.score).abs() <= 2e-3 * w.score, "{weights}: {} {}", g.score, w.score);
        }
        let said = model.placement();
        assert!(said.contains("network on the CPU in f32 (") && said.contains("bytes"), "{weights}: {said}");
        assert!(model.stages().is_some());
        model.use_device(&Device::cpu());
        assert_eq!(cuda.memory_used(), 0);
    }
    // Nor does learning fail.
    cuda.set_memory_budget(1 << 10);
    let fitted = patchcore(&cuda).fit(&session(&device), &good);
    cuda.set_memory_budget(budget);
    assert!(fitted.unwrap().placement().contains("coreset picked on the CPU"));
}
