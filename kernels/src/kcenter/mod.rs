//! Exact greedy k-center and sparse random projection.
//!
//! | item | what it does |
//! |---|---|
//! | [`greedy`] | picks rows that are each farthest from the earlier ones |
//! | [`SparseProjection`] | fewer coordinates that keep distances, about |

mod cloud;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cuda")]
mod cuda_projection;
mod greedy;
mod pool;
mod projection;
#[cfg(test)]
mod tests;

pub use greedy::{KCenter, greedy};
pub use projection::SparseProjection;
