//! Dense factorisations: triangles in Rust, eigenvalues by LAPACK (OpenBLAS, linked statically where the platform allows).
//!
//! | function | what it computes |
//! |---|---|
//! | [`cholesky`] | `A = L L^T`, in place |
//! | [`invert_lower`] | the inverse of a lower triangle, in place |
//! | [`eigh`] | `A = V diag(lambda) V^T`, ascending |
//! | [`library`] | which BLAS and LAPACK the program was built with |
//!
//! All take `f32` or `f64` matrices and run on the calling thread: who has many small matrices spreads them over threads,
//! and the results do not depend on how. The two triangular functions are plain Rust and run side by side; LAPACK's
//! eigenvalues wait for one another, because serial builds of OpenBLAS are not safe to call from several threads at once.
//!
//! ```
//! use ndarray::arr2;
//! let mut l = arr2(&[[4.0, 2.0], [2.0, 5.0]]);
//! blemish_linalg::cholesky(&mut l)?;
//! assert_eq!(l, arr2(&[[2.0, 0.0], [1.0, 2.0]]));
//! # Ok::<(), blemish_linalg::LinalgError>(())
//! ```

mod error;
mod factor;
mod real;

pub use error::LinalgError;
pub use factor::{cholesky, eigh, invert_lower};
pub use real::Real;

/// Results of this crate.
pub type Result<T> = std::result::Result<T, LinalgError>;

/// The library that has the eigenvalues, in its own words, and how it is linked: `OpenBLAS 0.3.21 DYNAMIC_ARCH ..., linked
/// statically`. One linked dynamically may have been replaced since.
pub fn library() -> &'static str {
    env!("BLEMISH_BLAS")
}
