use blemish_grad::ops::{self, Conv, Unary};
use blemish_grad::{Leaves, Param, Tape, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Result, sequence::Kernel};

/// Two layers with a ReLU between them; predicts scale and shift of a coupling.
#[derive(Clone, Debug)]
pub struct Subnet {
    kernel: Kernel,
    /// `0.weight`, `0.bias`, `2.weight`, `2.bias`, as PyTorch numbers the layers of a sequence.
    params: [Param; 4],
}

/// Names of the parameters, in order.
pub(crate) const NAMES: [&str; 4] = ["0.weight", "0.bias", "2.weight", "2.bias"];

impl Subnet {
    /// PyTorch's default start: weights and biases uniform within `1 / sqrt(fan_in)`.
    pub(crate) fn new(kernel: Kernel, inputs: usize, hidden: usize, outputs: usize, rng: &mut ChaCha8Rng) -> Subnet {
        let mut layer = |fan: usize, out: usize| {
            let (shape, taps) = match kernel {
                Kernel::Linear => (vec![out, fan], 1),
                Kernel::Conv(k) => (vec![out, fan, k, k], k * k),
            };
            let bound = 1.0 / ((fan * taps) as f32).sqrt();
            let mut own = ChaCha8Rng::seed_from_u64(rng.random());
            let mut draw = |shape: &[usize]| {
                Param::new(ndarray::ArrayD::from_shape_simple_fn(shape, || own.random_range(-bound..=bound)))
            };
            (draw(&shape), draw(&[out]))
        };
        let ((w0, b0), (w2, b2)) = (layer(inputs, hidden), layer(hidden, outputs));
        Subnet { kernel, params: [w0, b0, w2, b2] }
    }

    pub(crate) fn forward(&self, tape: &mut Tape, x: &Var, leaves: &mut Leaves) -> Result<Var> {
        let [w0, b0, w2, b2] = self.params.each_ref().map(|p| leaves.add(tape, p));
        let layer = |tape: &mut Tape, x: &Var, w: &Var, b: &Var| match self.kernel {
            Kernel::Linear => ops::linear(tape, x, w, Some(b)),
            Kernel::Conv(k) => ops::conv2d(tape, x, w, Some(b), Conv::same(k)),
        };
        let hidden = layer(tape, x, &w0, &b0)?;
        let hidden = ops::unary(tape, &hidden, Unary::Relu)?;
        Ok(layer(tape, &hidden, &w2, &b2)?)
    }

    pub(crate) fn kernel(&self) -> Kernel {
        self.kernel
    }

    pub(crate) fn params(&self) -> &[Param; 4] {
        &self.params
    }

    pub(crate) fn params_mut(&mut self) -> &mut [Param; 4] {
        &mut self.params
    }
}
