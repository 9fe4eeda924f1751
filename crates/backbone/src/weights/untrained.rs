//! Seeded random weights.
//!
//! Every filter is uniform and scaled so that its output has unit variance: its squares sum to `1 / m`, where `m` is the mean
//! square of its input, followed through activations, gates and residual sums (He et al. 2015, "Delving deep into
//! rectifiers", section 2.2, with the residual sums added). Batch norms are the identity.
//! Single draws wander from that with depth, in networks with SiLU or hard swish by about an order of size at stride 16. They
//! cannot be centred on data, as the weights would then depend on the machine's arithmetic.

use blemish_kernels::conv::Activation;
use blemish_tensor::Tensor;
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::Result;
use crate::spec::{Graph, NodeId, Op};

/// The tensors of nodes `..= deepest`; each depends on `seed` and its own place alone.
pub(super) fn tensors(graph: &Graph, deepest: NodeId, seed: u64) -> Result<Vec<(String, Tensor)>> {
    let mut out = Vec::new();
    let mut square = vec![1.0f64; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate().take(deepest + 1) {
        let (m, inputs, channels) = (square[node.input], graph.nodes[node.input].channels, node.channels);
        // One stream for each node: deeper layers do not change the shallower ones.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(id as u64);
        let mut draw = |name: String, shape: [usize; 4], m: f64| -> Result<(String, Tensor)> {
            let fan_in = shape[1] * shape[2] * shape[3];
            let mut values: Vec<f32> = (0..shape[0] * fan_in).map(|_| rng.random_range(-1.0..=1.0)).collect();
            for row in values.chunks_exact_mut(fan_in) {
                let sum: f64 = row.iter().map(|&w| f64::from(w).powi(2)).sum();
                let factor = (sum.max(f64::MIN_POSITIVE) * m).sqrt().recip() as f32;
                row.iter_mut().for_each(|w| *w *= factor);
            }
            Ok((name, Tensor::from_vec(shape.to_vec(), values)?))
        };
        let constant = |name: String, n: usize, value: f32| -> Result<(String, Tensor)> {
            Ok((name, Tensor::from_vec(vec![n], vec![value; n])?))
        };
        square[id] = match &node.op {
            Op::Input => 1.0,
            Op::MaxPool => m,
            Op::Conv { conv, norm, kernel, groups, residual, activation, .. } => {
                out.push(draw(format!("{}.weight", conv.timm), [channels, inputs / groups, *kernel, *kernel], m)?);
                for (part, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
                    out.push(constant(format!("{}.{part}", norm.timm), channels, value)?);
                }
                // What was activated before is not negative and passes a ReLU whole.
                let passed = |r: NodeId| !matches!(graph.nodes[r].op, Op::Conv { activation: Activation::None, .. });
                match *residual {
                    None => kept(*activation),
                    Some(r) if *activation == Activation::Relu && passed(r) => 1.0 + square[r],
                    Some(r) => (1.0 + square[r]) * kept(*activation),
                }
            }
            Op::SqueezeExcite { reduce, expand, reduced, .. } => {
                out.push(draw(format!("{}.weight", reduce.timm), [*reduced, inputs, 1, 1], m)?);
                out.push(constant(format!("{}.bias", reduce.timm), *reduced, 0.0)?);
                out.push(draw(format!("{}.weight", expand.timm), [inputs, *reduced, 1, 1], 400.0)?);
                out.push(constant(format!("{}.bias", expand.timm), inputs, 0.0)?);
                // Weights this small hold the gate near one half; else it opens with the size of its input, and sizes run away.
                m / 4.0
            }
        };
    }
    Ok(out)
}

/// Mean square of the activation of a standard normal variable, over one.
fn kept(activation: Activation) -> f64 {
    match activation {
        Activation::None => 1.0,
        Activation::Relu | Activation::Relu6 => 0.5,
        Activation::HardSwish => 0.3316,
        Activation::Silu => 0.3557,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_the_integrals() {
        let apply = |activation, x: f64| match activation {
            Activation::None => x,
            Activation::Relu | Activation::Relu6 => x.max(0.0),
            Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Activation::Silu => x / (1.0 + (-x).exp()),
        };
        for activation in [Activation::None, Activation::Relu, Activation::HardSwish, Activation::Silu] {
            let f = |x| apply(activation, x);
            let step = 1e-3;
            let integral: f64 = (-8000..8000)
                .map(|i| f64::from(i) * step)
                .map(|x| f(x).powi(2) * (-x * x / 2.0).exp() * step / (2.0 * std::f64::consts::PI).sqrt())
                .sum();
            assert!((integral - kept(activation)).abs() < 2e-3, "{activation:?} {integral}");
        }
    }
}
