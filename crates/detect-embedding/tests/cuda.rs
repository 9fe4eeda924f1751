//! Whole steps of the detectors on a GPU, or on the stand-in driver (`cargo xtask emu`), against the CPU.
#![cfg(feature = "cuda")]

use blemish_core::{
    CoreError, Detect, Fit, Image, ImageSource, ModelFile, ModelWriter, Prediction, Preprocess, Resize, Session,
};
use blemish_detect_embedding::padim::{self, Form, Learner};
use blemish_detect_embedding::patchcore::{MemoryBank, Scoring};
use blemish_detect_embedding::{Mode, Padim, PadimParams, PatchcoreParams};
use blemish_tensor::{Device, cuda::Cuda};
use ndarray::{Array2, Array3, Array4};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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

fn rows(n: usize, d: usize, seed: u64) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((n, d), || rng.random_range(-1.0..1.0))
}

#[test]
fn scores_of_patches_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    for (mode, num_neighbors) in [(Mode::Anomalib, 9), (Mode::Paper, 9), (Mode::Anomalib, 1), (Mode::Anomalib, 40)] {
        let mut memory = MemoryBank::new(rows(90, 12, 1), Scoring { num_neighbors, sigma: 1.0, mode }).unwrap();
        let patches = rows(3 * 4 * 5, 12, 2);
        let wanted = memory.score(patches.view(), (4, 5), (16, 20)).unwrap();
        memory.use_device(&Device::cuda(cuda.clone()));
        for _again in 0..2 {
            let before = cuda.memory_peak();
            let got = memory.score(patches.view(), (4, 5), (16, 20)).unwrap();
            assert!(cuda.memory_used() > 0 && cuda.memory_peak() >= before, "the bank is kept there");
            for (g, w) in got.iter().zip(&wanted) {
                assert_eq!(g.score, w.score);
                assert_eq!(g.map.as_ref().unwrap().view(), w.map.as_ref().unwrap().view());
            }
        }
        memory.use_device(&Device::cpu());
        assert_eq!(cuda.memory_used(), 0, "and given back");
    }
}

#[test]
fn banks_that_do_not_fit_are_streamed_or_searched_on_the_cpu() {
    let Some(cuda) = open() else { return };
    let scoring = Scoring { num_neighbors: 9, sigma: 0.0, mode: Mode::Anomalib };
    let mut memory = MemoryBank::new(rows(900, 12, 1), scoring).unwrap();
    let patches = rows(2 * 12, 12, 2);
    let wanted = memory.score(patches.view(), (3, 4), (12, 16)).unwrap();
    let before = cuda.memory_budget();
    for budget in [20 << 10, 100] {
        memory.use_device(&Device::cpu());
        memory.use_device(&Device::cuda(cuda.clone()));
        cuda.set_memory_budget(budget);
        let got = memory.score(patches.view(), (3, 4), (12, 16));
        cuda.set_memory_budget(before);
        for (g, w) in got.unwrap().iter().zip(&wanted) {
            assert_eq!(g.score, w.score, "{budget} bytes");
        }
        assert_eq!(cuda.memory_used(), 0);
    }
}

#[test]
fn distances_of_positions_agree_and_what_does_not_fit_stays_on_the_cpu() {
    let Some(cuda) = open() else { return };
    let sizes = [[4, 4, 6], [2, 2, 8]];
    let maps = |n: usize, seed: u64| -> Vec<Array4<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        sizes.map(|[h, w, c]| Array4::from_shape_simple_fn((n, h, w, c), || rng.random_range(-1.0..1.0))).to_vec()
    };
    for form in [Form::Nested, Form::Triangle, Form::LowRank] {
        let mut learner = Learner::new(&sizes, &[0, 2, 5, 7, 8, 13], 9, 0.1, form).unwrap();
        learner.push(&maps(9, 1)).unwrap();
        let mut gaussians: padim::Gaussians = learner.finish().unwrap();
        let input = maps(3, 2);
        let wanted = gaussians.distance(&input).unwrap();
        gaussians.use_device(&Device::cuda(cuda.clone()));
        let got = gaussians.distance(&input).unwrap();
        assert!(cuda.memory_used() > 0);
        for (g, w) in got.iter().zip(&wanted) {
            assert!((g - w).abs() <= 2e-5 * w, "{g} {w}");
        }
        gaussians.use_device(&Device::cpu());
        let (budget, small) = (cuda.memory_budget(), 64);
        cuda.set_memory_budget(small);
        gaussians.use_device(&Device::cuda(cuda.clone()));
        assert_eq!(gaussians.distance(&input).unwrap(), wanted);
        cuda.set_memory_budget(budget);
    }
}

#[test]
fn factors_stay_on_the_gpu_where_there_is_room() {
    let Some(cuda) = open() else { return };
    let channels: Vec<usize> = (0..64).collect();
    let maps = |n: usize, seed: u64| -> Vec<Array4<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        vec![Array4::from_shape_simple_fn((n, 2, 2, 64), || rng.random_range(-1.0..1.0))]
    };
    let learn = |device: &Device| -> padim::Gaussians {
        let mut learner = Learner::on(device, &[[2, 2, 64]], &channels, 70, 0.1, Form::Triangle).unwrap();
        (0..7).for_each(|i| learner.push(&maps(10, i)).unwrap());
        learner.finish().unwrap()
    };
    let input = maps(3, 9);
    let wanted = learn(&Device::cpu()).distance(&input).unwrap();
    let (budget, before, factors) = (cuda.memory_budget(), cuda.memory_used(), 4 * (65 * 32) * 4);
    for (room, stay) in [(budget, true), (270 << 10, false)] {
        cuda.set_memory_budget(before.saturating_add(room).min(budget));
        let mut gaussians = learn(&Device::cuda(cuda.clone()));
        cuda.set_memory_budget(budget);
        assert_eq!(cuda.memory_used() - before >= factors, stay, "{room}");
        for device in [Device::cuda(cuda.clone()), Device::cpu()] {
            gaussians.use_device(&device);
            for (g, w) in gaussians.distance(&input).unwrap().iter().zip(&wanted) {
                assert!((g - w).abs() <= 1e-4 * w, "{g} {w} {room}");
            }
        }
    }
}

/// Noise that is the same every time.
struct Pictures(usize);

impl ImageSource for Pictures {
    fn len(&self) -> usize {
        self.0
    }

    fn name(&self, index: usize) -> String {
        format!("picture {index}")
    }

    fn get(&self, index: usize) -> Result<Image, CoreError> {
        let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
        Image::from_u8(Array3::from_shape_simple_fn((32, 32, 3), || rng.random()))
    }
}

#[test]
fn whole_models_agree_with_the_cpu_s() {
    let Some(cuda) = open() else { return };
    let device = Device::cuda(cuda.clone());
    let session = |device: &Device| Session { device: device.clone(), ..Session::quiet(3) };
    let preprocess =
        Preprocess { resize: Resize::Stretch { height: 32, width: 32 }, crop: None, ..Preprocess::default() };
    let backbone = "mobilenetv2_100".to_owned();
    let layers = vec!["blocks.1".to_owned(), "blocks.2".to_owned()];
    let input: Vec<Image> = (10..12).map(|i| Pictures(20).get(i).unwrap()).collect();
    // Room for all patches on the GPU, for none of them, and what is collected there in the paper's mode.
    let all = cuda.memory_budget();
    for (projection, mode, budget) in [
        (None, Mode::Anomalib, all),
        (Some(8), Mode::Anomalib, all),
        (Some(8), Mode::Anomalib, 640 << 10),
        (Some(8), Mode::Paper, all),
    ] {
        cuda.set_memory_budget(cuda.memory_used() + budget);
        let params = PatchcoreParams {
            mode,
            backbone: backbone.clone(),
            layers: layers.clone(),
            preprocess: preprocess.clone(),
            projection,
            ..PatchcoreParams::default()
        };
        let cpu = params.fit(&session(&Device::cpu()), &Pictures(6)).unwrap();
        let gpu = params.fit(&session(&device), &Pictures(6)).unwrap();
        assert_eq!(gpu.coreset(), cpu.coreset());
        let (got, wanted) = (gpu.predict(&input).unwrap(), cpu.predict(&input).unwrap());
        for (g, w) in got.iter().zip(&wanted) {
            assert_eq!(g.score, w.score);
            assert_eq!(g.map.as_ref().unwrap().view(), w.map.as_ref().unwrap().view());
        }
        cuda.set_memory_budget(all);
    }
    let params = PadimParams { backbone, layers, preprocess, n_features: Some(20), ..PadimParams::default() };
    for form in [Form::Nested, Form::LowRank] {
        let params = PadimParams { form, ..params.clone() };
        let cpu = params.fit(&session(&Device::cpu()), &Pictures(6)).unwrap();
        let gpu = params.fit(&session(&device), &Pictures(6)).unwrap();
        let wanted = cpu.predict(&input).unwrap();
        let agrees = |got: &[Prediction]| {
            for (g, w) in got.iter().zip(&wanted) {
                assert!((g.score - w.score).abs() <= 1e-4 * w.score, "{} {}", g.score, w.score);
            }
        };
        agrees(&gpu.predict(&input).unwrap());
        // Factors that are on the GPU alone come back: into a file, and when the model leaves the GPU.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut writer = ModelWriter::new(gpu.kind());
        gpu.save(&mut writer).unwrap();
        writer.write(&path).unwrap();
        let loaded = Padim::load(&ModelFile::open(&path).unwrap()).unwrap().predict(&input).unwrap();
        agrees(&loaded);
        let mut moved = params.fit(&session(&device), &Pictures(6)).unwrap();
        moved.use_device(&Device::cpu());
        for (m, l) in moved.predict(&input).unwrap().iter().zip(&loaded) {
            assert_eq!((m.score.to_bits(), &m.map), (l.score.to_bits(), &l.map));
        }
    }
}
