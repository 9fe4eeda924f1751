//! An explicit gradient tape with the layers, losses and optimisers that blemish trains with.

mod error;
pub mod ops;
pub mod optim;
mod params;
mod tape;

pub use error::{GradError, Result};
pub use params::{Leaves, Module, Param};
pub use tape::{Gradients, Tape, Value, Var};
