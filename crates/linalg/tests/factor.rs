//! Properties of the factorisations, and what they refuse.

use blemish_linalg::{LinalgError, cholesky, eigh, invert_lower};
use ndarray::{Array2, arr2};
use proptest::prelude::*;

/// A positive definite matrix of order `n` with a condition number of a few hundred.
fn positive(n: usize, seed: u64) -> Array2<f64> {
    let mut state = seed;
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    };
    let y = Array2::from_shape_simple_fn((n, n + 3), &mut draw);
    y.dot(&y.t()) / (n as f64 + 3.0) + Array2::<f64>::eye(n) * 0.01
}

fn worst(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    a.iter().zip(b).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn factors_multiply_back(n in 1usize..140, seed in any::<u64>()) {
        let a = positive(n, seed);
        let mut l = a.clone();
        cholesky(&mut l).unwrap();
        prop_assert!(worst(&l.dot(&l.t()), &a) < 1e-12);
        let mut w = l.clone();
        invert_lower(&mut w).unwrap();
        prop_assert!(worst(&w.dot(&l), &Array2::eye(n)) < 1e-10);
        prop_assert!(w.indexed_iter().all(|((i, j), &v)| j <= i || v == 0.0));
        let (values, vectors) = eigh(a.clone()).unwrap();
        prop_assert!(values.windows(2).into_iter().all(|w| w[0] <= w[1]));
        prop_assert!(worst(&(&vectors * &values).dot(&vectors.t()), &a) < 1e-12);
    }

    #[test]
    fn single_precision_follows_double(n in 1usize..80, seed in any::<u64>()) {
        let mut l = positive(n, seed);
        let mut single = l.mapv(|v| v as f32);
        cholesky(&mut l).unwrap();
        cholesky(&mut single).unwrap();
        prop_assert!(worst(&l, &single.mapv(f64::from)) < 1e-4);
        invert_lower(&mut l).unwrap();
        invert_lower(&mut single).unwrap();
        prop_assert!(worst(&l, &single.mapv(f64::from)) < 1e-2);
    }
}

#[test]
fn only_the_lower_triangle_counts() {
    let (mut a, mut b) = (arr2(&[[4.0, 2.0], [2.0, 5.0]]), arr2(&[[4.0, f64::NAN], [2.0, 5.0]]));
    cholesky(&mut a).unwrap();
    cholesky(&mut b).unwrap();
    assert_eq!(a, b);
    let mut transposed = arr2(&[[4.0, 2.0], [f64::NAN, 5.0]]).reversed_axes();
    cholesky(&mut transposed).unwrap();
    assert_eq!(a, transposed);
}

#[test]
fn refusals_name_the_place() {
    let oblong = LinalgError::NotSquare { op: "cholesky", rows: 2, columns: 3 };
    assert_eq!(cholesky(&mut Array2::<f64>::zeros((2, 3))), Err(oblong));
    let mut indefinite = arr2(&[[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]);
    assert_eq!(cholesky(&mut indefinite), Err(LinalgError::NotPositiveDefinite { order: 3, pivot: 1 }));
    let mut holed = arr2(&[[1.0f32, 0.0], [f32::INFINITY, 1.0]]);
    assert_eq!(cholesky(&mut holed), Err(LinalgError::NotFinite { op: "cholesky", row: 1, column: 0 }));
    assert!(matches!(eigh(holed), Err(LinalgError::NotFinite { op: "eigh", row: 1, column: 0 })));
    let mut flat = arr2(&[[1.0, 0.0], [1.0, 0.0]]);
    assert_eq!(invert_lower(&mut flat), Err(LinalgError::Singular { order: 2, pivot: 1 }));
    cholesky(&mut Array2::<f64>::zeros((0, 0))).unwrap();
    assert_eq!(eigh(Array2::<f64>::zeros((0, 0))).unwrap().0.len(), 0);
}

#[test]
fn threads_at_the_same_time_do_not_disturb_one_another() {
    let work = || {
        [20usize, 60, 100].map(|n| {
            let a = positive(n, 7);
            let mut l = a.clone();
            cholesky(&mut l).unwrap();
            invert_lower(&mut l).unwrap();
            (l, eigh(a).unwrap())
        })
    };
    let want = work();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..150).for_each(|_| assert!(work() == want)));
        }
    });
}
