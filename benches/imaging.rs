//! Do resizing and blurring keep up with the network?

use std::time::Duration;

use blemish_benches::{cases, uniform, work};
use blemish_kernels::{blur, resize};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::{Array2, Array3, Array4};

fn resizing(c: &mut Criterion) {
    let mut group = c.benchmark_group("resize");
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for (from, to) in cases(&[(1024, 256)], &[(700, 256), (2048, 512), (256, 224)]) {
        let picture = Array3::from_shape_fn((from, from, 3), |(y, x, c)| ((y * 7 + x * 13 + c * 29) % 251) as u8);
        group.throughput(work(0, 3 * (from * from + 4 * to * to)));
        group.bench_function(BenchmarkId::new("antialias_u8", format!("{from}_to_{to}")), |b| {
            b.iter(|| resize::antialias_u8(picture.view(), (to, to)).expect("legal"));
        });
    }
    for (from, to, channels) in cases(&[(16, 64, 64)], &[(28, 56, 512), (8, 64, 256)]) {
        let shape = (1, from, from, channels);
        let map = Array4::from_shape_vec(shape, uniform(1, from * from * channels)).expect("as many numbers");
        group.throughput(work(7 * to * to * channels, 4 * channels * (from * from + to * to)));
        group.bench_function(BenchmarkId::new("bilinear", format!("{from}_to_{to}x{channels}")), |b| {
            b.iter(|| resize::bilinear(map.view(), (to, to)).expect("legal"));
        });
    }
    group.finish();
}

fn blurring(c: &mut Criterion) {
    const TAPS: usize = 33;
    let mut group = c.benchmark_group("blur");
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for side in cases(&[256], &[224, 1024]) {
        let map = Array2::from_shape_vec((side, side), uniform(2, side * side)).expect("as many numbers");
        group.throughput(work(2 * 2 * TAPS * side * side, 8 * side * side));
        group.bench_function(BenchmarkId::new("sigma4", side), |b| {
            b.iter(|| blur::gaussian(map.view(), 4.0).expect("legal"));
        });
    }
    group.finish();
}

criterion_group!(benches, resizing, blurring);
criterion_main!(benches);
