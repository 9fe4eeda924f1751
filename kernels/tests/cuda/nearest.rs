use blemish_kernels::nearest::{self, cuda::Bank};
use blemish_tensor::TensorError;
use ndarray::Array2;

use super::*;

#[test]
fn distances_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    for [m, n, d] in [[1, 1, 1], [33, 40, 3], [5, 70, 100], [2, 3, 1792]] {
        let (q, b) = (random((m, d), 1), random((n, d), 2));
        let (dq, db) = (upload(&cuda, &q), upload(&cuda, &b));
        let got = nearest::cuda::pairwise_squared(&cuda, &dq, &db, [m, n, d]).unwrap().read().unwrap();
        assert_eq!(got, nearest::pairwise_squared(q.view(), b.view()).unwrap().into_raw_vec_and_offset().0);
        assert!(nearest::cuda::pairwise_squared(&cuda, &dq, &db, [m, n, d + 1]).is_err());
    }
}

/// Queries and banks: one row, several tiles, far from the origin, ties, values whose squares vanish.
fn cases() -> Vec<(Array2<f32>, Array2<f32>)> {
    vec![
        (random((1, 1), 1), random((1, 1), 2)),
        (random((70, 33), 3), random((200, 33), 4)),
        (random((3, 550), 5) * 1e-3, random((90, 550), 6) * 1e-3 + 40.0),
        (tied(20, 3, 3, 7), tied(300, 3, 3, 8)),
        (tied(4, 5, 1, 9), tied(130, 5, 1, 10)),
        (random((2, 4), 11) * 1e-30, random((70, 4), 12) * 1e-30),
    ]
}

#[test]
fn hopper_s_own_sieve_finds_the_same() {
    let Some(cuda) = open() else { return };
    if cuda.info().capability != (9, 0) {
        eprintln!("{} is no Hopper, whose sieve no other chip runs", cuda.info());
        return;
    }
    // As `cargo xtask tune` chooses it once it is the faster one.
    let usual = include_str!("../../ptx/nearest.compute_80.ptx");
    let wide = usual.replacen("NEAREST_WIDE=0", "NEAREST_WIDE=1", 1);
    assert!(wide.lines().take(4).any(|line| line.contains("NEAREST_WIDE=1")));
    // A variant that is tried has its own choice.
    if std::env::var_os("BLEMISH_PTX").is_none() {
        cuda.substitute("nearest.compute_80", &wide).unwrap();
    }
    let several = [(random((150, 130), 13), random((300, 130), 14)), (tied(135, 260, 2, 15), tied(600, 260, 2, 16))];
    for (q, b) in cases().iter().chain(&several) {
        let bank = Bank::with_small(&cuda, b.view(), 1).unwrap();
        let cpu = nearest::Bank::new(b.clone()).unwrap();
        for k in [1, 9] {
            assert_eq!(bank.search(q.view(), k).unwrap(), cpu.search(q.view(), k).unwrap(), "{bank:?} k {k}");
        }
    }
}

#[test]
fn nearest_rows_are_the_cpu_s_sieved_and_scanned() {
    let Some(cuda) = open() else { return };
    for (q, b) in &cases() {
        let cpu = nearest::Bank::new(b.clone()).unwrap();
        for small in [1, usize::MAX] {
            let bank = Bank::with_small(&cuda, b.view(), small).unwrap();
            for k in [1, 9, 32] {
                assert_eq!(bank.search(q.view(), k).unwrap(), cpu.search(q.view(), k).unwrap(), "{bank:?} k {k}");
            }
            assert!(bank.search(q.view(), 0).is_err() && bank.search(q.view(), 33).is_err());
        }
    }
    let empty = Array2::zeros((0, 4));
    assert!(Bank::new(&cuda, empty.view()).is_err());
    let bank = Bank::new(&cuda, random((5, 4), 1).view()).unwrap();
    assert_eq!(bank.search(empty.view(), 2).unwrap().index.dim(), (0, 2));
    let mut bad = random((2, 4), 2);
    bad[[1, 3]] = f32::NAN;
    assert!(bank.search(bad.view(), 1).is_err());
}

#[test]
fn banks_larger_than_the_budget_are_streamed_and_the_budget_holds() {
    let Some(cuda) = open() else { return };
    let many = [
        (tied(23, 6, 3, 1), tied(1900, 6, 3, 2), 40 << 10),
        (random((9, 40), 3), random((1300, 40), 4), 600 << 10),
        (random((5, 3), 5), random((1, 3), 6), 1 << 20),
        // Squared distances that differ where their roots do not, the larger one first.
        (Array2::zeros((1, 1)), Array2::from_shape_vec((2, 1), vec![1.0, 1.0 - f32::EPSILON / 2.0]).unwrap(), 3000),
    ];
    let before = cuda.memory_budget();
    for (q, b, budget) in many {
        let cpu = nearest::Bank::new(b.clone()).unwrap();
        for k in [1, 9, 32] {
            cuda.set_memory_budget(cuda.memory_used() + budget);
            let got = nearest::cuda::search_streamed(&cuda, b.view(), q.view(), k);
            cuda.set_memory_budget(before);
            assert_eq!(got.unwrap(), cpu.search(q.view(), k).unwrap(), "k {k}, {:?}, {budget} bytes", b.shape());
        }
        cuda.set_memory_budget(cuda.memory_used() + 64);
        let error = nearest::cuda::search_streamed(&cuda, b.view(), q.view(), 1).unwrap_err();
        cuda.set_memory_budget(before);
        assert!(matches!(error, blemish_kernels::cuda::CudaError::Device(TensorError::Budget { .. })), "{error}");
        assert!(nearest::cuda::search_streamed(&cuda, b.view(), q.view(), 0).is_err());
    }
}

#[test]
fn odd_sizes_are_searched_like_on_the_cpu() {
    let Some(cuda) = open() else { return };
    // Rows about whole tiles, widths about whole steps; all rows asked for where a search can give as many.
    let sizes = [(1, 1, 1), (3, 31, 1), (2, 65, 3), (3, 63, 100), (1, 129, 550), (2, 32, 1536), (1, 67, 1792)];
    for (i, (m, n, d)) in sizes.into_iter().enumerate() {
        let (q, b) = (random((m, d), i as u64), random((n, d), 50 + i as u64));
        let cpu = nearest::Bank::new(b.clone()).unwrap();
        for small in [1, usize::MAX] {
            let bank = Bank::with_small(&cuda, b.view(), small).unwrap();
            for k in [1, n.min(32)] {
                assert_eq!(bank.search(q.view(), k).unwrap(), cpu.search(q.view(), k).unwrap(), "{bank:?} k {k}");
            }
        }
    }
}
