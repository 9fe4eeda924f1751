//! Exact k nearest rows of a bank.
//!
//! Distances are Euclidean, computed by direct difference in one fixed order, so equal rows are at distance 0 and every
//! path gives the same bits; of rows at the same distance the one with the lower index comes first.
//!
//! | item | what it does |
//! |---|---|
//! | [`Bank`] | rows prepared for many searches |
//! | [`Rows`], [`Storage`] | how rows are kept: 32, 16 or 8 bits a number; searches are exact over the rounded rows |
//! | [`Neighbors`] | what a search finds |
//! | [`pairwise_squared`] | all squared distances of two sets of rows |
//!
//! A search looks at a few coordinates of each row (`prefix.rs`: leading principal directions and the norm of the rest),
//! which bound its distance from below, and computes distances only for rows that the bound leaves. Tables follow from
//! the rows alone; results depend on nothing but the rows and the query.
//!
//! ```
//! use blemish_kernels::nearest::Bank;
//! use ndarray::array;
//!
//! let bank = Bank::new(array![[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])?;
//! let found = bank.search(array![[0.0, 0.0]].view(), 2)?;
//! assert_eq!(found.index, array![[0, 2]]);
//! assert_eq!(found.distance, array![[0.0, 1.0]]);
//! # Ok::<(), blemish_kernels::KernelError>(())
//! ```

mod bank;
mod basis;
mod cpu_compact;
mod cpu_distance;
mod cpu_isa;
mod cpu_tile;
#[cfg(feature = "cuda")]
pub mod cuda;
mod prefix;
mod rows;
#[cfg(test)]
mod tests;
mod top;

use ndarray::{Array2, ArrayView2, CowArray, Ix2};
use rayon::prelude::*;

use crate::error::shape_error;
use crate::{KernelError, Result};

pub use bank::{Bank, Neighbors};
pub(crate) use cpu_distance::{squared_below, squared_rows};
pub(crate) use cpu_isa::Isa;
pub(crate) use cpu_tile::{BLOCK, LANES, sieve};
pub(crate) use prefix::{Mapped, Prefix, Work};
pub(crate) use rows::View;
pub use rows::{Rows, Storage};

/// Squared Euclidean distances `[m, n]` of the rows of `query` `[m, d]` to those of `bank` `[n, d]`, by direct difference.
///
/// # Errors
/// [`KernelError::Shape`] if the rows differ in length or have none; [`KernelError::NotFinite`].
pub fn pairwise_squared(query: ArrayView2<'_, f32>, bank: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
    const OP: &str = "pairwise_squared";
    let (m, n, d) = (query.nrows(), bank.nrows(), query.ncols());
    if d == 0 || d != bank.ncols() {
        return Err(shape_error(OP, "rows [m, d] and [n, d] with d >= 1", (query.shape(), bank.shape())));
    }
    let (query, bank) = (query.as_standard_layout(), bank.as_standard_layout());
    let (q, b) = (finite(OP, "query", &query)?, finite(OP, "bank", &bank)?);
    let mut out = Array2::zeros((m, n));
    let isa = Isa::best();
    if let Some(out) = out.as_slice_mut().filter(|_| n > 0) {
        // Some rows of the bank stay in the cache while a group of queries goes over them.
        let tile = (1 << 16).min(n * d).div_ceil(d).max(1);
        out.par_chunks_mut(16 * n).zip(q.par_chunks(16 * d)).for_each(|(out, q)| {
            for (t, rows) in b.chunks(tile * d).enumerate() {
                for (out, q) in out.chunks_mut(n).zip(q.chunks_exact(d)) {
                    squared_rows(isa, q, rows, &mut out[t * tile..][..rows.len() / d]);
                }
            }
        });
    }
    Ok(out)
}

/// The values of an array in standard layout, if all are finite.
pub(crate) fn finite<'a>(op: &'static str, what: &'static str, rows: &'a CowArray<'_, f32, Ix2>) -> Result<&'a [f32]> {
    let values = rows.as_slice().unwrap_or(&[]);
    finite_values(op, what, values)?;
    Ok(values)
}

fn finite_values(op: &'static str, what: &'static str, values: &[f32]) -> Result<()> {
    // A sum is finite only if its terms are; looked at in pieces, for speed.
    let piece = |(i, v): (usize, &[f32])| {
        let bad = v.iter().fold(0u32, |bad, x| bad | u32::from(!x.is_finite()));
        if bad == 0 { None } else { v.iter().position(|x| !x.is_finite()).map(|j| i * 4096 + j) }
    };
    match values.par_chunks(4096).enumerate().find_map_first(piece) {
        Some(index) => Err(KernelError::NotFinite { op, what, index }),
        None => Ok(()),
    }
}
