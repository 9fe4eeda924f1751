/// `max(x, 0)` in place.
pub fn relu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = x.max(0.0));
}

/// `min(max(x + 3, 0), 6) / 6` in place.
pub fn hard_sigmoid(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = (*x + 3.0).clamp(0.0, 6.0) / 6.0);
}

/// `x · hard_sigmoid(x)` in place.
pub fn hard_swish(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x *= (*x + 3.0).clamp(0.0, 6.0) / 6.0);
}

/// `1 / (1 + exp(-x))` in place.
pub fn sigmoid(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp()));
}

/// `x / (1 + exp(-x))` in place.
pub fn silu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp());
}
