//! An explicit gradient tape with the layers, losses and optimisers that blemish trains with.
//!
//! | item | what it is |
//! |---|---|
//! | [`Tape`], [`Var`], [`Gradients`] | operations in order, values on them, and the way back |
//! | [`ops`] | the operations, each with its gradient |
//! | [`Param`], [`Module`], [`Leaves`] | named parameters, to save, load and optimise |
//! | [`optim`] | SGD, Adam, AdamW, learning-rate schedules, an average of the weights |
//!
//! There is no global state: the tape is passed to every operation, and one made by [`Tape::inference`] records nothing. On a tape
//! [`Tape::on`] a GPU large products run there.
//!
//! ```
//! use blemish_grad::{Tape, Var, ops};
//! use ndarray::arr2;
//!
//! let x = Var::constant(arr2(&[[1.0f32, 2.0]]).into_dyn().into_shared());
//! let mut tape = Tape::recording();
//! let weight = tape.leaf(arr2(&[[0.5f32, -1.0]]).into_dyn());
//! let y = ops::linear(&mut tape, &x, &weight, None)?;
//! let loss = ops::mse_loss(&mut tape, &y, &Var::constant(arr2(&[[0.0f32]]).into_dyn().into_shared()))?;
//! assert_eq!(loss.item(), 2.25);
//! let gradients = tape.backward(&loss)?;
//! assert_eq!(gradients.get(&weight), Some(&[-3.0, -6.0][..]));
//! # Ok::<(), blemish_grad::GradError>(())
//! ```

mod error;
pub mod ops;
pub mod optim;
mod params;
mod products;
mod tape;

pub use error::{GradError, Result};
pub use params::{Leaves, Module, Param};
pub use tape::{Gradients, Tape, Value, Var};
