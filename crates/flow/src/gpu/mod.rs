//! Flows on NVIDIA GPUs: training and likelihoods. They agree with the forms for the CPU within rounding; for one seed and one
//! kind of GPU the results are the same bits every time.
//!
//! | item | what it is |
//! |---|---|
//! | [`LinearModel`] | a flow of linear blocks, for log-likelihoods |
//! | [`LinearTrainer`] | the same in training: a batch of pictures at a time, whose steps are recorded launches |
//! | [`MapModel`] | a flow of convolutional blocks behind a layer norm, for energies |
//! | [`MapTrainer`] | the same in training, with a batch of feature maps for each step |
//!
//! Flows with rotations ([`Mixing::Soft`](crate::Mixing::Soft)) are for the CPU only.

mod blocks;
mod linear;
mod map_blocks;
mod map_learning;
mod map_model;
mod map_trainer;
mod map_work;
mod model;
mod room;

pub use linear::{Batches, LinearTrainer};
pub use map_model::MapModel;
pub use map_trainer::{MapBatch, MapTrainer};
pub use model::LinearModel;
