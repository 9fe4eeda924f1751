use ndarray::ArrayView2;

use super::cloud::Cloud;
use super::pool::{Pool, farthest};
use crate::error::shape_error;
use crate::nearest::{Isa, finite};
use crate::{KernelError, Result};

/// Points in a pool.
const POOL: usize = 2048;
/// Picks between two reports.
const REPORT: usize = 256;

/// Rows picked by [`greedy`].
#[derive(Clone, Debug, PartialEq)]
pub struct KCenter {
    /// Row numbers in the order picked, the start first.
    pub picks: Vec<usize>,
    /// Distance of each pick to the nearest earlier one; infinite for the start.
    pub radius: Vec<f32>,
}

/// Greedy k-center (Gonzalez 1985; the coreset of PatchCore, section 3.2): starting with row `start` of `points` `[n, d]`,
/// picks the row farthest from all picks, `count` rows in all. Of rows equally far the lowest is picked, so once all rows
/// are at distance 0, row 0 is picked again and again.
///
/// The picks are exactly those of the plain loop over Euclidean distances in f32 by direct difference, for any number of
/// threads: rows that can be picked next for certain are picked from a pool of the farthest ones, and all rows are then
/// updated at once, skipping those that a lower bound shows to be unchanged.
///
/// `on_progress` is told the number of picks now and then; if it returns false, the picks so far are returned.
///
/// # Errors
/// [`KernelError::Shape`] without rows or columns, or with 2^32 rows or more; [`KernelError::Parameter`] for a count
/// above the number of rows or a start that is no row; [`KernelError::NotFinite`].
pub fn greedy(
    points: ArrayView2<'_, f32>,
    count: usize,
    start: usize,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<KCenter> {
    greedy_with(Isa::best(), points, count, start, POOL, on_progress)
}

pub(super) fn greedy_with(
    isa: Isa,
    points: ArrayView2<'_, f32>,
    count: usize,
    start: usize,
    pool_size: usize,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<KCenter> {
    const OP: &str = "greedy k-center";
    let (n, d) = points.dim();
    if n == 0 || d == 0 || u32::try_from(n).is_err() {
        return Err(shape_error(OP, "points [n, d] with 1 <= n < 2^32 and d >= 1", points.shape()));
    }
    if count > n || start >= n {
        let what = format!("{count} picks from row {start} of {n} rows; at most as many picks as rows, a start below");
        return Err(KernelError::Parameter { op: OP, what });
    }
    let points = points.as_standard_layout();
    let points = finite(OP, "the points", &points)?;
    let mut out = KCenter { picks: Vec::with_capacity(count), radius: Vec::with_capacity(count) };
    if count == 0 {
        return Ok(out);
    }
    out.picks.push(start);
    out.radius.push(f32::INFINITY);
    let mut cloud = Cloud::new(points, d, count, isa);
    cloud.add(&[start]);
    let mut told = 0;
    while out.picks.len() < count {
        let mut pool = Pool::new(isa, points, d, farthest(&cloud.nearest, pool_size));
        let first = out.picks.len();
        while out.picks.len() < count {
            let Some(pick) = pool.pick() else { break };
            out.picks.push(pick.index as usize);
            out.radius.push(pick.squared.sqrt());
            if out.picks.len() - told >= REPORT {
                told = out.picks.len();
                if !on_progress(told) {
                    return Ok(out);
                }
            }
        }
        if out.picks.len() < count {
            cloud.add(&out.picks[first..]);
        }
    }
    on_progress(count);
    Ok(out)
}
