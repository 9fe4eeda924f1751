//! Bytes for maps and weights.

use crate::error::{KernelError, Result};
use crate::gemm::{Loops, Scale, vectorised};

/// The 256 levels of an input map: `x` is stored as `round(x / step) + zero`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    inverse: f32,
    step: f32,
    zero: u8,
}

impl Levels {
    /// Levels that cover `low..=high` and hold zero exactly.
    ///
    /// # Errors
    /// Unless both are finite and `low <= high`.
    pub fn new([low, high]: [f32; 2]) -> Result<Levels> {
        if !(low.is_finite() && high.is_finite() && low <= high) {
            let what = format!("a range of finite numbers, low to high; got {low} to {high}");
            return Err(KernelError::Parameter { op: "levels", what });
        }
        let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
        // A map of zeros alone has any step; a step that is no normal float would have no inverse.
        let step = ((high - low) / 255.0).max(1e-30);
        Ok(Levels { inverse: (1.0 / step) as f32, step: step as f32, zero: (-low / step).round_ties_even() as u8 })
    }

    /// The distance of two levels.
    pub fn step(&self) -> f32 {
        self.step
    }

    /// The level of zero.
    pub fn zero_level(&self) -> u8 {
        self.zero
    }

    /// The levels nearest to `values`; those outside of the range become the first or last, NaN the first.
    ///
    /// As many are written as both slices hold.
    pub fn quantise(&self, values: &[f32], to: &mut [u8]) {
        vectorised(Nearest { levels: *self, values, to });
    }

    /// Fills with what stands for zero.
    pub(super) fn zero(&self, to: &mut [u8]) {
        to.fill(self.zero);
    }
}

struct Nearest<'a> {
    levels: Levels,
    values: &'a [f32],
    to: &'a mut [u8],
}

impl Loops for Nearest<'_> {
    #[inline(always)]
    fn run(self) {
        let (inverse, zero) = (self.levels.inverse, f32::from(self.levels.zero));
        for (&x, to) in self.values.iter().zip(self.to) {
            // The comparisons turn NaN into 0. From 2^23 on, floats are whole numbers: the sum is rounded to nearest even,
            // and its last bits are the level.
            let level = x * inverse + zero;
            let level = if level > 0.0 { level } else { 0.0 };
            let level = if level < 255.0 { level } else { 255.0 };
            *to = (level + 8_388_608.0).to_bits() as u8;
        }
    }
}

/// What turns sums of bytes back into floats.
#[derive(Clone, Debug)]
pub(super) struct Quantised {
    pub(super) levels: Levels,
    offset: Vec<i32>,
    factor: Vec<f32>,
}

impl Quantised {
    /// Rounds `weight` `[out, each]` to whole steps of each row, at most 127 of them in either direction.
    pub(super) fn new(weight: &[f32], rows: usize, levels: Levels) -> (Quantised, Vec<i8>) {
        let mut bytes = Vec::with_capacity(weight.len());
        let (mut offset, mut factor) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for row in weight.chunks_exact((weight.len() / rows.max(1)).max(1)) {
            let largest = row.iter().fold(0.0f32, |most, w| most.max(w.abs()));
            let step = (f64::from(largest) / 127.0).max(1e-30);
            let start = bytes.len();
            bytes.extend(row.iter().map(|&w| (f64::from(w) / step).round_ties_even() as i8));
            let sum: i32 = bytes[start..].iter().map(|&b| i32::from(b)).sum();
            offset.push(-i32::from(levels.zero) * sum);
            factor.push((step * f64::from(levels.step)) as f32);
        }
        (Quantised { levels, offset, factor }, bytes)
    }

    pub(super) fn scale(&self) -> Scale<'_> {
        Scale { offset: &self.offset, factor: &self.factor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_round_to_nearest_and_keep_zero() {
        for range in [[0.0, 6.0], [-3.0, 5.0], [-4.0, -1.0], [0.0, 0.0], [-1e-20, 1e-20], [-1e30, 1e30]] {
            let levels = Levels::new(range).unwrap();
            let x: Vec<f32> = (0..1000).map(|i| range[0] + (range[1] - range[0]) * i as f32 / 999.0).collect();
            let mut bytes = vec![0; x.len()];
            levels.quantise(&x, &mut bytes);
            let mut plain = bytes.clone();
            Nearest { levels, values: &x, to: &mut plain }.run();
            assert_eq!(bytes, plain);
            for (&x, &b) in x.iter().zip(&bytes) {
                let back = f64::from(i32::from(b) - i32::from(levels.zero)) * f64::from(levels.step);
                assert!((back - f64::from(x)).abs() <= f64::from(levels.step) * 1.001, "{range:?}: {back} for {x}");
            }
            let mut zero = [9; 4];
            levels.quantise(&[0.0, f32::NAN, f32::NEG_INFINITY, f32::INFINITY], &mut zero);
            assert_eq!(zero, [levels.zero, 0, 0, 255]);
        }
        assert!(Levels::new([1.0, 0.0]).is_err() && Levels::new([f32::NAN, 0.0]).is_err());
    }
}
