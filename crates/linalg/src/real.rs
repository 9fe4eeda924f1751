use std::sync::{Mutex, PoisonError};

use ndarray::{Array1, Array2, LinalgScalar};
use ndarray_linalg::error::LinalgError as Failure;
use ndarray_linalg::{EighInto, UPLO};

/// Serial builds of OpenBLAS (0.3.21 of Debian 12, for one) share work space between threads without guarding it: of calls at
/// the same time, a few in ten thousand give wrong numbers. The one static of the workspace's libraries, for the one
/// library whose state is global.
static LAPACK: Mutex<()> = Mutex::new(());

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` or `f64`.
pub trait Real: LinalgScalar + PartialOrd + std::ops::Neg<Output = Self> + Send + Sync + sealed::Sealed {
    /// Whether it is neither NaN nor infinite.
    fn is_finite(self) -> bool;
    /// Square root.
    fn sqrt(self) -> Self;
    #[doc(hidden)]
    fn syev(a: Array2<Self>) -> Result<(Array1<Self>, Array2<Self>), Failure>;
}

macro_rules! real {
    ($($t:ty),+) => {$(
        impl Real for $t {
            fn is_finite(self) -> bool {
                <$t>::is_finite(self)
            }
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            fn syev(a: Array2<Self>) -> Result<(Array1<Self>, Array2<Self>), Failure> {
                let _one_at_a_time = LAPACK.lock().unwrap_or_else(PoisonError::into_inner);
                a.eigh_into(UPLO::Lower)
            }
        }
    )+};
}
real!(f32, f64);
