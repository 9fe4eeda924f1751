//! Flows on a GPU, or on the stand-in driver of kernels/emu (`cargo xtask emu`), against the CPU.
#![cfg(feature = "cuda")]

#[path = "cuda/linear.rs"]
mod linear;
#[path = "cuda/maps.rs"]
mod maps;

use blemish_tensor::cuda::Cuda;
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

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Compares numbers against the size of the largest.
fn close(what: &str, got: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let size = wanted.iter().fold(0.0f32, |m, v| m.max(v.abs())).max(1e-6);
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((g - w).abs() <= tolerance * size, "{what} at {i}: {g}, not {w}, of at most {size}");
    }
}
