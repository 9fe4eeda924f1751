//! Mahalanobis distance of every position of a feature grid to a Gaussian of its own, in three exact forms.
//!
//! `d² = (x - mu)ᵀ C⁻¹ (x - mu)`, where `x` is read from feature maps of several grids (nearest index, no upsampled
//! embedding is ever made) and `C = sum (x - mu)(x - mu)ᵀ / (N - 1) + epsilon I`.
//!
//! | form | `d²` | floats at a position, `d` channels |
//! |---|---|---|
//! | triangle | `‖W (x - mu)‖²`, `W = L⁻¹`, `C = L Lᵀ` | `d (d + 1) / 2` |
//! | nested | the same, channels coarse to fine: leading rows of `W` shared by the positions that share coarse cells | a third to a fifth of it |
//! | low rank | `sum (bᵢᵀ(x - mu))² / (lambdaᵢ + epsilon) + ‖rest‖² / epsilon`, `b` orthonormal | `(N - 1) (d + 1)` |
//!
//! | item | what it is |
//! |---|---|
//! | [`Layout`] | which channels of which maps, in what order, and which positions share them |
//! | [`Moments`] | means and covariances in one pass; memory independent of the number of pictures |
//! | [`Samples`] | the embeddings of a few pictures, for the low-rank form |
//! | [`distance`], [`distance_low_rank`] | the distances of a batch |
//!
//! The triangle is the nested form on a [`Layout`] with one level. Factorisations are the caller's: [`Moments::factor`]
//! and [`Samples::factor`] hand out one small matrix after the other.
//!
//! Work per picture is one multiply-add for each float, so at small batches the memory bus sets the time. Distances
//! do not depend on the number of threads or on the rest of the batch, moments not on the number of threads.

mod bands;
mod cpu;
mod cpu_vector;
#[cfg(feature = "cuda")]
pub mod cuda;
mod distance;
mod layout;
mod moments;
mod samples;
#[cfg(test)]
mod tests;

pub use distance::{distance, distance_low_rank};
pub use layout::Layout;
pub use moments::Moments;
pub use samples::{LowRank, Samples};

/// Floats that may be read, and are ignored, behind the last weight: every weight tensor ends with as many zeros.
pub const PAD: usize = 16;
