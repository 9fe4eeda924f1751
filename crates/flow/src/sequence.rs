use blemish_grad::{Gradients, Leaves, Module, Param, Tape, Var};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::{Block, FlowError, Mixing, Result};

/// The layers of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// Linear layers on `[rows, c]`.
    Linear,
    /// Square convolutions of this odd size on `[n, h, w, c]`.
    Conv(usize),
}

/// The shape of a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSpec {
    /// Channels of the data.
    pub channels: usize,
    /// Channels of the condition, 0 for none.
    pub condition: usize,
    /// The subnet of each block.
    pub kernels: Vec<Kernel>,
    /// Hidden width of the subnets.
    pub hidden: usize,
    /// Bound of the log-scales.
    pub clamp: f32,
    /// Rotations instead of permutations.
    pub soft_mixing: bool,
}

impl FlowSpec {
    /// CFlow-AD's decoder: `blocks` linear blocks, hidden width twice the subnet's input, clamp 1.9, permutations.
    pub fn linear(channels: usize, condition: usize, blocks: usize) -> FlowSpec {
        let inputs = channels - channels / 2 + condition;
        FlowSpec {
            channels,
            condition,
            kernels: vec![Kernel::Linear; blocks],
            hidden: 2 * inputs,
            clamp: 1.9,
            soft_mixing: false,
        }
    }

    /// FastFlow's stack: `steps` convolutional blocks, 3x3 on even steps and 1x1 on odd ones (or 3x3 throughout), clamp 2.
    pub fn convolutional(channels: usize, steps: usize, hidden_ratio: f64, conv3x3_only: bool) -> FlowSpec {
        let hidden = ((channels - channels / 2) as f64 * hidden_ratio) as usize;
        let kernel = |step: usize| Kernel::Conv(if step % 2 == 1 && !conv3x3_only { 1 } else { 3 });
        let kernels = (0..steps).map(kernel).collect();
        FlowSpec { channels, condition: 0, kernels, hidden, clamp: 2.0, soft_mixing: false }
    }
}

/// Blocks in sequence. Parameters are named `module_list.<block>.<name>`, as FrEIA names them.
#[derive(Clone, Debug)]
pub struct Flow {
    pub(crate) channels: usize,
    pub(crate) condition: usize,
    blocks: Vec<Block>,
}

/// A loss and its gradients.
pub struct Recomputed {
    /// The loss.
    pub loss: f32,
    /// Gradients in the order of [`Module::visit`].
    pub gradients: Vec<Option<Vec<f32>>>,
}

impl Flow {
    /// A flow near the identity, drawn from `seed`.
    ///
    /// # Errors
    /// [`FlowError::Params`] for fewer than two channels, an even kernel or a clamp that is not positive.
    pub fn new(spec: &FlowSpec, seed: u64) -> Result<Flow> {
        let mut blocks = Vec::with_capacity(spec.kernels.len());
        for (i, kernel) in spec.kernels.iter().enumerate() {
            if matches!(kernel, Kernel::Conv(k) if k % 2 == 0) {
                return Err(FlowError::Params { name: "kernels", why: format!("{kernel:?}; odd sizes are possible") });
            }
            // Distinct streams for the mixing and the weights of each block.
            let at = seed.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(2 * i as u64 + 1));
            let mixing =
                if spec.soft_mixing { Mixing::soft(spec.channels, at) } else { Mixing::hard(spec.channels, at) };
            blocks.push(Block::new(*kernel, spec.channels, spec.condition, spec.hidden, spec.clamp, mixing, at ^ 1)?);
        }
        Ok(Flow { channels: spec.channels, condition: spec.condition, blocks })
    }

    /// The blocks.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The blocks, to replace their mixing.
    pub fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }

    fn check(&self, x: &Var, condition: Option<&Var>) -> Result<()> {
        let width = condition.map_or(0, |c| c.shape().last().copied().unwrap_or(0));
        let rows = |v: &Var| v.data().len() / v.shape().last().copied().unwrap_or(1).max(1);
        let fits = x.shape().last() == Some(&self.channels)
            && width == self.condition
            && condition.is_none_or(|c| rows(c) == rows(x));
        if fits {
            return Ok(());
        }
        let wanted = format!("[.., {}] and a condition of [.., {}]", self.channels, self.condition);
        let got = format!("{:?} and {:?}", x.shape(), condition.map(Var::shape));
        Err(FlowError::Shape { what: "input of the flow", wanted, got })
    }

    /// The latent `z` of the shape of `x`, and `log|det dz/dx|` of each sample, `[n]`.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the input or its condition do not fit.
    pub fn forward(
        &self,
        tape: &mut Tape,
        x: &Var,
        condition: Option<&Var>,
        leaves: &mut Leaves,
    ) -> Result<(Var, Var)> {
        self.check(x, condition)?;
        let n = x.shape().first().copied().unwrap_or(0);
        let (mut z, mut total) = (x.clone(), Var::constant(ArrayD::zeros(vec![n]).into_shared()));
        for block in &self.blocks {
            let (next, log_det) = block.forward(tape, &z, condition, leaves)?;
            total = blemish_grad::ops::add(tape, &total, &log_det)?;
            z = next;
        }
        Ok((z, total))
    }

    /// The input whose latent is `z`.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the input or its condition do not fit.
    pub fn inverse(&self, z: &Var, condition: Option<&Var>) -> Result<Var> {
        self.check(z, condition)?;
        self.blocks.iter().rev().try_fold(z.clone(), |z, block| block.inverse(&z, condition))
    }

    /// The gradients of `loss(z, log_det)` with the memory of one block: on the way back each block's input is computed
    /// from its output (Gomez et al., NeurIPS 2017), at the price of a second forward pass.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or whatever `loss` says.
    pub fn gradients_recomputed(
        &self,
        x: &Var,
        condition: Option<&Var>,
        loss: &mut dyn FnMut(&mut Tape, &Var, &Var) -> Result<Var>,
    ) -> Result<Recomputed> {
        let (z, log_det) = self.forward(&mut Tape::inference(), x, condition, &mut Leaves::default())?;
        let mut tape = Tape::recording();
        let (leaf_z, leaf_det) = (tape.leaf(z.value().clone()), tape.leaf(log_det.value().clone()));
        let value = loss(&mut tape, &leaf_z, &leaf_det)?;
        let mut gradients = tape.backward(&value)?;
        let shaped = |values: Option<Vec<f32>>, like: &Var| -> Result<ArrayD<f32>> {
            let values = values.unwrap_or_else(|| vec![0.0; like.data().len()]);
            ArrayD::from_shape_vec(like.shape(), values).map_err(|e| FlowError::Shape {
                what: "gradient",
                wanted: format!("{:?}", like.shape()),
                got: e.to_string(),
            })
        };
        let mut dz = shaped(gradients.take(&leaf_z), &z)?;
        let d_det = Var::constant(shaped(gradients.take(&leaf_det), &log_det)?.into_shared());
        drop((leaf_z, leaf_det));
        let (mut out, mut all) = (z, Vec::with_capacity(self.blocks.len()));
        for block in self.blocks.iter().rev() {
            let input = block.inverse(&out, condition)?;
            let mut tape = Tape::recording();
            let mut leaves = Leaves::default();
            let leaf = tape.leaf(input.value().clone());
            let (z, log_det) = block.forward(&mut tape, &leaf, condition, &mut leaves)?;
            // One scalar whose gradient is what came from above.
            let from_above = Var::constant(dz.into_shared());
            let a = blemish_grad::ops::mul(&mut tape, &z, &from_above)?;
            let b = blemish_grad::ops::mul(&mut tape, &log_det, &d_det)?;
            let (a, b) = (blemish_grad::ops::sum(&mut tape, &a)?, blemish_grad::ops::sum(&mut tape, &b)?);
            let joined = blemish_grad::ops::add(&mut tape, &a, &b)?;
            let mut gradients: Gradients = tape.backward(&joined)?;
            dz = shaped(gradients.take(&leaf), &input)?;
            all.push(leaves.gradients(&mut gradients));
            out = input;
        }
        Ok(Recomputed { loss: value.item(), gradients: all.into_iter().rev().flatten().collect() })
    }
}

impl Module for Flow {
    fn visit(&self, f: &mut dyn FnMut(&str, &Param)) {
        for (i, block) in self.blocks.iter().enumerate() {
            block.visit(&mut |name, param| f(&format!("module_list.{i}.{name}"), param));
        }
    }

    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut Param)) {
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.visit_mut(&mut |name, param| f(&format!("module_list.{i}.{name}"), param));
        }
    }
}
