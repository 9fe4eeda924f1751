use super::value;
use crate::{Result, Tape, Var};

/// A function applied to each value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// `max(x, 0)`; slope 0 at 0.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x` or, where negative, this times `x`.
    LeakyRelu(f32),
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `ln(sigmoid(x))`, stable at both ends.
    LogSigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * relu6(x + 3) / 6`.
    HardSwish,
    /// `relu6(x + 3) / 6`.
    HardSigmoid,
    /// `ln(1 + e^(beta x)) / beta`; `x` itself where `beta x > 20`.
    Softplus(f32),
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square.
    Square,
}

impl Unary {
    fn forward(self, x: f32) -> f32 {
        match self {
            Unary::Relu => x.max(0.0),
            Unary::Relu6 => x.clamp(0.0, 6.0),
            Unary::LeakyRelu(slope) => {
                if x > 0.0 {
                    x
                } else {
                    slope * x
                }
            }
            Unary::Sigmoid => sigmoid(x),
            Unary::LogSigmoid => x.min(0.0) - (-x.abs()).exp().ln_1p(),
            Unary::Tanh => x.tanh(),
            Unary::Silu => x * sigmoid(x),
            Unary::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Unary::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Unary::Softplus(beta) if beta * x > 20.0 => x,
            Unary::Softplus(beta) => (beta * x).exp().ln_1p() / beta,
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Square => x * x,
        }
    }

    /// The slope at `x`, where the function is `y`.
    fn slope(self, x: f32, y: f32) -> f32 {
        let inside = |low: f32, high: f32| if x > low && x < high { 1.0 } else { 0.0 };
        match self {
            Unary::Relu => {
                if x > 0.0 {
                    1.0
                } else {
                    0.0
                }
            }
            Unary::Relu6 => inside(0.0, 6.0),
            Unary::LeakyRelu(slope) => {
                if x > 0.0 {
                    1.0
                } else {
                    slope
                }
            }
            Unary::Sigmoid => y * (1.0 - y),
            Unary::LogSigmoid => sigmoid(-x),
            Unary::Tanh => 1.0 - y * y,
            Unary::Silu => {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }
            Unary::HardSwish if x <= -3.0 => 0.0,
            Unary::HardSwish if x >= 3.0 => 1.0,
            Unary::HardSwish => x / 3.0 + 0.5,
            Unary::HardSigmoid => inside(-3.0, 3.0) / 6.0,
            Unary::Softplus(beta) if beta * x > 20.0 => 1.0,
            Unary::Softplus(beta) => sigmoid(beta * x),
            Unary::Exp => y,
            Unary::Log => 1.0 / x,
            Unary::Square => 2.0 * x,
        }
    }
}

/// `1 / (1 + e^-x)` without overflow on either side.
fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// Applies `f` to each value; the shape stays.
///
/// # Errors
/// None in practice; the shape is that of `x`.
pub fn unary(tape: &mut Tape, x: &Var, f: Unary) -> Result<Var> {
    let out = value("unary", x.shape(), x.data().iter().map(|v| f.forward(*v)).collect())?;
    let saved = (x.clone(), out.clone());
    Ok(tape.push(out, &[x], move |g, grads| {
        let (x, out) = saved;
        let y = out.as_slice().unwrap_or(&[]);
        let slopes = g.iter().zip(x.data()).zip(y).map(|((g, x), y)| g * f.slope(*x, *y)).collect();
        grads.add(x.node(), slopes)
    }))
}
