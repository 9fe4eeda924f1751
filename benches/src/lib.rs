//! What the benchmarks share: sizes, reproducible inputs, and the work that a roofline counts.
//!
//! | file | question | groups |
//! |---|---|---|
//! | `conv.rs` | how close are convolutions to the arithmetic peak? | `conv` |
//! | `search.rs` | what do exact search and exact coreset cost beside the plain formula? | `nearest`, `kcenter` |
//! | `mahalanobis.rs` | what does a map of Mahalanobis distances cost in each form? | `mahalanobis` |
//! | `imaging.rs` | do resizing and blurring keep up with the network? | `resize`, `blur` |
//! | `metrics.rs` | what do exact metrics cost? | `metrics` |
//! | `end_to_end.rs` | how long does a picture take from pixels to a verdict? | `predict` |
//! | `ceiling.rs` | what could this machine do at best? | |
//! | `growth.rs` | how do time and memory grow with pictures, their size and the bank? (an example: it takes minutes) | |
//! | `gpu/` | how close are the GPU kernels to what the GPU could do? (a target of the kernels' crate) | |
//! | `peers/` | what other people's programs take on the same shapes (Python) | |
//!
//! `cargo xtask bench` runs them and prints one table; `cargo bench -p blemish-benches --bench conv` runs one.

use criterion::Throughput;
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Whether `BLEMISH_BENCH_SIZE=full` asks for the shapes of real models instead of small ones.
pub fn full() -> bool {
    std::env::var("BLEMISH_BENCH_SIZE").is_ok_and(|size| size == "full")
}

/// The small or the full list of cases.
pub fn cases<T: Copy>(small: &[T], more: &[T]) -> Vec<T> {
    let mut list = small.to_vec();
    if full() {
        list.extend_from_slice(more);
    }
    list
}

/// Numbers evenly spread over -1 to 1.
pub fn uniform(seed: u64, len: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// Rows `[n, d]` like a network's features: the variance along direction `i` falls as `1 / (1 + i / 8)`.
///
/// Rows without such structure make pruning impossible, rows with more make it too easy; features of trained networks fall
/// at about this rate.
pub fn features(seed: u64, n: usize, d: usize) -> Array2<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // A fixed mixing, so that no axis is special: each direction is added to two columns.
    let mut rows = Array2::zeros((n, d));
    for mut row in rows.rows_mut() {
        for i in 0..d {
            let x: f32 = (0..4).map(|_| random.random_range(-1.0_f32..1.0)).sum();
            let x = x / (1.0 + i as f32 / 8.0).sqrt();
            row[i] += x;
            row[(i * 7 + 3) % d] += 0.5 * x;
        }
    }
    rows
}

/// What a case has to do at least: arithmetic operations (a multiply-add is two; 0 if they are beside the point) and bytes
/// read and written once.
pub fn work(flops: usize, bytes: usize) -> Throughput {
    match flops {
        0 => Throughput::Bytes(bytes as u64),
        flops => Throughput::ElementsAndBytes { elements: flops as u64, bytes: bytes as u64 },
    }
}
