//! What does a map of Mahalanobis distances cost in each form, and what does learning it cost?
//!
//! The layout is PaDiM's on a ResNet: maps of 4, 2 and 1 cells in the place of one, channels picked evenly. The work counted
//! is that of each form, so times compare across forms and shares of the ceiling within one.

use std::time::Duration;

use blemish_benches::{cases, uniform, work};
use blemish_kernels::mahalanobis::{Layout, Moments, distance, distance_low_rank};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::{Array4, ArrayView4};

/// Side of the grid, channels, pictures in a batch.
const SMALL: [[usize; 3]; 1] = [[28, 60, 1]];
const FULL: [[usize; 3]; 3] = [[64, 100, 1], [64, 100, 8], [28, 550, 1]];
/// Rank of the low-rank form, one less than the training pictures.
const RANK: usize = 59;

fn mahalanobis(c: &mut Criterion) {
    let mut group = c.benchmark_group("mahalanobis");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for [side, d, n] in cases(&SMALL, &FULL) {
        let maps = [[side, side, 64 + d], [side / 2, side / 2, 128 + d], [side / 4, side / 4, 256 + d]];
        let total: usize = maps.iter().map(|m| m[2]).sum();
        let channels: Vec<usize> = (0..d).map(|i| i * total / d).collect();
        let data: Vec<Array4<f32>> = maps.iter().map(|m| features(n, m)).collect();
        let views: Vec<ArrayView4<'_, f32>> = data.iter().map(|map| map.view()).collect();
        let name = format!("{side}x{side}x{d}_batch{n}");

        for (form, nested) in [("triangle", false), ("nested", true)] {
            let layout = Layout::new(&maps, &channels, nested).expect("legal");
            let levels = 0..layout.levels();
            let mean: Vec<Vec<f32>> =
                levels.clone().map(|l| uniform(1, layout.groups(l) * layout.rows(l).len())).collect();
            let weight: Vec<Vec<f32>> = levels.map(|l| uniform(2, layout.weight_len(l))).collect();
            let (mean, weight) = (slices(&mean), slices(&weight));
            let floats: usize = weight.iter().map(|w| w.len()).sum();
            group.throughput(work(2 * n * floats, 4 * floats));
            group.bench_function(BenchmarkId::new(form, &name), |b| {
                b.iter(|| distance(&layout, &mean, &weight, &views).expect("fits"));
            });
            group.throughput(work(2 * n * floats, 2 * 4 * floats));
            group.bench_function(BenchmarkId::new(format!("learn_{form}"), &name), |b| {
                let mut moments = Moments::new(layout.clone());
                b.iter(|| moments.push(&views).expect("fits"));
            });
        }

        let layout = Layout::new(&maps, &channels, false).expect("legal");
        let cells = side * side;
        let k = RANK.min(d);
        let (mean, basis, scale) = (uniform(1, cells * d), uniform(2, cells * k * d), vec![1.0; cells * k]);
        group.throughput(work(4 * n * basis.len(), 4 * basis.len()));
        group.bench_function(BenchmarkId::new("low_rank", &name), |b| {
            b.iter(|| distance_low_rank(&layout, &[mean.as_slice()], &basis, &scale, 0.01, &views).expect("fits"));
        });
    }
    group.finish();
}

fn features(n: usize, [h, w, c]: &[usize; 3]) -> Array4<f32> {
    Array4::from_shape_vec((n, *h, *w, *c), uniform(3, n * h * w * c)).expect("as many numbers")
}

fn slices(tensors: &[Vec<f32>]) -> Vec<&[f32]> {
    tensors.iter().map(Vec::as_slice).collect()
}

criterion_group!(benches, mahalanobis);
criterion_main!(benches);
