//! What do exact metrics cost? Bytes are those of the scores and labels, read once.

use std::time::Duration;

use blemish_benches::{cases, uniform, work};
use blemish_metrics::{Aupro, auroc, average_precision, f1_max};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::Array2;

fn metrics(c: &mut Criterion) {
    let mut group = c.benchmark_group("metrics");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for n in cases(&[1 << 18], &[10 << 20]) {
        let noise = uniform(1, n);
        let labels: Vec<bool> = uniform(2, n).iter().map(|x| *x > 0.9).collect();
        let scores: Vec<f32> = noise.iter().zip(&labels).map(|(x, bad)| x + if *bad { 0.7 } else { 0.0 }).collect();
        group.throughput(work(0, 5 * n));
        group
            .bench_function(BenchmarkId::new("auroc", n), |b| b.iter(|| auroc(&scores, &labels).expect("two classes")));
        group.bench_function(BenchmarkId::new("average_precision", n), |b| {
            b.iter(|| average_precision(&scores, &labels).expect("two classes"));
        });
        group.bench_function(BenchmarkId::new("f1_max", n), |b| {
            b.iter(|| f1_max(&scores, &labels).expect("two classes"))
        });
    }
    for maps in cases(&[8], &[160]) {
        const SIDE: usize = 256;
        let list: Vec<(Array2<f32>, Array2<bool>)> = (0..maps).map(|i| picture(i, SIDE)).collect();
        group.throughput(work(0, 5 * maps * SIDE * SIDE));
        group.bench_function(BenchmarkId::new("aupro", format!("{maps}x{SIDE}x{SIDE}")), |b| {
            b.iter(|| {
                let mut aupro = Aupro::default();
                for (map, mask) in &list {
                    aupro.update(map.view(), mask.view()).expect("same size");
                }
                aupro.compute().expect("defects and background")
            });
        });
    }
    group.finish();
}

/// A map and its mask; every other picture has three defects.
fn picture(index: usize, side: usize) -> (Array2<f32>, Array2<bool>) {
    let mask = Array2::from_shape_fn((side, side), |(y, x)| {
        index.is_multiple_of(2) && (0..3).any(|k| (y / 20 == 2 + 3 * k) && (x / 16 == 3 + 4 * k))
    });
    let noise = Array2::from_shape_vec((side, side), uniform(index as u64, side * side)).expect("as many numbers");
    (noise + mask.mapv(|bad| if bad { 0.8 } else { 0.0 }), mask)
}

criterion_group!(benches, metrics);
criterion_main!(benches);
