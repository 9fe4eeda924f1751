//! Modules in model files and checkpoints.

use blemish_core::{CoreError, ModelFile, ModelWriter};
use blemish_flow::{Flow, FlowError, Mixing};
use blemish_grad::Module;
use blemish_tensor::Tensor;
use ndarray::{ArrayD, Ix2, IxDyn};

use crate::training::Weights;
use crate::{FlowDetectorError, Result};

/// Adds names and values under `prefix`.
pub(crate) fn save_weights(file: &mut ModelWriter, prefix: &str, weights: &Weights) -> Result<()> {
    for (name, value) in weights {
        file.add(&format!("{prefix}.{name}"), Tensor::from_array(value))?;
    }
    Ok(())
}

/// The values under `prefix` for the names and shapes of `like`.
pub(crate) fn load_weights(file: &ModelFile, prefix: &str, like: &dyn Module) -> Result<Weights> {
    let (mut found, mut error) = (Vec::new(), None);
    like.visit(&mut |name, param| {
        let shape: Vec<Option<usize>> = param.shape().iter().map(|n| Some(*n)).collect();
        match values(file, &format!("{prefix}.{name}"), &shape) {
            Ok(value) => found.push((name.to_owned(), value)),
            Err(e) => {
                error.get_or_insert(e);
            }
        }
    });
    error.map_or(Ok(found), Err)
}

fn values(file: &ModelFile, name: &str, shape: &[Option<usize>]) -> Result<ArrayD<f32>> {
    let values: ArrayD<f32> = file.tensor::<f32>(name, shape)?.view::<f32, IxDyn>()?.to_owned();
    if values.iter().all(|v| v.is_finite()) {
        return Ok(values);
    }
    Err(file.bad(format!("tensor '{name}' holds values that are not finite numbers")).into())
}

/// Puts values into a module.
pub(crate) fn put(module: &mut dyn Module, weights: Weights) -> Result<()> {
    let all: std::collections::HashMap<String, ArrayD<f32>> = weights.into_iter().collect();
    Ok(module.load(&|name| all.get(name).cloned()).map_err(FlowError::from)?)
}

/// Adds the mixing of each block under `prefix`.
pub(crate) fn save_mixing(file: &mut ModelWriter, prefix: &str, flow: &Flow) -> Result<()> {
    for (b, block) in flow.blocks().iter().enumerate() {
        let tensor = match block.mixing() {
            Mixing::Hard(order) => {
                let order: Vec<u32> = order.iter().map(|i| *i as u32).collect();
                Tensor::from_vec(vec![order.len()], order)?
            }
            Mixing::Soft(matrix) => Tensor::from_array(matrix),
        };
        file.add(&format!("{prefix}.mixing.{b}"), tensor)?;
    }
    Ok(())
}

/// Takes the mixing of each block: permutations, or rotations with `soft`.
pub(crate) fn load_mixing(file: &ModelFile, prefix: &str, flow: &mut Flow, soft: bool) -> Result<()> {
    for (b, block) in flow.blocks_mut().iter_mut().enumerate() {
        let (name, c) = (format!("{prefix}.mixing.{b}"), Some(block.mixing().channels()));
        let mixing = if soft {
            Mixing::Soft(file.tensor::<f32>(&name, &[c, c])?.view::<f32, Ix2>()?.to_owned())
        } else {
            let order = file.tensor::<u32>(&name, &[c])?.as_slice::<u32>()?;
            Mixing::Hard(order.iter().map(|i| *i as usize).collect())
        };
        block.set_mixing(mixing).map_err(|e| FlowDetectorError::Core(file.bad(format!("tensor '{name}': {e}"))))?;
    }
    Ok(())
}

/// A count of a model file within sensible bounds, so that a damaged one does not ask for all memory.
pub(crate) fn bounded(file: &ModelFile, what: &str, value: usize, most: usize) -> std::result::Result<(), CoreError> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(file.bad(format!("its {what} is {value}; 1 to {most}"))) }
}
