//! Every GPU form against its CPU form, on a GPU or on the stand-in driver of `emu/` (`cargo xtask emu`).
//!
//! | module | kernels |
//! |---|---|
//! | [`flow`] | couplings, Adam, the ends of a training step |
//! | [`imaging`] | blur, resize, patch embeddings |
//! | [`kcenter`] | coreset, projection |
//! | [`layer`] | convolutions in training, norms of maps |
//! | [`mahalanobis`] | fits and distances of PaDiM |
//! | [`nearest`] | search, streamed search, distances |
//! | [`network`] | convolutions, pools, gates |
//! | [`product`] | linear layers in training |
//! | [`recording`] | launches recorded and started again |
#![cfg(feature = "cuda")]

mod flow;
mod imaging;
mod kcenter;
mod layer;
mod mahalanobis;
mod nearest;
mod network;
mod product;
mod recording;

use blemish_tensor::cuda::{Buffer, Cuda};
use ndarray::{Array, Array2, Dimension, ShapeBuilder};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn open() -> Option<Cuda> {
    match Cuda::open(0) {
        Ok(cuda) => {
            variant(&cuda);
            Some(cuda)
        }
        Err(why) if std::env::var_os("BLEMISH_REQUIRE_CUDA").is_some() => panic!("{why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn random<D: Dimension, Sh: ShapeBuilder<Dim = D>>(shape: Sh, seed: u64) -> Array<f32, D> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
}

/// Few different whole numbers, so that ties and duplicates abound.
fn tied(n: usize, d: usize, values: i32, seed: u64) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((n, d), || rng.random_range(0..values) as f32)
}

fn upload<D: Dimension>(cuda: &Cuda, array: &Array<f32, D>) -> Buffer<f32> {
    cuda.upload(array.as_slice().unwrap()).unwrap()
}

/// Loads the modules of the folder BLEMISH_PTX in place of those built in: how `cargo xtask tune` checks a variant.
fn variant(cuda: &Cuda) {
    let Some(folder) = std::env::var_os("BLEMISH_PTX") else { return };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "ptx") {
            let name: &'static str = path.file_stem().unwrap().to_string_lossy().into_owned().leak();
            cuda.substitute(name, &std::fs::read_to_string(&path).unwrap()).unwrap();
        }
    }
}
