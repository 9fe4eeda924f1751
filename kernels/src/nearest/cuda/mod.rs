//! Nearest rows on a GPU: the results of the CPU, bit for bit.
//!
//! | item | what it does |
//! |---|---|
//! | [`Bank`] | rows on the GPU, prepared for many searches |
//! | [`search_streamed`] | a bank larger than the GPU's memory, brought there in chunks |
//! | [`pairwise_squared`] | all squared distances of two sets of rows |

mod bank;
mod pairwise;
mod streamed;

pub use bank::{Bank, MOST};
pub use pairwise::pairwise_squared;
pub use streamed::search_streamed;
