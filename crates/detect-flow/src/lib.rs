//! Detectors that learn the density of good features with normalising flows.
//!
//! | detector | paper | what is learned |
//! |---|---|---|
//! | [`cflow`] | Gudovskiy et al., WACV 2022 | for each layer, the density of a feature vector given its position |
//! | [`fastflow`] | Yu et al., 2021 | for each layer, the density of a whole feature map |
//!
//! Features of the frozen network are computed once and kept in memory, if they fit (`cache_gigabytes`). Training goes epoch by
//! epoch, stops early on good pictures held out ([`Epoch`], never on a test set), and can be interrupted: with a checkpoint,
//! what is resumed on the same device gives the same bits as what was never interrupted.

pub mod cflow;
mod checkpoint;
mod device;
mod error;
pub mod fastflow;
mod features;
mod mode;
mod scores;
mod settings;
mod split;
mod store;
mod training;

pub use blemish_core::Epoch;
pub use cflow::{Cflow, CflowParams};
pub use error::FlowDetectorError;
pub use fastflow::{Fastflow, FastflowParams};
pub use mode::Mode;

/// Results of this crate.
pub type Result<T> = std::result::Result<T, FlowDetectorError>;
