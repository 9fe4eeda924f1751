use ndarray::{Array2, ArrayView2, array};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};

use super::greedy::greedy_with;
use super::{KCenter, SparseProjection, greedy};
use crate::nearest::{Isa, squared_below};

/// The loop as the paper has it.
fn plain(points: ArrayView2<'_, f32>, count: usize, start: usize) -> KCenter {
    let isa = Isa::all()[0];
    let mut nearest = vec![f32::INFINITY; points.nrows()];
    let mut out = KCenter { picks: vec![start], radius: vec![f32::INFINITY] };
    let rows: Vec<Vec<f32>> = points.rows().into_iter().map(|r| r.to_vec()).collect();
    while out.picks.len() < count {
        let centre = &rows[out.picks[out.picks.len() - 1]];
        let mut best = 0;
        for i in 0..rows.len() {
            nearest[i] = nearest[i].min(squared_below(isa, centre, &rows[i], f32::INFINITY));
            if nearest[i] > nearest[best] {
                best = i;
            }
        }
        out.picks.push(best);
        out.radius.push(nearest[best].sqrt());
    }
    out
}

fn points(kind: usize, n: usize, d: usize, seed: u64) -> Array2<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = || rng.random_range(-1.0f32..1.0);
    match kind {
        0 => Array2::from_shape_simple_fn((n, d), uniform),
        1 => Array2::from_shape_simple_fn((n, d), || (uniform() * 3.0).round()),
        2 => {
            let few = Array2::from_shape_simple_fn((n.min(13), d), uniform);
            Array2::from_shape_fn((n, d), |(i, j)| few[[i * i % n.min(13), j]])
        }
        3 => Array2::from_shape_simple_fn((n, d), || uniform() + 1000.0),
        4 => Array2::from_elem((n, d), 0.3),
        // Smooth from row to row, of low rank, as features are.
        _ => {
            let directions = Array2::from_shape_simple_fn((3, d), &mut uniform);
            let mut at = [0f32; 3];
            let mut factors = Array2::zeros((n, 3));
            for mut row in factors.rows_mut() {
                for (a, v) in at.iter_mut().zip(row.iter_mut()) {
                    *a = 0.95 * *a + uniform();
                    *v = *a;
                }
            }
            factors.dot(&directions) + &Array2::from_shape_simple_fn((n, d), || uniform() * 0.05)
        }
    }
}

#[test]
fn equals_the_plain_loop_with_bounds_and_small_pools() {
    for kind in 0..6 {
        for (n, d, count) in [(2500, 24, 300), (3001, 3, 400), (2100, 65, 150)] {
            let points = points(kind, n, d, 7);
            let want = plain(points.view(), count, 11);
            for isa in Isa::all() {
                for pool in [1, 37, 2048] {
                    let got = greedy_with(isa, points.view(), count, 11, pool, &mut |_| true).unwrap();
                    assert_eq!(got.picks, want.picks, "{isa:?}, kind {kind}, pool {pool}");
                    assert_eq!(got.radius, want.radius);
                }
            }
        }
    }
}

#[test]
fn threads_change_nothing() {
    let points = points(5, 6000, 40, 3);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| greedy(points.view(), 600, 5, &mut |_| true).unwrap())
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(7));
}

#[test]
fn equal_rows_give_row_zero_again_and_again() {
    let points = Array2::from_elem((5, 2), 1.5);
    let got = greedy(points.view(), 4, 3, &mut |_| true).unwrap();
    assert_eq!(got.picks, [3, 0, 0, 0]);
    assert_eq!(got.radius, [f32::INFINITY, 0.0, 0.0, 0.0]);
}

#[test]
fn stops_when_told_and_refuses_nonsense() {
    let points = points(0, 2500, 8, 1);
    let mut told = Vec::new();
    let got = greedy(points.view(), 2000, 0, &mut |done| {
        told.push(done);
        done < 500
    });
    let got = got.unwrap();
    assert_eq!(got.picks.len(), *told.last().unwrap());
    assert!((500..1000).contains(&got.picks.len()), "{}", got.picks.len());
    assert_eq!(got.picks, plain(points.view(), got.picks.len(), 0).picks);
    assert!(greedy(points.view(), 2501, 0, &mut |_| true).is_err());
    assert!(greedy(points.view(), 5, 2500, &mut |_| true).is_err());
    assert!(greedy(points.view(), 0, 0, &mut |_| true).unwrap().picks.is_empty());
    assert!(greedy(Array2::zeros((0, 3)).view(), 0, 0, &mut |_| true).is_err());
    let error = greedy(array![[1.0, 2.0], [3.0, f32::NAN]].view(), 1, 0, &mut |_| true).unwrap_err();
    assert!(error.to_string().contains("index 3"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn equals_the_plain_loop(kind in 0usize..6, n in 1usize..400, d in 1usize..20, seed: u64, pool in 1usize..60) {
        let points = points(kind, n, d, seed);
        let (count, start) = (1 + seed as usize % n, (seed >> 32) as usize % n);
        let want = plain(points.view(), count, start);
        let got = greedy_with(Isa::best(), points.view(), count, start, pool, &mut |_| true).unwrap();
        prop_assert_eq!(got, want);
    }
}

#[test]
fn projection_is_sparse_reproducible_and_keeps_distances() {
    assert_eq!(SparseProjection::dimensions(250_880, 0.9), 306);
    assert_eq!(SparseProjection::dimensions(327_680, 0.9), 313);
    assert_eq!(SparseProjection::dimensions(1, 0.9), 1);
    let projection = SparseProjection::new(400, 300, 5).unwrap();
    assert_eq!(projection, SparseProjection::new(400, 300, 5).unwrap());
    assert_ne!(projection, SparseProjection::new(400, 300, 6).unwrap());
    let matrix = projection.apply(Array2::eye(400).view()).unwrap();
    let filled = matrix.iter().filter(|v| **v != 0.0).count() as f64 / 120_000.0;
    assert!((filled - 0.05).abs() < 0.005, "{filled}");
    let positive = matrix.iter().filter(|v| **v > 0.0).count() as f64 / 120_000.0;
    assert!((positive - 0.025).abs() < 0.003, "{positive}");
    let rows = points(0, 40, 400, 1);
    let projected = projection.apply(rows.view()).unwrap();
    for i in 1..40 {
        let length = |m: &Array2<f32>| (&m.row(i) - &m.row(0)).mapv(|v| v * v).sum();
        let ratio = length(&projected) / length(&rows);
        assert!((0.6..1.5).contains(&ratio), "{ratio}");
    }
    // Each output is a sum over its own entries: another number of rows changes nothing.
    let one = projection.apply(rows.slice(ndarray::s![7..8, ..])).unwrap();
    assert_eq!(one.row(0), projected.row(7));
    assert!(projection.apply(rows.slice(ndarray::s![.., 1..])).is_err());
    assert!(SparseProjection::new(0, 3, 0).is_err());
}
