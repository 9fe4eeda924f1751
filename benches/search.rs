//! What do exact search and exact coreset cost beside the plain formula?
//!
//! The work counted is the plain formula's, so that a search which skips rows may pass 100 % of the ceiling.

use std::collections::BTreeSet;
use std::time::Duration;

use blemish_benches::{cases, features, work};
use blemish_kernels::kcenter::{SparseProjection, greedy};
use blemish_kernels::nearest::{Bank, pairwise_squared};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::{ArrayView2, Axis};

/// Queries, rows of the bank, dimension.
const SEARCH: [[usize; 3]; 1] = [[784, 4096, 128]];
const SEARCH_FULL: [[usize; 3]; 2] = [[784, 25_088, 128], [784, 16_384, 1536]];
/// Points, dimension, picks.
const CORESET: [[usize; 3]; 1] = [[8192, 128, 82]];
const CORESET_FULL: [[usize; 3]; 3] = [[25_088, 128, 251], [25_088, 128, 2509], [47_040, 1536, 470]];

fn nearest(c: &mut Criterion) {
    let mut group = c.benchmark_group("nearest");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for [m, n, d] in cases(&SEARCH, &SEARCH_FULL) {
        let rows = features(1, n, d);
        let query = features(2, m, d);
        let bank = Bank::new(rows.clone()).expect("finite rows");
        group.throughput(work(2 * m * n * d, 4 * (m + n) * d));
        let name = format!("{m}x{n}x{d}");
        group.bench_function(BenchmarkId::new("exact_k1", &name), |b| {
            b.iter(|| bank.search(query.view(), 1).expect("same dimension"));
        });
        group.bench_function(BenchmarkId::new("exact_k9", &name), |b| {
            b.iter(|| bank.search(query.view(), 9).expect("same dimension"));
        });
        group.bench_function(BenchmarkId::new("all_pairs_then_minimum", &name), |b| {
            b.iter(|| {
                let all = pairwise_squared(query.view(), rows.view()).expect("same dimension");
                all.map_axis(Axis(1), |row| row.iter().copied().fold(f32::INFINITY, f32::min))
            });
        });
    }
    group.finish();
}

fn kcenter(c: &mut Criterion) {
    let mut group = c.benchmark_group("kcenter");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    let mut projected = BTreeSet::new();
    for [n, d, count] in cases(&CORESET, &CORESET_FULL) {
        let points = features(3, n, d);
        group.throughput(work(3 * n * d * count, 4 * n * d));
        let name = format!("{count}_of_{n}x{d}");
        group.bench_function(BenchmarkId::new("exact", &name), |b| {
            b.iter(|| greedy(points.view(), count, 0, &mut |_| true).expect("legal"));
        });
        if n <= CORESET[0][0] {
            group.bench_function(BenchmarkId::new("plain_loop", &name), |b| b.iter(|| plain(points.view(), count)));
        }
        // Cases may differ in the number of picks alone.
        if !projected.insert((n, d)) {
            continue;
        }
        let smaller = SparseProjection::new(d, d / 2, 0).expect("legal");
        group.throughput(work(2 * n * d * (d / 2) / (d as f64).sqrt() as usize, 4 * n * (d + d / 2)));
        group.bench_function(BenchmarkId::new("projection", format!("{n}x{d}")), |b| {
            b.iter(|| smaller.apply(points.view()).expect("same dimension"));
        });
    }
    group.finish();
}

/// The baseline: after each pick, the distance of every point to it, on one thread.
fn plain(points: ArrayView2<'_, f32>, count: usize) -> Vec<usize> {
    let mut nearest = vec![f32::INFINITY; points.nrows()];
    let mut picks = vec![0];
    while picks.len() < count {
        let last = points.row(picks[picks.len() - 1]);
        let mut far = 0;
        for (i, point) in points.rows().into_iter().enumerate() {
            let squared: f32 = point.iter().zip(&last).map(|(a, b)| (a - b) * (a - b)).sum();
            nearest[i] = nearest[i].min(squared);
            if nearest[i] > nearest[far] {
                far = i;
            }
        }
        picks.push(far);
    }
    picks
}

criterion_group!(benches, nearest, kcenter);
criterion_main!(benches);
