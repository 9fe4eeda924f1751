//! What this machine can do at best: the denominators of a roofline.
//!
//! Both run on the current rayon pool and take less than a second; the best of several passes counts.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

use std::time::{Duration, Instant};

use rayon::prelude::*;

const PASSES: usize = 40;
/// Large beside every cache, small beside every memory.
const BYTES: usize = 256 << 20;

/// Single-precision operations a second, in units of 10^9, that fused multiply-adds on registers reach with the widest
/// vectors the kernels use; a multiply-add counts as two.
pub fn gflops() -> f64 {
    const ROUNDS: usize = 1 << 20;
    let best = fastest(|| {
        let spent: Vec<(f32, u64)> = rayon::broadcast(|_| cpu::multiply_add(ROUNDS));
        spent.iter().map(|(_, flops)| *flops).sum::<u64>() as f64
    });
    best / 1e9
}

/// Bytes a second, in units of 10^9, at which a buffer far larger than the caches is read once.
pub fn read_gbs() -> f64 {
    let buffer = vec![1_u64; BYTES / 8];
    let part = buffer.len().div_ceil(rayon::current_num_threads());
    let best = fastest(|| {
        let sum = |chunk: &[u64]| chunk.iter().fold(0_u64, |a, b| a.wrapping_add(*b));
        let total = buffer.par_chunks(part).map(sum).reduce(|| 0, u64::wrapping_add);
        std::hint::black_box(total);
        BYTES as f64
    });
    best / 1e9
}

/// The highest rate of some passes; `work` returns how much it did.
fn fastest(mut work: impl FnMut() -> f64) -> f64 {
    let mut best = 0.0_f64;
    for _ in 0..PASSES {
        let start = Instant::now();
        let done = work();
        best = best.max(done / start.elapsed().max(Duration::from_nanos(1)).as_secs_f64());
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_counts_what_it_computes() {
        for (name, run) in cpu::variants() {
            let (sum, flops) = run(1000);
            assert!(sum.is_finite() && sum > 0.0, "{name}: {sum}");
            assert!(flops >= 2000 && flops.is_multiple_of(2000), "{name}: {flops}");
        }
    }

    #[test]
    fn more_threads_do_more_work() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let flops = |spent: Vec<(f32, u64)>| spent.iter().map(|(_, f)| *f).sum::<u64>();
        let one = cpu::multiply_add(100).1;
        assert_eq!(flops(pool.broadcast(|_| cpu::multiply_add(100))), 2 * one);
    }
}
