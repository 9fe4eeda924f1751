//! Optimisers and learning-rate schedules, as PyTorch defines them.

mod adam;
mod ema;
mod schedule;
mod sgd;

pub use adam::{Adam, AdamState, Decay};
pub use ema::Ema;
pub use schedule::Schedule;
pub use sgd::Sgd;
