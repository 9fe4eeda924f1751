//! Matrix products whose right operand is packed once: the engine of the convolutions.
//!
//! One loop makes products of `f32`, of pairs of bf16 (summed in `f32`) and of fours of bytes (summed in whole numbers): an
//! operand is a row of 32-bit words. What is public here is the product in single precision.
//!
//! A tile of the output stays in registers for the whole depth, so each output is one chain of fused multiply-adds in the
//! order of the depth: its bits depend neither on its place in a tile nor on what is computed beside it.

mod cpu;
mod cpu_element;
#[cfg(target_arch = "aarch64")]
mod cpu_neon;
mod cpu_plain;
mod cpu_reduced;
mod cpu_vector;
mod cpu_words;
mod panels;

pub use cpu_element::{Element, convert};
pub use cpu_vector::Isa;

pub(crate) use cpu::{Epilogue, Pointwise, Rows, Scale, activate, activate_slice, exp, multiply};
pub(crate) use cpu_element::{Brain, Byte, Product, Single, dispatch_maps, same, same_mut};
pub(crate) use cpu_reduced::dispatch_bf16;
pub(crate) use cpu_vector::{Kernel, Loops, Vector, dispatch, vectorised};
pub(crate) use panels::Panels;

use crate::conv::Activation;
use crate::{Par, Result, error::shape_error};

/// A right operand `[depth, columns]`, packed into panels.
#[derive(Clone, Debug)]
pub struct Packed(Panels<Single>);

impl Packed {
    /// Packs for the best instructions of this processor; `value(k, n)` is the operand.
    pub fn new(depth: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Packed {
        Packed::with_isa(Isa::best(), depth, columns, value)
    }

    /// As [`new`](Self::new), for chosen instructions.
    pub fn with_isa(isa: Isa, depth: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Packed {
        Packed(Panels::new(isa, depth, columns, value))
    }

    /// `out[m, columns] = a[m, depth] * self`.
    ///
    /// # Errors
    /// [`KernelError::Shape`](crate::KernelError::Shape) if a length does not fit.
    pub fn product(&self, a: &[f32], m: usize, out: &mut [f32], par: Par) -> Result<()> {
        let Panels { depth, columns, .. } = self.0;
        if Some(a.len()) != m.checked_mul(depth) || Some(out.len()) != m.checked_mul(columns) {
            let wanted = format!("[{m}, {depth}] to [{m}, {columns}]");
            return Err(shape_error("packed product", wanted, (a.len(), out.len())));
        }
        let epilogue = Epilogue { scale: None, bias: None, residual: None, activation: Activation::None };
        multiply(&self.0, &Rows::Plain { data: a, stride: depth }, m, &epilogue, out, par);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
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

    proptest! {
        #[test]
        fn pairs_of_bf16_agree_with_f64(m in 1usize..40, pairs in 1usize..40, n in 1usize..140) {
            let k = 2 * pairs;
            let a: Vec<bf16> = (0..m * k).map(|i| bf16::from_f32(((i * 37 % 101) as f32 - 50.0) / 50.0)).collect();
            let b = |i: usize, j: usize| bf16::from_f32((((i * n + j) * 53 % 97) as f32 - 48.0) / 48.0);
            for isa in [Some(Isa::Portable), Isa::bf16()].into_iter().flatten() {
                let panels = Panels::<Brain>::new(isa, k, n, b);
                fn plain<E>() -> Epilogue<'static, E> {
                    Epilogue { scale: None, bias: None, residual: None, activation: Activation::None }
                }
                let rows = Rows::Plain { data: &a, stride: k };
                let mut out = vec![f32::NAN; m * n];
                multiply(&panels, &rows, m, &plain(), &mut out, Par::Rayon);
                let mut rounded = vec![bf16::NAN; m * n];
                multiply(&panels, &rows, m, &plain(), &mut rounded, Par::Serial);
                let mut wide = vec![0.0f32; m * n];
                convert(&rounded, &mut wide, Par::Rayon);
                prop_assert!(wide.iter().zip(&rounded).all(|(x, y)| *x == y.to_f32()));
                let mut narrow = vec![bf16::NAN; m * n];
                convert(&out, &mut narrow, Par::Rayon);
                prop_assert_eq!(&narrow, &rounded);
                for i in 0..m {
                    for j in 0..n {
                        let term = |l: usize| a[i * k + l].to_f64() * b(l, j).to_f64();
                        let want: f64 = (0..k).map(term).sum();
                        let size: f64 = (0..k).map(|l| term(l).abs()).sum();
                        // Products are exact; each sum is rounded once.
                        let bound = size * k as f64 * f64::from(f32::EPSILON);
                        let got = out[i * n + j];
                        prop_assert!((f64::from(got) - want).abs() <= bound, "{:?}: {} for {}", isa, got, want);
                        prop_assert_eq!(rounded[i * n + j], bf16::from_f32(got), "{:?}", isa);
                    }
                }
            }
        }

        #[test]
        fn bytes_are_exact(m in 1usize..40, fours in 1usize..30, n in 1usize..140, salt in 0usize..1000) {
            let k = 4 * fours;
            let a: Vec<u8> = (0..m * k).map(|i| ((i + salt) * 37 % 256) as u8).collect();
            let b = |i: usize, j: usize| ((i * n + j + salt) * 53 % 255) as i32 as u8 as i8;
            let offset: Vec<i32> = (0..n).map(|j| j as i32 * 1000 - 5000).collect();
            let factor: Vec<f32> = (0..n).map(|j| 0.003 + j as f32 * 1e-4).collect();
            let scale = Some(Scale { offset: &offset, factor: &factor });
            for isa in [Isa::Portable, Isa::Avx2, Isa::int8()].into_iter().filter(|isa| isa.is_available()) {
                let panels = Panels::<Byte>::new(isa, k, n, |i, j| b(i, j) as u8);
                for activation in [Activation::None, Activation::Silu] {
                    let epilogue = Epilogue { scale, bias: Some(&factor), residual: None, activation };
                    let rows = Rows::Plain { data: &a, stride: k };
                    let mut out = vec![f32::NAN; m * n];
                    multiply(&panels, &rows, m, &epilogue, &mut out, Par::Rayon);
                    for i in 0..m {
                        for j in 0..n {
                            let sum: i32 = (0..k).map(|l| i32::from(a[i * k + l]) * i32::from(b(l, j))).sum();
                            let want = ((sum + offset[j]) as f32).mul_add(factor[j], factor[j]);
                            let mut want = [want];
                            if activation == Activation::Silu {
                                crate::pool::silu(&mut want);
                            }
                            prop_assert_eq!(out[i * n + j].to_bits(), want[0].to_bits(), "{:?}", isa);
                        }
                    }
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
