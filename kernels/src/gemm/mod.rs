//! Single-precision matrix products whose right operand is packed once: the engine of the convolutions.
//!
//! A tile of the output stays in registers for the whole depth, so each output is one chain of fused multiply-adds in the
//! order of the depth: its bits depend neither on its place in a tile nor on what is computed beside it.

mod cpu;
mod cpu_vector;

pub use cpu_vector::Isa;

pub(crate) use cpu::{Epilogue, Pointwise, Rows, activate, activate_slice, multiply};
pub(crate) use cpu_vector::{Kernel, Loops, Vector, dispatch, vectorised};

use crate::conv::Activation;
use crate::{Par, Result, error::shape_error};

/// A right operand `[depth, columns]`, packed into panels.
#[derive(Clone, Debug)]
pub struct Packed {
    pub(crate) isa: Isa,
    pub(crate) depth: usize,
    pub(crate) columns: usize,
    /// `[columns / width, depth, width]`, the last panel filled up with zeros.
    pub(crate) panels: Vec<f32>,
}

impl Packed {
    /// Packs for the best instructions of this processor; `value(k, n)` is the operand.
    pub fn new(depth: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Packed {
        Packed::with_isa(Isa::best(), depth, columns, value)
    }

    /// As [`new`](Self::new), for chosen instructions.
    pub fn with_isa(isa: Isa, depth: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Packed {
        let width = isa.panel();
        let mut panels = vec![0.0; columns.div_ceil(width) * depth * width];
        for (p, panel) in panels.chunks_exact_mut((depth * width).max(1)).enumerate() {
            for (k, row) in panel.chunks_exact_mut(width).enumerate() {
                for (j, out) in row.iter_mut().enumerate().take(columns - (p * width).min(columns)) {
                    *out = value(k, p * width + j);
                }
            }
        }
        Packed { isa, depth, columns, panels }
    }

    /// `out[m, columns] = a[m, depth] * self`.
    ///
    /// # Errors
    /// [`KernelError::Shape`](crate::KernelError::Shape) if a length does not fit.
    pub fn product(&self, a: &[f32], m: usize, out: &mut [f32], par: Par) -> Result<()> {
        if Some(a.len()) != m.checked_mul(self.depth) || Some(out.len()) != m.checked_mul(self.columns) {
            let wanted = format!("[{m}, {}] to [{m}, {}]", self.depth, self.columns);
            return Err(shape_error("packed product", wanted, (a.len(), out.len())));
        }
        let epilogue = Epilogue { bias: None, residual: None, activation: Activation::None };
        multiply(self, &Rows::Plain { data: a, stride: self.depth }, m, &epilogue, out, par);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_f64(m in 1usize..40, k in 1usize..70, n in 1usize..80) {
            let a: Vec<f32> = (0..m * k).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| ((i * 53 % 97) as f32 - 48.0) / 48.0).collect();
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::available() {
                let packed = Packed::with_isa(isa, k, n, |i, j| b[i * n + j]);
                let mut out = vec![f32::NAN; m * n];
                packed.product(&a, m, &mut out, Par::Serial).unwrap();
                for i in 0..m {
                    for j in 0..n {
                        let want: f64 = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum();
                        prop_assert!((f64::from(out[i * n + j]) - want).abs() < 1e-4, "{isa:?}");
                    }
                }
                let mut threads = vec![f32::NAN; m * n];
                packed.product(&a, m, &mut threads, Par::Rayon).unwrap();
                prop_assert_eq!(&threads, &out);
                // Every level fuses its multiply-adds in the same order.
                if let Some(first) = &first {
                    prop_assert_eq!(first, &out);
                } else {
                    first = Some(out);
                }
            }
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let packed = Packed::new(3, 2, |_, _| 1.0);
        assert!(packed.product(&[0.0; 5], 2, &mut [0.0; 4], Par::Serial).is_err());
        assert!(packed.product(&[0.0; 6], 2, &mut [0.0; 3], Par::Serial).is_err());
    }
}
