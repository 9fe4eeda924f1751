use serde::{Deserialize, Serialize};

use crate::{GradError, Module, Result};

/// Stochastic gradient descent with momentum and L2 weight decay, as `torch.optim.SGD`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// Step size.
    pub lr: f32,
    /// Share of the last step kept.
    pub momentum: f32,
    /// Share of the gradient left out of the momentum.
    pub dampening: f32,
    /// Added to the gradient, times the value.
    pub weight_decay: f32,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
}

impl Default for Sgd {
    fn default() -> Self {
        Sgd { lr: 1e-3, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}

impl Sgd {
    /// One step with learning rate `lr`. `buffers` hold the momentum of each parameter, in the order of
    /// [`Module::visit`]; they start empty.
    ///
    /// # Errors
    /// [`GradError::State`] if a gradient does not fit its parameter.
    pub fn step(
        &self,
        module: &mut dyn Module,
        buffers: &mut Vec<Vec<f32>>,
        gradients: &[Option<Vec<f32>>],
        lr: f32,
    ) -> Result<()> {
        let (mut index, mut error) = (0, None);
        module.visit_mut(&mut |name, param| {
            let i = index;
            index += 1;
            if buffers.len() <= i {
                buffers.push(Vec::new());
            }
            let Some(Some(gradient)) = gradients.get(i) else { return };
            let buffer = &mut buffers[i];
            let values = param.data_mut();
            if gradient.len() != values.len() || !(buffer.is_empty() || buffer.len() == values.len()) {
                error.get_or_insert(GradError::State {
                    name: name.to_owned(),
                    wanted: format!("{} values", values.len()),
                    got: format!("{} gradients", gradient.len()),
                });
                return;
            }
            let first = buffer.is_empty();
            buffer.resize(values.len(), 0.0);
            for ((p, b), g) in values.iter_mut().zip(buffer).zip(gradient) {
                let g = g + self.weight_decay * *p;
                *b = if first { g } else { self.momentum * *b + (1.0 - self.dampening) * g };
                let step = match (self.momentum != 0.0, self.nesterov) {
                    (false, _) => g,
                    (true, true) => g + self.momentum * *b,
                    (true, false) => *b,
                };
                *p -= lr * step;
            }
        });
        error.map_or(Ok(()), Err)
    }
}
