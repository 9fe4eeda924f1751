use crate::conv::Activation;
use crate::gemm::{Pointwise, activate_slice};

/// `max(x, 0)` in place.
pub fn relu(x: &mut [f32]) {
    activate_slice(x, Pointwise::Activation(Activation::Relu));
}

/// `min(max(x + 3, 0), 6) / 6` in place.
pub fn hard_sigmoid(x: &mut [f32]) {
    activate_slice(x, Pointwise::HardSigmoid);
}

/// `x · hard_sigmoid(x)` in place.
pub fn hard_swish(x: &mut [f32]) {
    activate_slice(x, Pointwise::Activation(Activation::HardSwish));
}

/// `1 / (1 + exp(-x))` in place, with a relative error below 1e-6 for `x > -16`, and below 5e-6 down to -87, from where on
/// the result stays the same.
pub fn sigmoid(x: &mut [f32]) {
    activate_slice(x, Pointwise::Sigmoid);
}

/// `x · sigmoid(x)` in place, with the error of [`sigmoid`].
pub fn silu(x: &mut [f32]) {
    activate_slice(x, Pointwise::Activation(Activation::Silu));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sigmoid_f64(x: f32) -> f64 {
        1.0 / (1.0 + (-f64::from(x)).exp())
    }

    #[test]
    fn sigmoid_and_silu_are_as_close_as_stated() {
        let x: Vec<f32> = (-87_000..=87_000).map(|i| i as f32 / 1000.0 + 0.000_37).collect();
        let (mut s, mut y) = (x.clone(), x.clone());
        sigmoid(&mut s);
        silu(&mut y);
        for ((&x, s), y) in x.iter().zip(s).zip(y) {
            let bound = if x > -16.0 { 1e-6 } else { 5e-6 };
            let want = sigmoid_f64(x);
            assert!((f64::from(s) / want - 1.0).abs() < bound, "sigmoid({x}) = {s}, not {want}");
            assert!((f64::from(y) / (want * f64::from(x)) - 1.0).abs() < bound, "silu({x}) = {y}");
        }
    }

    #[test]
    fn piecewise_linear_ones_are_exact_at_their_corners() {
        let x = [-7.0f32, -3.0, -1.5, 0.0, 3.0, 9.0, 0.5];
        let run = |f: fn(&mut [f32])| {
            let mut x = x;
            f(&mut x);
            x
        };
        assert_eq!(run(relu), [0.0, 0.0, 0.0, 0.0, 3.0, 9.0, 0.5]);
        for (got, want) in run(hard_sigmoid).iter().zip([0.0, 0.0, 0.25, 0.5, 1.0, 1.0, 3.5 / 6.0]) {
            assert!((got - want).abs() < 1e-7, "{got} {want}");
        }
        for (got, want) in run(hard_swish).iter().zip([0.0, 0.0, -0.375, 0.0, 3.0, 9.0, 1.75 / 6.0]) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
    }
}
