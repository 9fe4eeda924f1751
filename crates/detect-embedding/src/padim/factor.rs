//! The small dense steps between moments and what is kept.

use blemish_linalg::{cholesky, eigh, invert_lower};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, s};

use crate::Result;

/// Rows of a triangle multiplied at once; what lies above their diagonal block is skipped.
const BLOCK: usize = 96;

/// Extends the inverse Cholesky factor `W` of a leading block to the next rows of the covariance.
///
/// With `C = [[A, Bᵀ], [B, D]]` and `W_A A W_Aᵀ = I`: `L = B W_Aᵀ`, `W_D = chol(D - L Lᵀ)⁻¹`, and the next rows of `W`
/// are `[-W_D L W_A, W_D]`. `inverse` is `[b, b]` with `W_A` in its first rows, `rows` is `[B, D]`.
pub(crate) fn extend(inverse: &mut Array2<f64>, rows: ArrayView2<'_, f64>) -> Result<()> {
    let (n, b) = rows.dim();
    let a = b - n;
    let mut own = rows.slice(s![.., a..]).to_owned();
    let (leading, mut next) = inverse.view_mut().split_at(ndarray::Axis(0), a);
    let leading = leading.slice(s![.., ..a]);
    let mut lower = Array2::<f64>::zeros((n, a));
    for start in (0..a).step_by(BLOCK) {
        let end = a.min(start + BLOCK);
        let to = lower.slice_mut(s![.., start..end]);
        multiply(1.0, rows.slice(s![.., ..end]), leading.slice(s![start..end, ..end]).reversed_axes(), 0.0, to);
    }
    multiply(-1.0, lower.view(), lower.t(), 1.0, own.view_mut());
    cholesky(&mut own)?;
    invert_lower(&mut own)?;
    let mut through = Array2::<f64>::zeros((n, a));
    for start in (0..a).step_by(BLOCK) {
        let end = a.min(start + BLOCK);
        let to = through.slice_mut(s![.., start..end]);
        multiply(1.0, lower.slice(s![.., start..]), leading.slice(s![start.., start..end]), 0.0, to);
    }
    multiply(-1.0, own.view(), through.view(), 0.0, next.slice_mut(s![.., ..a]));
    next.slice_mut(s![.., a..]).assign(&own);
    Ok(())
}

fn multiply(alpha: f64, a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>, beta: f64, mut to: ArrayViewMut2<'_, f64>) {
    if !a.is_empty() && !b.is_empty() {
        general_mat_mul(alpha, &a, &b, beta, &mut to);
    }
}

/// Orthonormal directions `[k, d]` in which the rows of `y` `[n, d]` differ, and the eigenvalues of `yᵀ y`, descending.
///
/// Found through `y yᵀ`, which is small. Left out is what does not matter beside `epsilon` or is rounding.
pub(super) fn directions(y: &Array2<f64>, epsilon: f64) -> Result<(Array2<f64>, Array1<f64>)> {
    let (values, vectors) = eigh(y.dot(&y.t()))?;
    let largest = values.last().copied().unwrap_or(0.0);
    let least = (epsilon * 1e-7).max(largest * 1e-12);
    let kept: Vec<usize> = (0..values.len()).rev().filter(|&i| values[i] > least).take(y.ncols()).collect();
    let vectors = vectors.select(ndarray::Axis(1), &kept);
    let values = values.select(ndarray::Axis(0), &kept);
    let mut rows = vectors.t().dot(y);
    for (mut row, value) in rows.rows_mut().into_iter().zip(&values) {
        row /= value.sqrt();
    }
    Ok((rows, values))
}
