//! Nearest rows on a GPU: the results of the CPU, bit for bit.
//!
//! | item | what it does |
//! |---|---|
//! | [`Bank`] | rows on the GPU, prepared for many searches |
//! | [`pairwise_squared`] | all squared distances of two sets of rows |

mod bank;
mod pairwise;

pub use bank::Bank;
pub use pairwise::pairwise_squared;
