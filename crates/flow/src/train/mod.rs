//! Steps of training without a tape: the same mathematics as [`Flow::forward`](crate::Flow::forward) and its gradients, with
//! the order of the work chosen for the memory.

mod conv;
mod images;
mod linear;
pub(crate) mod panels;
mod products;
mod sums;

pub use conv::ConvTrainer;
pub use images::{Latent, PackedFlow};
pub use linear::LinearTrainer;
pub use products::Products;

use blemish_grad::optim::{Adam, AdamState};
use blemish_grad::{GradError, Module};

use crate::{FlowError, Result};

/// Moments of zero for every parameter of `module`.
pub(crate) fn fresh_moments(module: &dyn Module) -> AdamState {
    let mut state = AdamState::default();
    module.visit(&mut |_, param| {
        state.steps.push(0);
        state.exp_avg.push(vec![0.0; param.data().len()]);
        state.exp_avg_sq.push(vec![0.0; param.data().len()]);
    });
    state
}

/// Checks that the moments are those of `module`.
pub(crate) fn check_moments(module: &dyn Module, state: &AdamState) -> Result<()> {
    let (mut index, mut error) = (0, None);
    module.visit(&mut |name, param| {
        let n = param.data().len();
        let fits = state.steps.get(index).is_some()
            && state.exp_avg.get(index).is_some_and(|m| m.len() == n)
            && state.exp_avg_sq.get(index).is_some_and(|v| v.len() == n);
        if !fits && error.is_none() {
            let (wanted, got) = (format!("{n} moments"), "others".to_owned());
            error = Some(GradError::State { name: name.to_owned(), wanted, got });
        }
        index += 1;
    });
    match error {
        Some(error) => Err(error.into()),
        None if state.steps.len() == index => Ok(()),
        None => {
            let (wanted, got) = (format!("moments of {index} parameters"), state.steps.len().to_string());
            Err(FlowError::Shape { what: "optimiser", wanted, got })
        }
    }
}

/// Checks the settings of an optimiser.
pub(crate) fn check_adam(adam: &Adam) -> Result<()> {
    let share = |b: f32| (0.0..1.0).contains(&b);
    if adam.betas.iter().all(|b| share(*b)) && adam.eps >= 0.0 && adam.weight_decay >= 0.0 && adam.lr.is_finite() {
        return Ok(());
    }
    Err(FlowError::Params { name: "adam", why: format!("{adam:?}; betas below 1, eps and decay not negative") })
}

/// Errors of the primitives as those of this crate.
trait OfKernel<T> {
    fn kernel(self) -> Result<T>;
}

impl<T> OfKernel<T> for blemish_kernels::Result<T> {
    fn kernel(self) -> Result<T> {
        self.map_err(|error| FlowError::Grad(error.into()))
    }
}
