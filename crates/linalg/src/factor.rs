use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, s};

use crate::{LinalgError, Real, Result};

/// Replaces a symmetric positive definite `a` `[n, n]` by its lower Cholesky factor, zeros above the diagonal.
///
/// Only the lower triangle of `a` is read.
///
/// # Errors
/// A matrix that is not square, holds a value that is not finite, or is not positive definite; `a` is spoilt then.
pub fn cholesky<T: Real>(a: &mut Array2<T>) -> Result<()> {
    let order = check("cholesky", a)?;
    standard(a);
    factor_block(a.view_mut()).map_err(|pivot| LinalgError::NotPositiveDefinite { order, pivot })?;
    clear_above(a);
    Ok(())
}

/// Rows below which plain substitution is faster than products of halves.
const LEAF: usize = 32;

/// The lower factor, halving until small; or the first pivot that is not positive.
fn factor_block<T: Real>(mut a: ArrayViewMut2<'_, T>) -> std::result::Result<(), usize> {
    let n = a.nrows();
    if n > LEAF {
        let half = n / 2;
        let (mut top, bottom) = a.split_at(Axis(0), half);
        let mut top = top.slice_mut(s![.., ..half]);
        factor_block(top.view_mut())?;
        let (mut b, mut c) = bottom.split_at(Axis(1), half);
        solve_block(top.view(), b.view_mut());
        general_mat_mul(-T::one(), &b, &b.t(), T::one(), &mut c);
        return factor_block(c).map_err(|pivot| half + pivot);
    }
    for i in 0..n {
        let (done, mut rest) = a.view_mut().split_at(Axis(0), i);
        let mut row = rest.row_mut(0);
        for j in 0..i {
            let dot = (0..j).fold(row[j], |sum, k| sum - row[k] * done[[j, k]]);
            row[j] = dot / done[[j, j]];
        }
        let square = (0..i).fold(row[i], |sum, k| sum - row[k] * row[k]);
        if square.partial_cmp(&T::zero()) != Some(std::cmp::Ordering::Greater) {
            return Err(i);
        }
        row[i] = square.sqrt();
    }
    Ok(())
}

/// Replaces `b` by `b L^-T`.
fn solve_block<T: Real>(l: ArrayView2<'_, T>, mut b: ArrayViewMut2<'_, T>) {
    let n = l.nrows();
    if n > LEAF {
        let half = n / 2;
        let (mut left, mut right) = b.split_at(Axis(1), half);
        solve_block(l.slice(s![..half, ..half]), left.view_mut());
        general_mat_mul(-T::one(), &left, &l.slice(s![half.., ..half]).t(), T::one(), &mut right);
        return solve_block(l.slice(s![half.., half..]), right);
    }
    for mut row in b.rows_mut() {
        for j in 0..n {
            let dot = (0..j).fold(row[j], |sum, k| sum - row[k] * l[[j, k]]);
            row[j] = dot / l[[j, j]];
        }
    }
}

fn clear_above<T: Real>(a: &mut Array2<T>) {
    for i in 0..a.nrows() {
        a.slice_mut(s![i, i + 1..]).fill(T::zero());
    }
}

/// Replaces a lower triangle `l` `[n, n]` by its inverse, zeros above the diagonal. What lies above is not read.
///
/// # Errors
/// A matrix that is not square, holds a value that is not finite, or has a zero on its diagonal.
pub fn invert_lower<T: Real>(l: &mut Array2<T>) -> Result<()> {
    let order = check("invert_lower", l)?;
    standard(l);
    if let Some(pivot) = (0..order).find(|&i| l[[i, i]] == T::zero()) {
        return Err(LinalgError::Singular { order, pivot });
    }
    clear_above(l);
    invert_block(l.view_mut());
    Ok(())
}

/// `[[A, 0], [B, C]]^-1 = [[A^-1, 0], [-C^-1 B A^-1, C^-1]]`, halving until small.
fn invert_block<T: Real>(mut l: ArrayViewMut2<'_, T>) {
    let n = l.nrows();
    if n > LEAF {
        let half = n / 2;
        let (mut top, mut bottom) = l.split_at(Axis(0), half);
        invert_block(top.slice_mut(s![.., ..half]));
        let (mut b, mut c) = bottom.view_mut().split_at(Axis(1), half);
        invert_block(c.view_mut());
        let product = b.dot(&top.slice(s![.., ..half]));
        general_mat_mul(-T::one(), &c, &product, T::zero(), &mut b);
        return;
    }
    for i in 0..n {
        let (done, mut rest) = l.view_mut().split_at(Axis(0), i);
        let mut row = rest.row_mut(0);
        let scale = T::one() / row[i];
        for j in 0..i {
            let dot = (j..i).fold(T::zero(), |sum, k| sum + row[k] * done[[k, j]]);
            // Entries left of j are done, those right of it are still of L: the sum above reads from j on.
            row[j] = -(dot * scale);
        }
        row[i] = scale;
    }
}

/// Eigenvalues `[n]`, ascending, and eigenvectors, one a column of `[n, n]`, of a symmetric matrix.
///
/// Only the lower triangle of `a` is read.
///
/// # Errors
/// A matrix that is not square or holds a value that is not finite, or no convergence.
pub fn eigh<T: Real>(mut a: Array2<T>) -> Result<(Array1<T>, Array2<T>)> {
    if check("eigh", &a)? == 0 {
        return Ok((Array1::zeros(0), a));
    }
    standard(&mut a);
    T::syev(a).map_err(|e| LinalgError::Lapack { op: "eigh", why: e.to_string() })
}

/// The order of a square matrix whose lower triangle is finite.
fn check<T: Real>(op: &'static str, a: &Array2<T>) -> Result<usize> {
    let (rows, columns) = a.dim();
    if rows != columns {
        return Err(LinalgError::NotSquare { op, rows, columns });
    }
    for (row, values) in a.rows().into_iter().enumerate() {
        if let Some(column) = values.iter().take(row + 1).position(|v| !v.is_finite()) {
            return Err(LinalgError::NotFinite { op, row, column });
        }
    }
    Ok(rows)
}

fn standard<T: Real>(a: &mut Array2<T>) {
    if !a.is_standard_layout() {
        *a = a.as_standard_layout().into_owned();
    }
}
