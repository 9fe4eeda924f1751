use blemish_grad::{Leaves, Module, Param, Tape, Var, ops};
use ndarray::ArrayD;

use crate::{Flow, FlowError, FlowSpec, Kernel, Mixing, Result};

/// Added to the variance of the layer norm.
const EPS: f32 = 1e-5;

/// FastFlow's model of one feature map: a layer norm over the whole map `[h, w, c]` with a weight and a bias for each value,
/// if wanted, then a flow of convolutional blocks.
#[derive(Clone, Debug)]
pub struct MapFlow {
    pub(crate) size: (usize, usize),
    pub(crate) norm: Option<Norm>,
    pub(crate) flow: Flow,
}

/// Weight and bias `[h, w, c]` of the layer norm.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Param,
    pub(crate) bias: Param,
}

impl MapFlow {
    /// A norm that changes nothing but mean and variance, if wanted, and a flow near the identity, drawn from `seed`.
    ///
    /// # Errors
    /// [`FlowError::Params`] if the flow is none of convolutional blocks with permutations, or as [`Flow::new`].
    pub fn new(spec: &FlowSpec, size: (usize, usize), norm: bool, seed: u64) -> Result<MapFlow> {
        let flow = Flow::new(spec, seed)?;
        let conv =
            |b: &crate::Block| matches!(b.subnet.kernel(), Kernel::Conv(_)) && matches!(b.mixing(), Mixing::Hard(_));
        if flow.blocks().is_empty() || !flow.blocks().iter().all(conv) || size.0 == 0 || size.1 == 0 {
            let why = format!("{spec:?} on {size:?}; convolutional blocks with permutations, at least one");
            return Err(FlowError::Params { name: "flow", why });
        }
        let shape = [size.0, size.1, spec.channels];
        let fresh =
            || Norm { weight: Param::new(ArrayD::ones(&shape[..])), bias: Param::new(ArrayD::zeros(&shape[..])) };
        Ok(MapFlow { size, norm: norm.then(fresh), flow })
    }

    /// Height, width and channels of the feature map.
    pub fn dim(&self) -> (usize, usize, usize) {
        (self.size.0, self.size.1, self.flow.channels)
    }

    /// The flow.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The flow, to replace its mixing by another permutation.
    pub fn flow_mut(&mut self) -> &mut Flow {
        &mut self.flow
    }

    /// Latents and log-determinants of `[n, h, w, c]`, on a tape. The norm adds nothing to the log-determinant, as in the
    /// published code.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the input does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Var, leaves: &mut Leaves) -> Result<(Var, Var)> {
        let Some(norm) = &self.norm else { return self.flow.forward(tape, x, None, leaves) };
        let (weight, bias) = (leaves.add(tape, &norm.weight), leaves.add(tape, &norm.bias));
        let x = ops::layer_norm(tape, x, &weight, &bias, EPS)?;
        self.flow.forward(tape, &x, None, leaves)
    }
}

/// Mean and inverse deviation of a map.
pub(crate) fn moments(x: &[f32]) -> (f64, f64) {
    let n = x.len().max(1) as f64;
    let mean = sum(x, |v| v) / n;
    let var = sum(x, |v| (v - mean) * (v - mean)) / n;
    (mean, 1.0 / (var + f64::from(EPS)).sqrt())
}

/// A sum in f64, in eight lanes.
fn sum(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0f64; 8];
    let parts = x.chunks_exact(8);
    let rest: f64 = parts.remainder().iter().map(|v| f(f64::from(*v))).sum();
    for part in parts {
        lanes.iter_mut().zip(part).for_each(|(l, v)| *l += f(f64::from(*v)));
    }
    lanes.iter().sum::<f64>() + rest
}

impl Module for MapFlow {
    fn visit(&self, f: &mut dyn FnMut(&str, &Param)) {
        if let Some(norm) = &self.norm {
            f("norm.weight", &norm.weight);
            f("norm.bias", &norm.bias);
        }
        self.flow.visit(&mut |name, param| f(&format!("flow.{name}"), param));
    }

    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut Param)) {
        if let Some(norm) = &mut self.norm {
            f("norm.weight", &mut norm.weight);
            f("norm.bias", &mut norm.bias);
        }
        self.flow.visit_mut(&mut |name, param| f(&format!("flow.{name}"), param));
    }
}
