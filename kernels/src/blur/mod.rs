//! Gaussian blur of a map.
//!
//! Separable, `2 * int(4 * sigma + 0.5) + 1` taps (33 at sigma 4). The border is reflected as often as it takes, so that a
//! map may be smaller than the kernel.
//!
//! ```
//! let mut map = ndarray::Array2::zeros((33, 33));
//! map[[16, 16]] = 1.0f32;
//! let soft = blemish_kernels::blur::gaussian(map.view(), 2.0)?;
//! assert!((soft[[16, 16]] - 0.0398).abs() < 1e-4 && (soft.sum() - 1.0).abs() < 1e-5);
//! # Ok::<(), blemish_kernels::KernelError>(())
//! ```

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

use ndarray::{Array2, ArrayView2};

use crate::{KernelError, Result, error::shape_error};

/// What lies beyond the border.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Border {
    /// `c b | a b c`: the edge is not repeated (anomalib's way).
    #[default]
    Reflect,
    /// `b a | a b c`: the edge is repeated (`scipy.ndimage`'s default, used by the papers' code).
    Symmetric,
}

impl Border {
    /// The index in `0..len` that stands for `at`; `len` is not zero.
    fn index(self, at: isize, len: usize) -> usize {
        let len = len as isize;
        match self {
            Border::Reflect if len == 1 => 0,
            Border::Reflect => {
                let at = at.rem_euclid(2 * (len - 1));
                at.min(2 * (len - 1) - at) as usize
            }
            Border::Symmetric => {
                let at = at.rem_euclid(2 * len);
                at.min(2 * len - 1 - at) as usize
            }
        }
    }
}

/// Largest sigma; a blur beyond it is a slip.
const MAX_SIGMA: f32 = 1000.0;

/// Blurs `[h, w]` with a Gaussian of `sigma` pixels and [`Border::Reflect`].
///
/// # Errors
/// As [`gaussian_with`].
pub fn gaussian(map: ArrayView2<'_, f32>, sigma: f32) -> Result<Array2<f32>> {
    gaussian_with(map, sigma, Border::Reflect)
}

/// As [`gaussian`], saying what lies beyond the border. A sigma of zero changes nothing.
///
/// # Errors
/// [`KernelError::Parameter`] for a sigma that is not a number from 0 to 1000, [`KernelError::Shape`] for an empty map.
pub fn gaussian_with(map: ArrayView2<'_, f32>, sigma: f32, border: Border) -> Result<Array2<f32>> {
    const OP: &str = "gaussian blur";
    if !(0.0..=MAX_SIGMA).contains(&sigma) {
        let what = format!("sigma is {sigma}; 0 to {MAX_SIGMA} pixels are possible");
        return Err(KernelError::Parameter { op: OP, what });
    }
    let (h, w) = map.dim();
    if h == 0 || w == 0 {
        return Err(shape_error(OP, "at least one row and one column", (h, w)));
    }
    let kernel = half_kernel(sigma);
    let radius = kernel.len() - 1;
    let indices = |len: usize| -> Vec<usize> {
        (0..len + 2 * radius).map(|i| border.index(i as isize - radius as isize, len)).collect()
    };
    let source = map.as_standard_layout();
    let mut output = vec![0.0; h * w];
    cpu::blur(source.as_slice().unwrap_or_default(), w, &indices(h), &indices(w), &kernel, &mut output);
    Array2::from_shape_vec((h, w), output).map_err(|e| shape_error(OP, "[h, w]", e))
}

/// The kernel from its centre to its end; the whole of it sums to one.
fn half_kernel(sigma: f32) -> Vec<f32> {
    let radius = (4.0 * sigma + 0.5) as usize;
    let variance = f64::from(sigma).powi(2).max(f64::MIN_POSITIVE);
    let values: Vec<f64> = (0..=radius).map(|r| (-0.5 * (r * r) as f64 / variance).exp()).collect();
    let sum = 2.0 * values.iter().sum::<f64>() - 1.0;
    values.iter().map(|v| (v / sum) as f32).collect()
}

#[cfg(test)]
mod tests;
