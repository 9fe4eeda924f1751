//! Detectors on a GPU, or on the stand-in driver of kernels/emu (`cargo xtask emu`), against the CPU.
#![cfg(feature = "cuda")]

mod common;
#[path = "cuda/linear.rs"]
mod linear;
#[path = "cuda/maps.rs"]
mod maps;

use blemish_core::{Detect, FitDyn, Session};
use blemish_tensor::Device;
use blemish_tensor::cuda::Cuda;
use common::{Noise, noise};

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

fn fit(params: &dyn FitDyn, device: &Device) -> Box<dyn Detect> {
    params.fit_dyn(&Session { device: device.clone(), ..Session::quiet(5) }, &noise(5)).unwrap()
}

/// The model of its own file.
fn reload(model: &dyn Detect) -> Box<dyn Detect> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    common::write(model, &path);
    common::load(model.kind(), &blemish_core::ModelFile::open(&path).unwrap()).unwrap()
}

/// Scores and maps of pictures not trained on, one after the other.
fn scores(model: &dyn Detect) -> Vec<f32> {
    let other = Noise { start: 100, count: 2 };
    let images: Vec<_> = (0..2).map(|i| blemish_core::ImageSource::get(&other, i).unwrap()).collect();
    let found = model.predict(&images).unwrap();
    found
        .iter()
        .flat_map(|p| p.map.iter().flat_map(|m| m.view().iter().copied().collect::<Vec<_>>()).chain([p.score]))
        .collect()
}

/// The largest difference against the largest value.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size
}
