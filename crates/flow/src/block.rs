use blemish_grad::ops::{self, Unary};
use blemish_grad::{Leaves, Module, Param, Tape, Value, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::coupling::{DAMPING, couple, log_scale, scale_permute};
use crate::sequence::Kernel;
use crate::{FlowError, Mixing, Result, Subnet, subnet};

/// One all-in-one block on `[rows, c]` or `[n, h, w, c]`:
///
/// - `a = subnet([x1; condition])`, `s = clamp * tanh(0.1 a1)`, `y2 = x2 * e^s + 0.1 a2`;
/// - `z = mixing([x1; y2] * g + o)` with `g = 0.1 softplus(global_scale)`, beta 1/2;
/// - `log|det| = sum(s) + pixels * sum(ln g)`.
///
/// `x1` has the first `c - c / 2` channels.
#[derive(Clone, Debug)]
pub struct Block {
    channels: usize,
    pub(crate) clamp: f32,
    mixing: Mixing,
    pub(crate) global_scale: Param,
    pub(crate) global_offset: Param,
    pub(crate) subnet: Subnet,
}

/// Softplus with beta 1/2 of this is 10, so that a fresh block scales by one.
const UNIT_SCALE: f64 = 9.986_475_0;

impl Block {
    pub(crate) fn new(
        kernel: Kernel,
        channels: usize,
        condition: usize,
        hidden: usize,
        clamp: f32,
        mixing: Mixing,
        seed: u64,
    ) -> Result<Block> {
        mixing.validate()?;
        if channels < 2 || mixing.channels() != channels || hidden == 0 || !(clamp > 0.0 && clamp.is_finite()) {
            let why = format!("{channels} channels, {hidden} hidden, clamp {clamp}; at least 2, 1, and above 0");
            return Err(FlowError::Params { name: "block", why });
        }
        let c2 = channels / 2;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let constant = |v: f32| Param::new(ndarray::ArrayD::from_elem(vec![channels], v));
        Ok(Block {
            channels,
            clamp,
            mixing,
            global_scale: constant(UNIT_SCALE as f32),
            global_offset: constant(0.0),
            subnet: Subnet::new(
                kernel,
                channels - c2 + condition,
                hidden,
                2 * c2,
                &mut ChaCha8Rng::seed_from_u64(rng.random()),
            ),
        })
    }

    /// The mixing of channels.
    pub fn mixing(&self) -> &Mixing {
        &self.mixing
    }

    /// Replaces the mixing, by a stored one for instance.
    ///
    /// # Errors
    /// [`FlowError::Params`] if it is none, or of another width.
    pub fn set_mixing(&mut self, mixing: Mixing) -> Result<()> {
        mixing.validate()?;
        if mixing.channels() != self.channels {
            let why = format!("{} channels, the block has {}", mixing.channels(), self.channels);
            return Err(FlowError::Params { name: "mixing", why });
        }
        self.mixing = mixing;
        Ok(())
    }

    /// The block's output and the log-determinant of each sample, `[n]`.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape,
        x: &Var,
        condition: Option<&Var>,
        leaves: &mut Leaves,
    ) -> Result<(Var, Var)> {
        let theta = leaves.add(tape, &self.global_scale);
        let offset = leaves.add(tape, &self.global_offset);
        let a = self.predict(tape, x, condition, leaves)?;
        let s = log_scale(tape, &a, self.clamp)?;
        let y = couple(tape, x, &s, &a)?;
        let scale = ops::unary(tape, &theta, Unary::Softplus(0.5))?;
        let scale = ops::scale(tape, &scale, 0.1)?;
        let z = match &self.mixing {
            Mixing::Hard(order) => scale_permute(tape, &y, &scale, &offset, order)?,
            Mixing::Soft(matrix) => {
                let scaled = ops::mul(tape, &y, &scale)?;
                let scaled = ops::add(tape, &scaled, &offset)?;
                mix(tape, &scaled, matrix)?
            }
        };
        let logs = ops::unary(tape, &scale, Unary::Log)?;
        let total = ops::sum(tape, &logs)?;
        let total = ops::scale(tape, &total, pixels(x) as f32)?;
        let log_det = ops::sum_rows(tape, &s)?;
        let log_det = ops::add(tape, &log_det, &total)?;
        Ok((z, log_det))
    }

    fn predict(&self, tape: &mut Tape, x: &Var, condition: Option<&Var>, leaves: &mut Leaves) -> Result<Var> {
        if x.shape().last() != Some(&self.channels) {
            let (wanted, got) = (format!("[.., {}]", self.channels), format!("{:?}", x.shape()));
            return Err(FlowError::Shape { what: "input of a block", wanted, got });
        }
        let x1 = ops::slice(tape, x, 0..self.channels - self.channels / 2)?;
        let input = match condition {
            Some(condition) => ops::concat(tape, &[&x1, condition])?,
            None => x1,
        };
        self.subnet.forward(tape, &input, leaves)
    }

    /// The input that gives `z`.
    pub(crate) fn inverse(&self, z: &Var, condition: Option<&Var>) -> Result<Var> {
        let tape = &mut Tape::inference();
        let mut mixed = match &self.mixing {
            Mixing::Hard(order) => {
                let mut back = vec![0; order.len()];
                order.iter().enumerate().for_each(|(i, &from)| back[from] = i);
                ops::select_channels(tape, z, &back)?
            }
            Mixing::Soft(matrix) => mix(tape, z, &matrix.t().as_standard_layout().into_owned())?,
        };
        let c = self.channels;
        let (c1, c2) = (c - c / 2, c / 2);
        let scale: Vec<f32> = self.global_scale.data().iter().map(|t| global_scale(*t)).collect();
        let mut values: Value = mixed.value().clone();
        let rows = values.as_slice_mut().unwrap_or(&mut []);
        for row in rows.chunks_exact_mut(c) {
            for ((v, s), o) in row.iter_mut().zip(&scale).zip(self.global_offset.data()) {
                *v = (*v - o) / s;
            }
        }
        mixed = Var::constant(values.clone());
        let a = self.predict(tape, &mixed, condition, &mut Leaves::default())?;
        let s = log_scale(tape, &a, self.clamp)?;
        drop(mixed);
        let rows = values.as_slice_mut().unwrap_or(&mut []);
        for ((row, s), a) in rows.chunks_exact_mut(c).zip(s.data().chunks_exact(c2)).zip(a.data().chunks_exact(2 * c2))
        {
            for i in 0..c2 {
                row[c1 + i] = (row[c1 + i] - DAMPING * a[c2 + i]) * (-s[i]).exp();
            }
        }
        Ok(Var::constant(values))
    }
}

/// The derivative of [`global_scale`].
pub(crate) fn global_scale_slope(theta: f32) -> f32 {
    0.1 * if 0.5 * theta > 20.0 { 1.0 } else { 1.0 / (1.0 + (-0.5 * theta).exp()) }
}

/// `0.1 * softplus(theta)` with beta 1/2.
pub(crate) fn global_scale(theta: f32) -> f32 {
    0.1 * if 0.5 * theta > 20.0 { theta } else { (0.5 * theta).exp().ln_1p() / 0.5 }
}

/// Samples of a position-wise log-determinant in each of the `n` samples.
fn pixels(x: &Var) -> usize {
    x.shape().get(1..x.shape().len().saturating_sub(1)).map_or(1, |s| s.iter().product())
}

/// `matrix * x` along the last axis.
fn mix(tape: &mut Tape, x: &Var, matrix: &ndarray::Array2<f32>) -> Result<Var> {
    let c = matrix.nrows();
    let rows = ops::reshape(tape, x, &[x.data().len() / c, c])?;
    let weight = Var::constant(matrix.clone().into_dyn().into_shared());
    let mixed = ops::linear(tape, &rows, &weight, None)?;
    Ok(ops::reshape(tape, &mixed, x.shape())?)
}

impl Module for Block {
    fn visit(&self, f: &mut dyn FnMut(&str, &Param)) {
        f("global_scale", &self.global_scale);
        f("global_offset", &self.global_offset);
        for (name, param) in subnet::NAMES.iter().zip(self.subnet.params()) {
            f(&format!("subnet.{name}"), param);
        }
    }

    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut Param)) {
        f("global_scale", &mut self.global_scale);
        f("global_offset", &mut self.global_offset);
        for (name, param) in subnet::NAMES.iter().zip(self.subnet.params_mut()) {
            f(&format!("subnet.{name}"), param);
        }
    }
}
