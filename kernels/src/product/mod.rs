//! Matrix products of any layout, for operands that change from call to call (training).
//!
//! The frozen networks use [`crate::gemm`], whose weights are packed once; this module leaves the packing to the `gemm`
//! crate.
//!
//! [`panel`], [`pairs`] and [`window`] are the products of training that are worth their own loops: linear layers on few samples, and
//! the weights of convolutions.
//!
//! ```
//! use blemish_kernels::{Par, product::{Mat, Sum, matmul}};
//! let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0]);
//! let mut out = [0.0; 2];
//! matmul(Mat::new(&a, 2, 2)?, Mat::new(&b, 2, 1)?, &mut out, Sum::Overwrite, Par::Serial)?;
//! assert_eq!(out, [17.0, 39.0]);
//! matmul(Mat::new(&a, 2, 2)?.t(), Mat::new(&b, 2, 1)?, &mut out, Sum::Add, Par::Serial)?;
//! assert_eq!(out, [17.0 + 23.0, 39.0 + 34.0]);
//! # Ok::<(), blemish_kernels::KernelError>(())
//! ```

mod cpu;
mod cpu_narrow;
mod cpu_out;
mod cpu_pairs;
mod cpu_panel;
mod cpu_target;
mod cpu_window;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod pairs;
pub mod panel;
pub mod window;

use crate::{Par, Result, error::shape_error};

/// A matrix in memory: a slice with a row and a column stride.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// `rows` x `cols` values in row-major order.
    ///
    /// # Errors
    /// [`KernelError::Shape`](crate::KernelError::Shape) if the slice is too short.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Result<Self> {
        Mat::strided(data, rows, cols, cols)
    }

    /// As [`new`](Self::new), with `row_stride` values from one row to the next.
    ///
    /// # Errors
    /// [`KernelError::Shape`](crate::KernelError::Shape) if the slice is too short or rows overlap.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Result<Self> {
        let needed = if rows == 0 || cols == 0 {
            Some(0)
        } else {
            (rows - 1).checked_mul(row_stride).and_then(|n| n.checked_add(cols))
        };
        if row_stride < cols || needed.is_none_or(|n| n > data.len()) {
            return Err(shape_error("matrix", format!("{rows}x{cols}, {row_stride} apart"), data.len()));
        }
        Ok(Mat { data, rows, cols, row_stride, col_stride: 1 })
    }

    /// The transpose; nothing is moved.
    pub fn t(self) -> Self {
        Mat {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// What happens to the values already in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// They are replaced.
    Overwrite,
    /// The product is added to them.
    Add,
}

/// `out = a * b` or `out += a * b`; `out` is row-major `[a.rows, b.cols]`. The same bits for any number of threads.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the sizes do not fit.
pub fn matmul(a: Mat<'_>, b: Mat<'_>, out: &mut [f32], sum: Sum, par: Par) -> Result<()> {
    if a.cols != b.rows || Some(out.len()) != a.rows.checked_mul(b.cols) {
        let wanted = format!("[{}, k] * [k, {}] into {}", a.rows, b.cols, a.rows * b.cols);
        return Err(shape_error("matmul", wanted, (a.rows, a.cols, b.rows, b.cols, out.len())));
    }
    if a.cols == 0 && sum == Sum::Overwrite {
        out.fill(0.0);
    }
    if a.cols == 0 || out.is_empty() {
        return Ok(());
    }
    cpu::matmul(a, b, out, sum, par);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(i: usize) -> f32 {
        ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0
    }

    proptest! {
        #[test]
        fn agrees_with_f64(m in 1usize..70, k in 0usize..40, n in 1usize..300, ta: bool, tb: bool, add: bool) {
            let a: Vec<f32> = (0..m * k).map(value).collect();
            let b: Vec<f32> = (0..k * n).map(|i| value(i + 77)).collect();
            let start: Vec<f32> = (0..m * n).map(|i| value(i + 5)).collect();
            let left = if ta { Mat::new(&a, k, m).unwrap().t() } else { Mat::new(&a, m, k).unwrap() };
            let right = if tb { Mat::new(&b, n, k).unwrap().t() } else { Mat::new(&b, k, n).unwrap() };
            let sum = if add { Sum::Add } else { Sum::Overwrite };
            let mut serial = start.clone();
            matmul(left, right, &mut serial, sum, Par::Serial).unwrap();
            let mut threads = start.clone();
            matmul(left, right, &mut threads, sum, Par::Rayon).unwrap();
            for i in 0..m {
                for j in 0..n {
                    let mut want = if add { f64::from(start[i * n + j]) } else { 0.0 };
                    for l in 0..k {
                        let x = if ta { a[l * m + i] } else { a[i * k + l] };
                        let y = if tb { b[j * k + l] } else { b[l * n + j] };
                        want += f64::from(x) * f64::from(y);
                    }
                    prop_assert!((f64::from(serial[i * n + j]) - want).abs() < 1e-4);
                    prop_assert!((f64::from(threads[i * n + j]) - want).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        assert!(Mat::new(&[0.0; 5], 2, 3).is_err());
        assert!(Mat::strided(&[0.0; 9], 3, 3, 2).is_err());
        assert!(Mat::strided(&[0.0; 9], usize::MAX, 3, 3).is_err());
        let a = [0.0; 6];
        let (a, b) = (Mat::new(&a, 2, 3).unwrap(), Mat::new(&a, 2, 3).unwrap());
        assert!(matmul(a, b, &mut [0.0; 4], Sum::Add, Par::Serial).is_err());
        assert!(matmul(a, b.t(), &mut [0.0; 5], Sum::Add, Par::Serial).is_err());
    }
}
