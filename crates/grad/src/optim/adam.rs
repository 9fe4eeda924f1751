use blemish_kernels::Par;
use blemish_kernels::adam::{AdamStep, adam};
use serde::{Deserialize, Serialize};

use crate::{GradError, Module, Result};

/// What weight decay does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Added to the gradient (`torch.optim.Adam`).
    #[default]
    L2,
    /// Shrinks the weights apart from the gradient (AdamW, Loshchilov and Hutter, ICLR 2019, algorithm 2).
    Decoupled,
}

/// Adam (Kingma and Ba, ICLR 2015, algorithm 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
    /// Step size.
    pub lr: f32,
    /// Decay rates of the two moments.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// What weight decay does.
    pub decay: Decay,
}

impl Default for Adam {
    /// PyTorch's: 1e-3, (0.9, 0.999), 1e-8, no decay.
    fn default() -> Self {
        Adam { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, decay: Decay::L2 }
    }
}

/// The moments of each parameter, in the order of [`Module::visit`].
#[derive(Clone, Debug, Default)]
pub struct AdamState {
    /// Steps taken, by parameter: one that got no gradient does not move.
    pub steps: Vec<u64>,
    /// First moments.
    pub exp_avg: Vec<Vec<f32>>,
    /// Second moments.
    pub exp_avg_sq: Vec<Vec<f32>>,
}

impl Adam {
    /// One step with learning rate `lr`. `gradients` are in the order of [`Module::visit`]; a parameter without one is
    /// left alone, as PyTorch does.
    ///
    /// # Errors
    /// [`GradError::Shape`] if their number or sizes differ from the parameters'.
    pub fn step(
        &self,
        module: &mut dyn Module,
        state: &mut AdamState,
        gradients: &[Option<Vec<f32>>],
        lr: f32,
    ) -> Result<()> {
        let (mut index, mut error) = (0, None);
        module.visit_mut(&mut |name, param| {
            let i = index;
            index += 1;
            if state.steps.len() <= i {
                state.steps.push(0);
                state.exp_avg.push(vec![0.0; param.data().len()]);
                state.exp_avg_sq.push(vec![0.0; param.data().len()]);
            }
            let Some(Some(gradient)) = gradients.get(i) else { return };
            let n = param.data().len();
            if gradient.len() != n || state.exp_avg[i].len() != n || state.exp_avg_sq[i].len() != n {
                error.get_or_insert(GradError::State {
                    name: name.to_owned(),
                    wanted: format!("{n} values"),
                    got: format!("{} gradients, {} moments", gradient.len(), state.exp_avg[i].len()),
                });
                return;
            }
            state.steps[i] += 1;
            let decoupled = self.decay == Decay::Decoupled;
            let step = AdamStep::new(lr, self.betas, self.eps, self.weight_decay, decoupled, state.steps[i]);
            let (first, second) = (&mut state.exp_avg[i], &mut state.exp_avg_sq[i]);
            if let Err(refused) = adam(&step, param.data_mut(), first, second, gradient, Par::Rayon) {
                error.get_or_insert(refused.into());
            }
        });
        error.map_or(Ok(()), Err)
    }
}
