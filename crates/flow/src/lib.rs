//! Normalising flows: invertible networks with exact log-determinants.
//!
//! | item | what it is |
//! |---|---|
//! | [`Block`] | affine coupling, global affine and mixing in one (Ardizzone et al., 2018-2022; Kingma and Dhariwal, 2018) |
//! | [`Mixing`] | the fixed mixing of channels: a permutation or a rotation |
//! | [`Subnet`] | what predicts scale and shift: two linear or two convolutional layers |
//! | [`Flow`] | blocks in sequence: forward, inverse, gradients with or without stored activations |
//! | [`LinearTrainer`] | steps of Adam on a flow of linear blocks, as fast as the processor multiplies |
//! | [`MapFlow`], [`PackedFlow`], [`ConvTrainer`] | a flow of convolutional blocks behind a layer norm: to keep, to use, to train |
//! | `gpu` | training and likelihoods on NVIDIA GPUs (feature `cuda`) |
//! | [`positional_encoding`] | the condition CFlow-AD gives each position |
//! | [`log_likelihood`] | under a standard normal |
//!
//! ```
//! use blemish_flow::{Flow, FlowSpec};
//! use blemish_grad::{Tape, Var};
//! let flow = Flow::new(&FlowSpec::linear(6, 0, 2), 7)?;
//! let x = ndarray::ArrayD::from_shape_fn(vec![4, 6], |i| (i[0] * 6 + i[1]) as f32 / 24.0);
//! let (z, log_det) = flow.forward(&mut Tape::inference(), &Var::constant(x.clone().into_shared()), None, &mut Default::default())?;
//! assert_eq!(log_det.shape(), [4]);
//! let back = flow.inverse(&z, None)?;
//! assert!(back.data().iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-4));
//! # Ok::<(), blemish_flow::FlowError>(())
//! ```

mod block;
mod coupling;
mod error;
#[cfg(feature = "cuda")]
pub mod gpu;
mod likelihood;
mod map_flow;
mod mixing;
mod position;
mod sequence;
mod subnet;
mod train;

pub use block::Block;
pub use error::{FlowError, Result};
pub use likelihood::{log_likelihood, log_likelihood_loss};
pub use map_flow::MapFlow;
pub use mixing::Mixing;
pub use position::positional_encoding;
pub use sequence::{Flow, FlowSpec, Kernel, Recomputed};
pub use subnet::Subnet;
pub use train::{ConvTrainer, Latent, LinearTrainer, PackedFlow, Products};
