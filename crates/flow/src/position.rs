use ndarray::Array3;

use crate::{FlowError, Result};

/// The sine and cosine code of each position, `[h, w, channels]` (CFlow-AD, section 4; Vaswani et al., 2017, section 3.5):
/// the first half of the channels codes the column, the second the row, sines and cosines alternating.
///
/// # Errors
/// [`FlowError::Params`] if `channels` is no multiple of four.
pub fn positional_encoding(channels: usize, height: usize, width: usize) -> Result<Array3<f32>> {
    if channels == 0 || !channels.is_multiple_of(4) {
        let why = format!("{channels} channels; multiples of four are possible");
        return Err(FlowError::Params { name: "condition", why });
    }
    let half = channels / 2;
    Ok(Array3::from_shape_fn((height, width, channels), |(y, x, c)| {
        let (at, c) = if c < half { (x, c) } else { (y, c - half) };
        let frequency = (-((c / 2 * 2) as f64) * 10_000f64.ln() / half as f64).exp();
        let angle = at as f64 * frequency;
        (if c % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
    }))
}
