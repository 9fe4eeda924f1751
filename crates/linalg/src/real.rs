use ndarray::{Array1, Array2, LinalgScalar};
use ndarray_linalg::error::LinalgError as Failure;
use ndarray_linalg::{CholeskyInplace, EighInto, UPLO};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` or `f64`.
pub trait Real: LinalgScalar + PartialOrd + std::ops::Neg<Output = Self> + Send + Sync + sealed::Sealed {
    /// Whether it is neither NaN nor infinite.
    fn is_finite(self) -> bool;
    #[doc(hidden)]
    fn potrf(a: &mut Array2<Self>) -> Result<(), Failure>;
    #[doc(hidden)]
    fn syev(a: Array2<Self>) -> Result<(Array1<Self>, Array2<Self>), Failure>;
}

macro_rules! real {
    ($($t:ty),+) => {$(
        impl Real for $t {
            fn is_finite(self) -> bool {
                <$t>::is_finite(self)
            }
            fn potrf(a: &mut Array2<Self>) -> Result<(), Failure> {
                a.cholesky_inplace(UPLO::Lower).map(|_| ())
            }
            fn syev(a: Array2<Self>) -> Result<(Array1<Self>, Array2<Self>), Failure> {
                a.eigh_into(UPLO::Lower)
            }
        }
    )+};
}
real!(f32, f64);
