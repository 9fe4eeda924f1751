/// Why a matrix could not be factored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinalgError {
    /// The matrix has unequal sides.
    #[error("{op}: wanted a square matrix, got {rows} x {columns}")]
    NotSquare {
        /// The function.
        op: &'static str,
        /// Rows found.
        rows: usize,
        /// Columns found.
        columns: usize,
    },
    /// NaN or infinity in the part of the matrix that is read.
    #[error("{op}: the value in row {row}, column {column} is not finite")]
    NotFinite {
        /// The function.
        op: &'static str,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// A pivot of the Cholesky factorisation is zero or negative.
    #[error("the matrix of order {order} is not positive definite at pivot {pivot}")]
    NotPositiveDefinite {
        /// Rows of the matrix.
        order: usize,
        /// The first pivot that failed, from 0.
        pivot: usize,
    },
    /// A diagonal entry of a triangle is zero.
    #[error("the triangle of order {order} is singular at pivot {pivot}")]
    Singular {
        /// Rows of the matrix.
        order: usize,
        /// The first zero of the diagonal, from 0.
        pivot: usize,
    },
    /// LAPACK gave up.
    #[error("{op}: {why}")]
    Lapack {
        /// The function.
        op: &'static str,
        /// What LAPACK said.
        why: String,
    },
}
