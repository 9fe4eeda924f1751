//! What searching and picking refuse, and how they say it.

use blemish_kernels::KernelError;
use blemish_kernels::nearest::{Bank, pairwise_squared};
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
