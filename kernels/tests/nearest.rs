//! What searching and picking refuse, and how they say it.

use blemish_kernels::KernelError;
use blemish_kernels::nearest::{Bank, Rows, Storage, pairwise_squared};
use ndarray::{Array2, array};

#[test]
fn banks_must_hold_finite_rows() {
    for rows in [Array2::<f32>::zeros((0, 3)), Array2::zeros((3, 0))] {
        assert!(matches!(Bank::new(rows), Err(KernelError::Shape { .. })));
    }
    let mut rows = Array2::<f32>::zeros((3000, 3));
    rows[[2000, 1]] = f32::INFINITY;
    assert!(matches!(Bank::new(rows), Err(KernelError::NotFinite { index: 6001, .. })));
}

#[test]
fn stored_rows_are_checked() {
    let f32s = |n: usize| Rows::F32(vec![0f32; n]);
    assert!(matches!(Bank::stored(f32s(0), 3), Err(KernelError::Shape { .. })));
    assert!(matches!(Bank::stored(f32s(7), 3), Err(KernelError::Shape { .. })));
    assert!(matches!(Bank::stored(f32s(7), 0), Err(KernelError::Shape { .. })));
    assert_eq!(Bank::stored(f32s(6), 3).unwrap().dim(), (2, 3));
    let halves = Rows::F16(vec![half::f16::ONE, half::f16::INFINITY]);
    assert!(matches!(Bank::stored(halves, 1), Err(KernelError::NotFinite { index: 1, .. })));
    let bytes = |scale: Vec<f32>, offset: Vec<f32>| {
        Bank::stored(Rows::Int8 { codes: vec![-128i8, 0, 1, 127], scale, offset }, 2)
    };
    assert!(matches!(bytes(vec![1.0], vec![0.0, 0.0]), Err(KernelError::Shape { .. })));
    assert!(matches!(bytes(vec![1.0, f32::NAN], vec![0.0, 0.0]), Err(KernelError::NotFinite { index: 1, .. })));
    assert!(matches!(bytes(vec![1.0, 3e36], vec![0.0, 0.0]), Err(KernelError::NotFinite { index: 1, .. })));
    let bank = bytes(vec![0.5, 2.0], vec![0.0, -1.0]).unwrap();
    assert_eq!(bank.rows(), array![[-64.0, -1.0], [0.5, 253.0]]);
    assert_eq!(bank.select(&[1, 7, 0]), array![[0.5, 253.0], [-64.0, -1.0]]);
    let error = Bank::rounded(array![[1.0], [7e4]], Storage::F16).unwrap_err().to_string();
    assert!(error.contains("70000") && error.contains("65,504"), "{error}");
    assert!(matches!(Bank::rounded(array![[f32::NAN]], Storage::Int8), Err(KernelError::NotFinite { .. })));
}

#[test]
fn queries_must_fit_the_bank() {
    let bank = Bank::new(array![[0.0, 1.0], [2.0, 3.0]]).unwrap();
    assert!(matches!(bank.search(array![[0.0]].view(), 1), Err(KernelError::Shape { .. })));
    assert!(matches!(bank.search(array![[0.0, 1.0]].view(), 0), Err(KernelError::Parameter { .. })));
    let error = bank.search(array![[0.0, 1.0], [f32::NAN, 0.0]].view(), 1).unwrap_err();
    assert!(matches!(error, KernelError::NotFinite { index: 2, .. }), "{error}");
    // No queries, more neighbours than rows, and rows in another order in memory.
    assert_eq!(bank.search(Array2::zeros((0, 2)).view(), 3).unwrap().index.dim(), (0, 2));
    assert_eq!(bank.search(array![[2.0, 3.0]].view(), 9).unwrap().index, array![[1, 0]]);
    let across = array![[2.0f32, 9.0], [3.0, 9.0]];
    assert_eq!(bank.search(across.t().slice(ndarray::s![..1, ..]), 1).unwrap().distance, array![[0.0]]);
    let columns = Bank::new(array![[0.0, 2.0], [1.0, 3.0]].reversed_axes()).unwrap();
    assert_eq!(columns.rows(), bank.rows());
}

#[test]
fn pairwise_needs_rows_of_one_length() {
    let a = array![[0.0f32, 3.0]];
    assert_eq!(pairwise_squared(a.view(), array![[4.0, 0.0], [0.0, 3.0]].view()).unwrap(), array![[25.0, 0.0]]);
    assert!(pairwise_squared(a.view(), array![[1.0]].view()).is_err());
    assert!(pairwise_squared(array![[f32::NAN, 0.0]].view(), a.view()).is_err());
}

#[test]
fn a_bank_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Bank>();
}
